"""Figures that `virtex caption` draws of captions without words, and those that fail."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.predict.photo_run import save_run, write_images
from virtex.cli import main
from virtex.data.tokenizer import Tokenizer
from virtex.predict.attention_figures import strip_name
from virtex.predict.caption_files import job
from virtex.predict.caption_files.image_lists import find_images
from virtex.tasks.base import Task
from virtex.tokens import EOS_ID

EACH_KIND = pytest.mark.parametrize("flag", ["--attention", "--relevance"])


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_images(tmp_path / "photos", 3)


@pytest.fixture
def wordless_run(task: Task, tokenizer: Tokenizer, tmp_path: Path) -> Path:
    """A model that ends each caption at once."""
    bias = task.captioner.head.output_bias
    before = bias.detach().clone()
    with torch.no_grad():
        bias[EOS_ID] = 60.0
    run = save_run(tmp_path / "wordless", task, tokenizer)
    with torch.no_grad():
        bias.copy_(before)
    return run


def images_in(path: Path) -> list[str]:
    return [json.loads(line)["image"] for line in path.read_text().splitlines()]


@EACH_KIND
def test_captions_without_words_are_kept_and_drawn(
    wordless_run: Path, photos: Path, tmp_path: Path, flag: str
) -> None:
    out, drawn = tmp_path / "c.jsonl", tmp_path / "drawn"
    flags = [flag, str(drawn), "--out", str(out)]
    assert main(["caption", str(wordless_run), str(photos), *flags]) == 0
    assert {json.loads(line)["caption"] for line in out.read_text().splitlines()} == {""}
    assert len(images_in(out)) == 3
    for name in find_images([photos]):
        Image.open(drawn / strip_name(name)).verify()


@EACH_KIND
def test_a_figure_that_cannot_be_written_loses_no_caption(
    run: Path, photos: Path, tmp_path: Path, flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    names, out, drawn = find_images([photos]), tmp_path / "c.jsonl", tmp_path / "drawn"
    (drawn / strip_name(names[1]) / "folder").mkdir(parents=True)
    assert main(["caption", str(run), str(photos), flag, str(drawn), "--out", str(out)]) == 0
    shown = capsys.readouterr()
    assert [line.split("\t")[0] for line in shown.out.splitlines()] == images_in(out) == names
    assert shown.err.count("not drawn: ") == 1
    assert f"not drawn: {drawn / strip_name(names[1])}: cannot write" in shown.err
    assert "captioned 3 of 3 images; 1 figures could not be drawn" in shown.err
    assert all((drawn / strip_name(name)).is_file() for name in (names[0], names[2]))


def test_an_image_that_disappears_before_it_is_drawn_keeps_its_caption(
    run: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    draw, names, drawn = job._draw, find_images([photos]), tmp_path / "drawn"

    def draw_after_removal(*arguments):
        Path(names[0]).unlink()
        return draw(*arguments)

    monkeypatch.setattr(job, "_draw", draw_after_removal)
    out = tmp_path / "c.jsonl"
    flags = ["--relevance", str(drawn), "--out", str(out)]
    assert main(["caption", str(run), str(photos), *flags]) == 0
    assert images_in(out) == names
    assert capsys.readouterr().err.count("not drawn: ") == 1
    assert {path.name for path in drawn.iterdir()} == {strip_name(name) for name in names[1:]}


@pytest.mark.parametrize(
    ("error", "kept"), [(RuntimeError("CUDA out of memory"), 2), (KeyboardInterrupt(), 0)]
)
def test_captions_outlive_a_failure_and_are_made_again_after_an_interruption(
    run: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    error: BaseException, kept: int,
) -> None:  # fmt: skip
    def fail(*arguments):
        raise error

    monkeypatch.setattr(job, "_draw", fail)
    out = tmp_path / "c.jsonl"
    config = job.CaptionFilesConfig(
        str(run), (str(photos),), out=out, batch_size=2, relevance=tmp_path / "drawn"
    )
    with pytest.raises(type(error)):
        job.caption_files(config)
    assert (len(images_in(out)) if out.exists() else 0) == kept
