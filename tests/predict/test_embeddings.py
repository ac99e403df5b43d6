"""Pooled embeddings: in Python, and of files by `virtex embed`."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import virtex
from tests.predict.photo_run import save_run, write_images
from tests.predict.small_captioner import small_task
from virtex.cli import main
from virtex.data.images import BadImageError
from virtex.data.tokenizer import Tokenizer
from virtex.data.transforms import ImageConfig, ValidationTransform, normalize
from virtex.errors import CheckpointError, ConfigError, DataError
from virtex.predict.caption_files.captions_file import locked
from virtex.predict.embed_files import embed_files
from virtex.predict.embed_options import EmbedFilesConfig
from virtex.predict.embeddings import pooled
from virtex.predict.image_inputs import as_example
from virtex.tasks.captioning import Captioning


def test_an_embedding_is_the_mean_of_the_grid_of_the_preprocessed_image(
    run: Path, tmp_path: Path
) -> None:
    folder = write_images(tmp_path, 3)
    paths = sorted(folder.glob("*.png"))
    backbone = virtex.load_backbone(run)
    pixels = virtex.preprocess(paths, size=48)
    assert pixels.shape == (3, 3, 48, 48)
    with torch.no_grad():
        expected = backbone(pixels).mean((2, 3))
    torch.testing.assert_close(virtex.embed(run, paths), expected)
    torch.testing.assert_close(
        virtex.embed(backbone, paths, image_size=48, batch_size=1), expected, rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(
        virtex.embed(run, io.BytesIO(paths[1].read_bytes())), expected[1:2], rtol=1e-4, atol=1e-5
    )
    assert virtex.embed(run, []).shape == (0, backbone.num_channels)


@pytest.mark.parametrize("size", [None, 32])
@pytest.mark.parametrize(
    "image",
    [ImageConfig(size=48, validation_resize=48), ImageConfig(size=48, original=True)],
    ids=["validation_resize", "original"],
)
def test_images_are_resized_as_the_run_states_in_python_and_by_the_command(
    image: ImageConfig, size: int | None, task: Captioning, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    run = save_run(tmp_path / "run", task, tokenizer, image=image)
    paths = sorted(write_images(tmp_path / "images", 3).glob("*.png"))
    short_side = size or image.size  # nothing of a square photo is cropped
    transform = ValidationTransform(ImageConfig(size=short_side, validation_resize=short_side))
    pixels = torch.stack([transform(as_example(path)) for path in paths])
    with torch.no_grad():
        expected = virtex.load_backbone(run)(normalize(pixels)).mean((2, 3))
    found = virtex.embed(run, paths, image_size=size)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    options = [] if size is None else ["--image_size", size]
    assert embed(run, *paths, "--out", tmp_path / "out.npz", *options) == 0
    with np.load(tmp_path / "out.npz", allow_pickle=False) as arrays:
        np.testing.assert_allclose(arrays["embeddings"], found, rtol=1e-4, atol=1e-5)


def embed(run: Path, *arguments: object) -> int:
    return main(["embed", str(run), *map(str, arguments), "--device", "cpu"])


def test_the_command_writes_a_row_for_each_image_that_can_be_read(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("virtex.cli.log_to_stderr", lambda: None)
    folder = write_images(tmp_path / "images", 4)
    (folder / "cut.jpg").write_bytes(b"\xff\xd8\xff")
    out = tmp_path / "new" / "out.npz"
    assert embed(run, folder, "--out", out, "--batch_size", 3) == 0
    assert "cut.jpg" in caplog.text
    assert "1 of 5 images cannot be read" in caplog.text
    with np.load(out, allow_pickle=False) as arrays:
        names, embeddings = arrays["names"].tolist(), arrays["embeddings"]
    assert names == [str(folder / f"photo{index}.png") for index in range(4)]
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(embeddings, virtex.embed(run, names), rtol=1e-4, atol=1e-5)


def test_an_existing_file_stays_unless_it_may_be_replaced(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = write_images(tmp_path / "images", 1), tmp_path / "out.npz"
    out.write_bytes(b"mine")
    assert embed(run, folder, "--out", out) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert out.read_bytes() == b"mine"
    assert embed(run, folder, "--out", out, "--overwrite", "--image_size", 64) == 0
    assert np.load(out)["embeddings"].shape == (1, 16)


def test_too_many_bad_images_write_nothing(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_images(tmp_path / "images", 2)
    (folder / "cut.jpg").write_bytes(b"\xff\xd8\xff")
    assert embed(run, folder, "--out", tmp_path / "x.npz", "--bad_image_limit", 0.1) == 2
    assert "1 of 3 images cannot be read" in capsys.readouterr().err
    for path in folder.glob("*.png"):
        path.unlink()
    assert embed(run, folder, "--out", tmp_path / "x.npz") == 2
    assert not (tmp_path / "x.npz").exists()
    with pytest.raises(BadImageError):
        virtex.embed(run, folder / "cut.jpg")


@pytest.mark.parametrize(
    ("weight", "message"),
    [(float("nan"), "weights that are infinite or NaN"), (3e38, "embeddings are not numbers")],
)
def test_embeddings_that_are_nan_are_an_error_and_write_nothing(
    weight: float,
    message: str,
    tokenizer: Tokenizer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    task = small_task(tokenizer)
    with torch.no_grad():
        next(task.backbone.parameters()).fill_(weight)
    run = save_run(tmp_path / "run", task, tokenizer)
    folder, out = write_images(tmp_path / "images", 2), tmp_path / "out.npz"
    assert embed(run, folder, "--out", out) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()
    with pytest.raises(CheckpointError, match=message):
        virtex.embed(run, folder / "photo0.png")


def test_a_file_in_use_is_named_before_the_model_is_loaded(tmp_path: Path) -> None:
    folder, out = write_images(tmp_path / "images", 1), tmp_path / "new" / "out.npz"
    config = EmbedFilesConfig("no/such/run", out, (str(folder),))
    with locked(out), pytest.raises(ConfigError, match=r"out\.npz is in use by process \d+"):
        embed_files(config)
    assert not out.exists()


def test_a_file_that_another_program_wrote_meanwhile_stays_and_no_embedding_is_lost(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, out = write_images(tmp_path / "images", 2), tmp_path / "out.npz"

    def write_meanwhile(*arguments: Any, **options: Any) -> torch.Tensor:
        out.write_bytes(b"theirs")
        return pooled(*arguments, **options)

    monkeypatch.setattr("virtex.predict.embed_files.pooled", write_meanwhile)
    config = EmbedFilesConfig(str(run), out, (str(folder),))
    with pytest.raises(DataError, match=r"written by another program meanwhile") as raised:
        embed_files(config)
    assert out.read_bytes() == b"theirs"
    (other,) = tmp_path.glob("out-*.npz")
    assert str(other) in str(raised.value)
    with np.load(other) as arrays:
        assert len(arrays["embeddings"]) == 2
    with pytest.raises(ConfigError, match="--overwrite"):
        embed_files(config)
    embed_files(replace(config, overwrite=True))
    assert len(np.load(out)["names"]) == 2


def test_a_file_that_appears_before_the_work_begins_stays(tmp_path: Path) -> None:
    folder, out = write_images(tmp_path / "images", 1), tmp_path / "out.npz"
    config = EmbedFilesConfig("no/such/run", out, (str(folder),))
    out.write_bytes(b"theirs")
    with pytest.raises(ConfigError, match="exists: give another name, or --overwrite"):
        embed_files(config)
