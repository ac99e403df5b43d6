"""Sample captions of validation images."""

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from tests.small_run import small_config
from virtex import samples
from virtex.pretrain import pretrain


def test_captions_are_the_same_in_pieces_and_whatever_the_names_of_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "photographs"
    for split in ("train", "val"):
        (folder / split).mkdir(parents=True)
        for index in range(12):
            name = os.fsdecode(b"caf\xe9_%d" % index)  # no UTF-8
            path = folder / split / f"{name}.png"
            Image.new("RGB", (64, 64), (20 * index, 0, 99)).save(path)
            path.with_suffix(".txt").write_text(f"a picture of number {index}")
    written = []
    for piece in (64, 5):
        monkeypatch.setattr(samples, "PIECE", piece)
        out = tmp_path / f"by_{piece}"
        pretrain(
            small_config(
                out, "--data", json.dumps({"source": "folder", "root": str(folder)}),
                "--run.num_steps=1", "--num_samples=12", "--tokenizer.vocab_size=60",
            )
        )  # fmt: skip
        written.append(json.loads((out / "samples.json").read_text())["samples"])
    assert len({sample["image"] for sample in written[0]}) == 12
    for whole, in_pieces in zip(*written, strict=True):
        assert whole.pop("log_likelihood") == pytest.approx(in_pieces.pop("log_likelihood"))
        assert whole == in_pieces
