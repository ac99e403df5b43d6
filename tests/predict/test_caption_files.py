"""`virtex caption` on files and folders."""

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.small_run import small_config
from virtex.cli import main
from virtex.errors import DataError
from virtex.models.decoding import DecodingConfig
from virtex.predict.caption_files import find_images
from virtex.predict.loading import load_captioner
from virtex.pretrain import pretrain


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("caption") / "run"
    pretrain(small_config(out, "--run.num_steps", "2", "--task.head.max_tokens", "12"))
    return out


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number in range(3):
        path = tmp_path / "photos" / f"sub{number}" / "photo.png"
        path.parent.mkdir(parents=True)
        Image.new("RGB", (70, 80), (40 * number, 100, 200)).save(path)
    return tmp_path / "photos"


def test_a_folder_is_captioned_and_a_corrupt_file_is_named(
    run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "sub1" / "photo.png").write_bytes(b"not an image")
    assert main(["caption", str(run), str(photos), "--json", str(tmp_path / "c.json")]) == 0
    written = json.loads((tmp_path / "c.json").read_text())
    assert [Path(line["image"]).parent.name for line in written] == ["sub0", "sub2"]
    printed = capsys.readouterr()
    assert printed.out.count("\n") == 2
    assert "sub1" in printed.err


def test_nucleus_captions_do_not_depend_on_the_batch_size(
    run: Path, photos: Path, tmp_path: Path
) -> None:
    texts = []
    for size in ("1", "3"):
        path = tmp_path / f"{size}.json"
        flags = ["--nucleus", "0.9", "--batch_size", size, "--json", str(path)]
        assert main(["caption", str(run), str(photos), *flags]) == 0
        texts.append([line["caption"] for line in json.loads(path.read_text())])
    assert texts[0] == texts[1]


def test_original_searches_as_the_released_code_did(
    run: Path, photos: Path, tmp_path: Path
) -> None:
    paths = sorted(photos.rglob("*.png"))
    flags = ["--original", "--json", str(tmp_path / "c.json")]
    assert main(["caption", str(run), str(photos), *flags]) == 0
    found = [line["log_likelihood"] for line in json.loads((tmp_path / "c.json").read_text())]
    captioner = load_captioner(run)
    for original in (True, False):
        decoding = DecodingConfig(original=original, max_steps=12)
        captions = captioner.caption(list(paths), decoding)
        same = found == pytest.approx([caption.log_likelihood for caption in captions], abs=1e-4)
        assert same == original


def test_paths_that_are_not_there_are_all_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"nothing\.jpg.*empty"):
        find_images([tmp_path / "nothing.jpg", tmp_path / "empty"])
