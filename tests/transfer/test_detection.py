"""Detection protocols end to end on drawn scenes in each benchmark's layout, and their parts."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from virtex.config import parse, with_recipes
from virtex.data.example import Example, Source
from virtex.data.layouts import write_scenes
from virtex.engine.optim import lr_scale
from virtex.errors import ConfigError, DataError
from virtex.transfer import detection
from virtex.transfer.detection import DetectionProtocolConfig
from virtex.transfer.protocol import Result
from virtex.transfer.scored_objects import ground_truth_of, with_objects

SMALL = """
backbone: {name: resnet18, options: {layers: [1, 1, 1, 1], channels: [8, 8, 16, 16]}}
task: {train_sizes: [64, 80], test_size: 64, max_size: 128}
num_statistics_batches: 2
optim: {lr: 0.01, backbone_lr: 0.01, milestones: [3], warmup_steps: 1}
run: {batch_size: 4, num_steps: 4, checkpoint_every: 2, tensorboard: false, device: cpu}
loader: {num_workers: 0}
"""
PYRAMID = "task: {regions: {pyramid_channels: 16, box_width: 32, num_regions: 32}}"
LAYOUTS = {"coco-segmentation": "coco", "lvis-segmentation": "lvis", "voc-detection": "voc"}


def config_of(recipe: str, *arguments: str) -> DetectionProtocolConfig:
    line = with_recipes(["--config", recipe, *arguments], "transfer")
    return parse(DetectionProtocolConfig, line, prog="virtex transfer")


def small(recipe: str, data: Path, out: Path, *arguments: str) -> DetectionProtocolConfig:
    sizes = () if recipe == "voc-detection" else ("--config", f"\n{PYRAMID}")
    splits = ("--data.train_split", "2007_trainval") if recipe == "voc-detection" else ()
    places = ("--init", "random", "--data.root", str(data), "--out", str(out))
    return config_of(recipe, "--config", SMALL, *sizes, *splits, *places, *arguments)


def draw_polygons(path: Path) -> None:
    """Give every other object a polygon of two parts, as COCO's have; crowds keep run lengths."""
    values = json.loads(path.read_text())
    rows = [row for row in values["annotations"] if not row["iscrowd"]]
    assert len(rows) > 2
    for row in rows[::2]:
        x, y, width, height = row["bbox"]
        middle = y + height / 2
        upper = [x, y, x + width, y, x + width, middle, x, middle]
        lower = [x, middle, x + width, middle, x + width / 2, y + height]
        row["segmentation"] = [upper, lower]
    path.write_text(json.dumps(values))


@pytest.fixture(scope="module")
def layouts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A few scenes in each layout."""
    folder = tmp_path_factory.mktemp("layouts")
    for layout in LAYOUTS.values():
        write_scenes(layout, folder / layout, num_train=10, num_val=6, image_size=64)
    for path in (folder / "coco" / "annotations").glob("instances_*.json"):
        draw_polygons(path)
    return {layout: folder / layout for layout in LAYOUTS.values()}


@pytest.mark.parametrize(
    ("recipe", "num_steps", "drops"),
    [
        ("coco-segmentation", 180_000, (120_000, 160_000)),
        ("coco_segmentation_1x", 90_000, (60_000, 80_000)),
        ("lvis-segmentation", 180_000, (120_000, 160_000)),
        ("lvis_segmentation_imagenet", 180_000, (120_000, 160_000)),
        ("voc-detection", 24_000, (18_000, 22_000)),
    ],
)
def test_the_recipes_are_the_papers(recipe: str, num_steps: int, drops: tuple[int, ...]) -> None:
    config = config_of(recipe, "--init", "random", "--out", "out")
    assert (config.run.num_steps, config.optim.milestones) == (num_steps, drops)
    assert config.run.batch_size == 16
    assert config.optim.lr == config.optim.backbone_lr == 0.02
    assert config.run.sync_batch_norm
    assert lr_scale(config.optim, step=drops[0], num_steps=num_steps) == pytest.approx(0.1)
    is_lvis = recipe.startswith("lvis")
    assert config.task.regions.num_detections == (300 if is_lvis else 100)
    assert config.repeat_threshold == (0.001 if is_lvis else 0)
    assert config.frozen_norm == (recipe == "lvis_segmentation_imagenet")
    has_norm = recipe not in ("lvis_segmentation_imagenet", "voc-detection")
    assert config.task.regions.pyramid_norm == has_norm


@pytest.mark.parametrize("recipe", LAYOUTS)
def test_a_protocol_runs_from_files_to_a_result(
    recipe: str, layouts: dict[str, Path], tmp_path: Path
) -> None:
    (result,) = detection.run(small(recipe, layouts[LAYOUTS[recipe]], tmp_path))
    assert result.protocol == recipe
    assert result.headline == ("voc07_AP" if recipe == "voc-detection" else "mask_AP")
    assert 0 <= result.score <= 100
    expected = {
        "coco-segmentation": {"mask_AP50", "box_AP75"},
        "lvis-segmentation": {"mask_APr", "box_AP"},
        "voc-detection": {"voc07_AP50", "voc07_AP75", "box_AP", "box_AP50"},
    }
    assert expected[recipe] <= result.numbers.keys()
    assert (result.numbers["num_train"], result.numbers["num_test"]) == (10, 6)
    (path,) = tmp_path.glob("*.json")
    assert Result.read(path).numbers == result.numbers
    (trained,) = tmp_path.glob("training/*")
    again = small(recipe, layouts[LAYOUTS[recipe]], tmp_path / "again", "--init", str(trained))
    (tested,) = detection.run(replace(again, backbone=None, evaluate_only=True))
    assert {**tested.numbers, "num_train": 10.0} == result.numbers
    assert (tested.protocol, tested.headline) == (result.protocol, result.headline)
    assert not (tmp_path / "again" / "training").exists()


@pytest.mark.parametrize(
    ("recipe", "metric", "headline"),
    [
        ("voc-detection", "voc", "voc07_AP"),
        ("voc-detection", "coco", "box_AP"),
        ("coco-segmentation", "coco", "mask_AP"),
        ("coco-segmentation", "voc", "mask_AP"),
    ],
)
def test_the_main_number_is_that_of_the_metric(recipe: str, metric: str, headline: str) -> None:
    config = config_of(recipe, "--init", "random", "--out", "out", "--metric", metric)
    assert detection.protocol(config).headline == headline


def test_an_interrupted_training_ends_with_the_same_numbers_and_bits(
    layouts: dict[str, Path], tmp_path: Path
) -> None:
    config = small("coco-segmentation", layouts["coco"], tmp_path, "--run.keep_checkpoints", "0")
    (whole,) = detection.run(config)
    first, last = sorted(tmp_path.glob("training/*/checkpoints/*.pt"))
    weights = torch.load(last, weights_only=True)["task"]
    last.unlink()
    (again,) = detection.run(config)
    resumed = torch.load(last, weights_only=True)["task"]
    assert first.is_file()
    assert all(torch.equal(value, resumed[name]) for name, value in weights.items())
    assert again.numbers == whole.numbers


@pytest.mark.parametrize(
    ("changes", "is_another"),
    [
        (("--task.test_size", "80", "--task.regions.num_detections", "50"), False),
        (("--num_statistics_batches", "1"), False),
        (("--task.train_sizes", "[64]"), True),
        (("--repeat_threshold", "0.5"), True),
        (("--frozen_norm", "true"), True),
    ],
)
def test_options_of_the_test_alone_reuse_the_training(
    changes: tuple[str, ...], is_another: bool, layouts: dict[str, Path], tmp_path: Path
) -> None:
    short = ("--run.num_steps", "1", "--optim.milestones", "[]", "--optim.schedule", "constant")
    for arguments in ((), changes):
        detection.run(small("coco-segmentation", layouts["coco"], tmp_path, *short, *arguments))
    assert len(list((tmp_path / "training").iterdir())) == 1 + is_another


def test_lvis_scores_of_data_without_frequencies_are_refused_before_training(
    layouts: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="rare, common or frequent"):
        detection.run(small("coco-segmentation", layouts["coco"], tmp_path, "--metric", "lvis"))
    assert not (tmp_path / "training").exists()


def test_an_image_that_cannot_be_read_is_counted_not_scored(
    layouts: dict[str, Path], tmp_path: Path
) -> None:
    data = tmp_path / "coco"
    write_scenes("coco", data, num_train=8, num_val=4, image_size=64)
    sorted((data / "val2017").iterdir())[1].write_bytes(b"no image")
    (result,) = detection.run(small("coco-segmentation", data, tmp_path / "out"))
    assert result.numbers["num_test"] == 3


def test_a_resized_image_is_counted_not_scored(tmp_path: Path) -> None:
    write_scenes("coco", data := tmp_path / "coco", num_train=8, num_val=4, image_size=64)
    for split in ("train2017", "val2017"):
        path = sorted((data / split).iterdir())[1]
        Image.open(path).resize((32, 32)).save(path)
    (result,) = detection.run(small("coco-segmentation", data, tmp_path / "out"))
    assert result.numbers["num_test"] == 3


@pytest.mark.parametrize("recipe", LAYOUTS)
def test_resized_images_with_the_original_annotations_are_refused(
    recipe: str, layouts: dict[str, Path], tmp_path: Path
) -> None:
    data = shutil.copytree(layouts[LAYOUTS[recipe]], tmp_path / "data")
    for path in data.rglob("*.jpg"):
        Image.open(path).resize((32, 32)).save(path)
    config = small(recipe, data, tmp_path / "out", "--task.masks", "false")
    with pytest.raises(DataError, match="32 x 32 pixels, and its annotations say 64 x 64"):
        detection.run(config)


def test_training_data_without_objects_are_refused(tmp_path: Path) -> None:
    write_scenes("coco", tmp_path / "coco", num_train=4, num_val=4, image_size=64)
    path = tmp_path / "coco" / "annotations" / "instances_train2017.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "annotations": []}))
    with pytest.raises(DataError, match="no object"):
        detection.run(small("coco-segmentation", tmp_path / "coco", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_other_classes_in_the_test_are_refused(tmp_path: Path) -> None:
    write_scenes("coco", tmp_path / "coco", num_train=4, num_val=4, image_size=64)
    path = tmp_path / "coco" / "annotations" / "instances_val2017.json"
    values = json.loads(path.read_text())
    values["categories"][0]["name"] = "unicorn"
    path.write_text(json.dumps(values))
    with pytest.raises(DataError, match="unicorn"):
        detection.run(small("coco-segmentation", tmp_path / "coco", tmp_path / "out"))


class Listed(Source):
    """Given examples."""

    def __init__(self, examples: list[Example]) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Example:
        return self.examples[index]

    def identity(self) -> dict[str, str | int]:
        return {}


def test_images_of_difficult_objects_alone_are_trained_on() -> None:
    boxes = np.array([[1, 1, 5, 4]], np.float32)
    difficult = Example("1", b"", boxes=boxes, box_labels=(0,), difficult=(True,))
    easy = replace(difficult, labels=(0,), difficult=())
    bare = Example("2", b"", boxes=boxes[:0])
    kept = with_objects(Listed([difficult, easy, bare]))
    assert [example.difficult for example in kept] == [(True,), ()]


def test_areas_are_the_annotations_own_else_the_masks_else_the_boxes() -> None:
    example = Example(
        "1", b"", boxes=np.array([[1, 1, 5, 4]], np.float32), box_labels=(2,),
        masks=([[1.0, 1.0, 5.0, 1.0, 5.0, 4.0]],), areas=np.array([3.0], np.float32),
    )  # fmt: skip
    reported = ground_truth_of(example, (6, 8), with_masks=True)
    assert reported.areas.tolist() == [3.0]
    assert reported.labels.tolist() == [2]
    without = Example("1", b"", boxes=example.boxes, box_labels=(2,), masks=example.masks)
    assert 4 <= ground_truth_of(without, (6, 8), with_masks=True).areas[0] <= 8
    assert ground_truth_of(without, (6, 8), with_masks=False).areas.tolist() == [12.0]


@pytest.mark.parametrize("split", ["train", "val"])
def test_objects_that_are_all_crowds_are_refused_before_training(
    split: str, tmp_path: Path
) -> None:
    write_scenes("coco", tmp_path / "coco", num_train=4, num_val=4, image_size=64)
    path = tmp_path / "coco" / "annotations" / f"instances_{split}2017.json"
    values = json.loads(path.read_text())
    for row in values["annotations"]:
        row["iscrowd"] = 1
    path.write_text(json.dumps(values))
    with pytest.raises(DataError, match="only crowds"):
        detection.run(small("coco-segmentation", tmp_path / "coco", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_numbers_out_of_range_are_refused(tmp_path: Path) -> None:
    arguments = ("--num_statistics_batches", "-1", "--repeat_threshold", "2")
    with pytest.raises(ConfigError, match=r"(?s)num_statistics_batches.*repeat_threshold"):
        detection.run(small("coco-segmentation", tmp_path, tmp_path / "out", *arguments))
