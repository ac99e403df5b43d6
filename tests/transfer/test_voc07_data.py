"""VOC07 linear on data: a tiny devkit, drawn scenes, and a few hundred real images."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.transfer.conftest import SLIM
from tests.zoo.opened import open_backbone
from virtex.config import parse
from virtex.data.example import Subset
from virtex.data.sources.scenes.scenes_source import ScenesSource
from virtex.data.sources.voc import VocSource
from virtex.errors import DataError
from virtex.models.backbone import BackboneConfig
from virtex.transfer.features import Extraction
from virtex.transfer.protocol import Result
from virtex.transfer.voc07 import MultiLabelSvm, Voc07Config, run, with_voc_splits

COLORS = {"apple": (250, 30, 30), "sea": (20, 40, 250)}
NUM_IMAGES = 40


def write_devkit(root: Path) -> None:
    """VOC's layout: an apple or the sea fills its half; every eighth sea is difficult."""
    voc = root / "VOCdevkit" / "VOC2007"
    for folder in ("JPEGImages", "ImageSets/Main"):
        (voc / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        rows: dict[str, list[str]] = {"": [], **{f"{name}_": [] for name in COLORS}}
        for number in range(NUM_IMAGES):
            image_id = f"{split}{number:03d}"
            pixels = rng.normal(110, 20, (40, 52, 3))
            rows[""].append(image_id)
            for place, (name, color) in enumerate(COLORS.items()):
                mark = -1 if rng.random() < 0.5 else 0 if place and number % 8 == 0 else 1
                if mark >= 0:
                    pixels[:, 26 * place : 26 * place + 26] = color
                rows[f"{name}_"].append(f"{image_id} {mark:2d}")
            image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
            image.save(voc / "JPEGImages" / f"{image_id}.jpg", quality=95)
        for name, lines in rows.items():
            (voc / "ImageSets/Main" / f"{name}{split}.txt").write_text("\n".join(lines) + "\n")


def arguments(root: Path, out: Path) -> list[str]:
    options = {"layers": "[1,1,1,1]", "channels": "[8,8,16,32]"}
    backbone = [f"--backbone.options.{key}={value}" for key, value in options.items()]
    return [
        *("--init", "random", "--data.root", str(root), "--out", str(out)),
        *("--image_size", "64", "--num_workers", "0", "--backbone.name", "resnet18", *backbone),
    ]


def test_a_devkit_is_scored_from_the_command_line(tmp_path: Path) -> None:
    write_devkit(tmp_path)
    line = [*arguments(tmp_path, tmp_path / "out"), "--data.train_split", "train"]
    (result,) = run(
        parse(Voc07Config, [*line, "--data.val_split", "val"], prog="virtex transfer voc07")
    )
    assert result.protocol == "voc07"
    assert result.splits == "train -> val"
    assert result.score > 90
    assert {"mAP", "AP/apple", "AP/sea"} <= set(result.numbers)
    assert [Result.read(path) for path in (tmp_path / "out").glob("*.json")] == [result]


def test_the_papers_splits_are_the_default_and_named_where_missing(tmp_path: Path) -> None:
    write_devkit(tmp_path)
    config = parse(Voc07Config, arguments(tmp_path, tmp_path), prog="virtex transfer voc07")
    data = with_voc_splits(config.data)
    assert (data.train_split, data.val_split) == ("trainval", "test")
    named = replace(data, train_split="train", val_split="val")
    assert with_voc_splits(named) == named
    with pytest.raises(DataError, match="train, val"):
        run(config)


def test_drawn_scenes_go_through_the_same_protocol() -> None:
    backbone, _ = open_backbone("random", config=SLIM)
    train = ScenesSource(300, split="train", image_size=64)
    test = ScenesSource(150, split="val", image_size=64)
    extraction = Extraction(image_size=32, num_workers=0)
    protocol = MultiLabelSvm(name="scenes", extraction=extraction, leave_out_rare=True)
    result = protocol.run(backbone, train=train, test=test, initialisation={"init": "random"})
    assert result.protocol == "scenes"
    assert 1 < result.score < 60
    scored = [key for key in result.numbers if key.startswith("AP/")]
    assert result.numbers["num_classes"] == len(scored) < len(train.categories)


def test_real_images_are_scored_above_chance_and_the_same_from_kept_features(
    voc_root: Path, tmp_path: Path
) -> None:
    sources = [VocSource(voc_root, split=split) for split in ("train", "val")]
    train, test = (Subset(source, range(0, 2500, 8)) for source in sources)
    backbone, _ = open_backbone("random", config=BackboneConfig("resnet18"))
    protocol = MultiLabelSvm(extraction=Extraction(image_size=64, num_workers=0, cache=tmp_path))
    first, again = (protocol.measure(backbone, train=train, test=test) for _ in range(2))
    assert first == again
    assert 9 < first["mAP"] < 30
    assert first["AP/person"] > first["AP/sheep"]
