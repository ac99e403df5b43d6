"""The whole path from real polygons to AP: a detector memorises ten images."""

import json
import shutil
from pathlib import Path

import pytest

from tests.real_data import real
from virtex.config import parse, with_recipes
from virtex.transfer import detection
from virtex.transfer.detection import DetectionProtocolConfig

NUM_IMAGES = 10
SMALL = """
backbone: {name: resnet18, options: {layers: [1, 1, 1, 1], channels: [32, 64, 128, 256]}}
task:
  train_sizes: [160]
  test_size: 160
  max_size: 288
  regions: {pyramid_channels: 64, box_width: 256, num_regions: 64, anchor_scale: 4}
num_statistics_batches: 20
optim: {optimizer: adamw, lr: 0.001, backbone_lr: 0.001, milestones: [300, 360], warmup_steps: 20}
run: {batch_size: 5, num_steps: 400, tensorboard: false, device: cpu, log_every: 100}
loader: {num_workers: 1}
"""


@pytest.fixture
def ten_images(tmp_path: Path) -> Path:
    """The first of COCO's training images, as training and as validation images."""
    coco = real("data/coco_mini")
    values = json.loads((coco / "annotations" / "instances_train2017.json").read_text())
    images = values["images"][:NUM_IMAGES]
    ids = {image["id"] for image in images}
    annotations = [row for row in values["annotations"] if row["image_id"] in ids]
    text = json.dumps({**values, "images": images, "annotations": annotations})
    (tmp_path / "annotations").mkdir()
    for split in ("train2017", "val2017"):
        (tmp_path / split).mkdir()
        (tmp_path / "annotations" / f"instances_{split}.json").write_text(text)
        for image in images:
            shutil.copy(coco / "train2017" / image["file_name"], tmp_path / split)
    return tmp_path


@pytest.mark.slow
def test_ten_images_are_memorised(ten_images: Path, tmp_path: Path) -> None:
    places = ("--init", "random", "--data.root", str(ten_images), "--out", str(tmp_path))
    line = with_recipes(["--config", "coco-segmentation", "--config", SMALL, *places], "transfer")
    (result,) = detection.run(parse(DetectionProtocolConfig, line, prog="virtex transfer"))
    assert result.numbers["box_AP50"] > 50
    assert result.numbers["mask_AP50"] > 50
