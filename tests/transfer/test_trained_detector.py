"""A finished detector is tested again by its own network; what does not fit it is refused."""

import json
from pathlib import Path

import pytest
import torch

from tests.small_run import small_config
from tests.transfer.test_detection import PYRAMID, config_of, small
from virtex.data.layouts import write_scenes
from virtex.errors import CheckpointError, ConfigError, DataError
from virtex.pretrain import pretrain
from virtex.transfer import detection
from virtex.transfer.protocol import Result
from virtex.zoo.backbones import load_backbone

SHORT = ("--run.num_steps", "1", "--optim.milestones", "[]", "--optim.schedule", "constant")
TEST = """
task: {train_sizes: [64], test_size: 64, max_size: 128}
run: {batch_size: 4, device: cpu}
loader: {num_workers: 0}
"""


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scenes") / "coco"
    write_scenes("coco", root, num_train=6, num_val=4, image_size=64)
    return root


@pytest.fixture(scope="module")
def results(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of a training of one step, its anchors not those of the recipe."""
    out = tmp_path_factory.mktemp("results")
    detection.run(small("coco-segmentation", scenes, out, *SHORT, "--task.regions.anchor_scale=4"))
    return out


@pytest.fixture(scope="module")
def trained(results: Path) -> Path:
    (folder,) = (results / "training").iterdir()
    return folder


def evaluate(init: object, scenes: Path, out: Path, *arguments: str) -> Result:
    """Test a detector; no option says what network it is."""
    places = ("--init", str(init), "--data.root", str(scenes), "--out", str(out))
    rest = ("--config", TEST, *places, "--evaluate_only", *arguments)
    (result,) = detection.run(config_of("coco-segmentation", *rest))
    return result


def test_a_detector_brings_its_own_network(
    trained: Path, results: Path, scenes: Path, tmp_path: Path
) -> None:
    (before,) = results.glob("*.json")
    result = evaluate(trained, scenes, tmp_path)
    stored = Result.read(before)
    assert result.numbers == {k: v for k, v in stored.numbers.items() if k != "num_train"}
    assert result.settings["regions"]["anchor_scale"] == 4
    assert (result.settings["evaluate_only"], result.settings["image_size"]) == (True, 64)
    assert result.settings_hash != stored.settings_hash
    assert result.initialisation["sha256"]
    assert result.initialisation["step"] == 1
    assert result.data.keys() == {"test"}
    (path,) = tmp_path.iterdir()
    assert Result.read(path).settings_hash == result.settings_hash


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vit_tiny_patch16_224", "{depth: 1}"),
        ("swin_tiny_patch4_window7_224", "{depths: [1, 1, 1, 1], embed_dim: 24, img_size: 64}"),
    ],
)
def test_a_transformer_s_detector_takes_images_of_any_size(
    name: str, options: str, scenes: Path, tmp_path: Path
) -> None:
    network = ("--backbone.name", name, "--backbone.options", options)
    sizes = ("--task.train_sizes", "[72]", "--task.test_size", "88")
    config = small("coco-segmentation", scenes, tmp_path / "out", *SHORT, *network, *sizes)
    (result,) = detection.run(config)
    (folder,) = (tmp_path / "out" / "training").iterdir()
    again = evaluate(folder, scenes, tmp_path / "again", "--task.test_size", "88")
    assert again.numbers == {key: result.numbers[key] for key in again.numbers}


def test_options_of_the_test_are_those_of_the_command(
    trained: Path, scenes: Path, tmp_path: Path
) -> None:
    arguments = ("--task.regions.num_detections", "3", "--task.test_size", "48")
    result = evaluate(trained / "weights.safetensors", scenes, tmp_path, *arguments)
    assert result.settings["regions"]["num_detections"] == 3
    assert result.settings["test_size"] == 48


def test_boxes_of_a_mask_rcnn_can_be_scored_alone(
    trained: Path, scenes: Path, tmp_path: Path
) -> None:
    with_masks = evaluate(trained, scenes, tmp_path)
    boxes = evaluate(trained, scenes, tmp_path, "--task.masks", "false")
    assert (boxes.protocol, boxes.headline) == ("coco-detection", "box_AP")
    assert boxes.score == with_masks.numbers["box_AP"]
    assert "mask_AP" not in boxes.numbers


def test_a_pretext_run_of_mask_rcnn_is_a_detector(scenes: Path, tmp_path: Path) -> None:
    task = PYRAMID.replace("{regions", "{name: instance_segmentation, regions")
    options = f"data: {{source: coco, root: {scenes}}}\n{task}\n"
    pretrain(small_config(tmp_path / "run", "--config", options, "--run.num_steps", "1"))
    result = evaluate(tmp_path / "run", scenes, tmp_path / "out")
    assert result.numbers["num_test"] == 4
    assert result.settings["regions"]["pyramid_channels"] == 16


def test_the_backbone_of_a_detector_is_an_init_as_any(trained: Path) -> None:
    weights = load_backbone(trained).state_dict()
    assert weights["cnn.conv1.weight"].shape == (64, 3, 7, 7)
    assert all(torch.isfinite(value).all() for value in weights.values())


def test_other_classes_are_refused(trained: Path, tmp_path: Path) -> None:
    write_scenes("coco", tmp_path / "coco", num_train=2, num_val=4, image_size=64)
    path = tmp_path / "coco" / "annotations" / "instances_val2017.json"
    values = json.loads(path.read_text())
    values["categories"][0]["name"] = "unicorn"
    path.write_text(json.dumps(values))
    with pytest.raises(DataError, match=r"detects \d+ classes .* not in both: .*unicorn"):
        evaluate(trained, tmp_path / "coco", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--init", "random"), "init random is no detector"),
        (("--num_seeds", "2"), "num_seeds 2: a detector without training has one"),
        (("--backbone.name", "resnet18"), "backbone: with evaluate_only INIT states the network"),
        (("--backbone_from", "x"), "backbone_from: with evaluate_only"),
    ],
)
def test_options_that_have_no_effect_are_refused(
    arguments: tuple[str, ...], message: str, scenes: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        evaluate("run", scenes, tmp_path / "out", *arguments)
    assert not (tmp_path / "out").exists()


def test_what_is_no_detector_is_refused(trained: Path, scenes: Path, tmp_path: Path) -> None:
    pretrain(small_config(tmp_path / "captioner", "--run.num_steps", "1"))
    torch.save(load_backbone(trained).cnn.state_dict(), tmp_path / "backbone.pth")
    (checkpoint,) = (trained / "checkpoints").iterdir()
    for init in (tmp_path / "captioner", tmp_path / "backbone.pth", checkpoint):
        with pytest.raises(CheckpointError, match="holds no finished detector"):
            evaluate(init, scenes, tmp_path / "out")


def test_masks_of_a_detector_without_them_are_refused(scenes: Path, tmp_path: Path) -> None:
    boxes = small("coco-segmentation", scenes, tmp_path, *SHORT, "--task.masks", "false")
    detection.run(boxes)
    (trained,) = (tmp_path / "training").iterdir()
    with pytest.raises(ConfigError, match=r"predicts no masks: give --task\.masks false"):
        evaluate(trained, scenes, tmp_path / "out")
