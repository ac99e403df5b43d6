"""Every recipe of a protocol states the paper's values, looked at one by one.

The values are those that stand in the configuration files of the released code; where those say
nothing of detection, Detectron2's defaults.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from virtex.config import parse, recipe_paths, to_dict, with_recipes
from virtex.models.c4 import C4_COUNTS
from virtex.transfer import captioning, detection, image_classification, voc07
from virtex.transfer.protocols import PROTOCOLS
from virtex.transfer.solvers import svm

VARIANTS = {
    "imagenet_moco": "imagenet",
    "imagenet_multistep": "imagenet",
    "voc07_8192": "voc07",
    "coco_segmentation_1x": "coco-segmentation",
    "lvis_segmentation_imagenet": "lvis-segmentation",
}
"""Recipes that are not called as a protocol is, and the protocol that takes them."""

PLAIN_SGD = {
    "optim.optimizer": "sgd",
    "optim.momentum": 0.9,
    "optim.gamma": 0.1,
    "optim.lookahead_steps": 0,
    "optim.max_grad_norm": 0.0,
    "run.precision": "fp32",
    "run.accumulation_steps": 1,
}
CLASSIFICATION = {
    **PLAIN_SGD,
    "image.size": 224,
    "image.scale": [0.08, 1.0],
    "image.ratio": [0.75, 1.333],
    "image.flip_prob": 0.5,
    "image.jitter_prob": 0.0,
    "image.grayscale_prob": 0.0,
    "image.blur_prob": 0.0,
    "image.validation_resize": None,
    "image.original": False,
    "epochs": 100,
    "optim.warmup_steps": 0,
    "run.batch_size": 256,
    "labels": 1.0,
    "shots": None,
}
IMAGENET = {
    **CLASSIFICATION,
    "data.source": "classes",
    "frozen": True,
    "drop_epochs": [],
    "optim.lr": 0.3,
    "optim.weight_decay": 0.0,
    "optim.schedule": "cosine",
}
DROPS = {"drop_epochs": [60, 80]}
INATURALIST = {
    **CLASSIFICATION,
    "data.source": "inaturalist",
    "frozen": False,
    "drop_epochs": [70, 90],
    "optim.lr": 0.025,
    "optim.backbone_lr": 0.025,
    "optim.weight_decay": 1e-4,
}
DETECTION = {
    **PLAIN_SGD,
    "optim.lr": 0.02,
    "optim.backbone_lr": 0.02,
    "optim.weight_decay": 1e-4,
    "optim.schedule": "multistep",
    "run.batch_size": 16,
    "run.sync_batch_norm": True,
    "num_statistics_batches": 200,
    "frozen_norm": False,
    "backbone": None,  # the run's own, in which nothing is frozen
    "task.test_size": 800,
    "task.max_size": 1333,
    "task.flip_prob": 0.5,
    "task.regions.pyramid_channels": 256,
    "task.regions.box_width": 1024,
    "task.regions.anchor_scale": 8,
    "task.regions.num_anchors": 256,
    "task.regions.num_regions": 512,
    "task.regions.num_candidates": None,
    "task.regions.num_test_candidates": None,
    "task.regions.num_proposals": None,
    "task.regions.num_test_proposals": None,
}
COCO = {
    **DETECTION,
    "data.source": "coco",
    "metric": "coco",
    "repeat_threshold": 0.0,
    "task.architecture": "fpn",
    "task.masks": True,
    "task.train_sizes": [640, 672, 704, 736, 768, 800],
    "task.regions.pyramid_norm": True,
    "task.regions.num_detections": 100,
    "task.regions.score_threshold": 0.05,
    "optim.milestones": [120_000, 160_000],
    "optim.warmup_steps": 1000,
    "run.num_steps": 180_000,
}
LVIS = {
    **COCO,
    "data.source": "lvis",
    "metric": "lvis",
    "repeat_threshold": 0.001,
    "task.regions.num_detections": 300,
    "task.regions.score_threshold": 1e-4,
}
EXPECTED: dict[str, dict[str, Any]] = {
    "imagenet": IMAGENET,
    "imagenet_moco": {**IMAGENET, **DROPS, "optim.lr": 30.0},
    "imagenet_multistep": {**IMAGENET, **DROPS},
    "inaturalist": INATURALIST,
    "finetune": {**INATURALIST, "data.source": "classes"},
    "coco-segmentation": COCO,
    "coco_segmentation_1x": {
        **COCO,
        "optim.milestones": [60_000, 80_000],
        "run.num_steps": 90_000,
    },
    "lvis-segmentation": LVIS,
    "lvis_segmentation_imagenet": {
        **LVIS,
        "frozen_norm": True,
        "task.regions.pyramid_norm": False,
    },
    "voc-detection": {
        **DETECTION,
        "data.source": "voc",
        "data.train_split": "2007_trainval+2012_trainval",
        "data.val_split": "2007_test",
        "metric": "voc",
        "repeat_threshold": 0.0,
        "task.architecture": "c4",
        "task.masks": False,
        "task.train_sizes": [480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800],
        "task.regions.pyramid_norm": False,
        "task.regions.num_detections": 100,
        "task.regions.score_threshold": 0.05,
        "optim.milestones": [18_000, 22_000],
        "optim.warmup_steps": 100,
        "run.num_steps": 24_000,
    },
    "voc07": {
        "data.source": "voc",
        "image_size": 224,
        "whole_image": False,
        "layer": "last",
        "feature_size": None,
        "precision": "fp32",
        "leave_out_rare": False,
        "labels": 1.0,
        "shots": None,
    },
    "voc07_8192": {
        "data.source": "voc",
        "image_size": 224,
        "whole_image": True,
        "layer": "stage4",
        "feature_size": 8192,
        "leave_out_rare": False,
    },
    "captioning": {
        "data.source": "coco",
        "num_beams": 5,
        "max_steps": None,
        "nucleus": None,
        "original": True,
        "precision": "fp32",
        "metrics": ["cider", "bleu", "rouge"],
    },
    "linear": {"data.source": "classes", "image_size": 224},
    "zero-shot": {
        "data.source": "classes",
        "templates": ["a photo of a {}"],
        "direction": "forward",
        "prior": None,
        "num_images": 0,
        "precision": "fp32",
    },
    "retrieval": {
        "data.source": "coco",
        "captions_per_image": 0,
        "direction": "forward",
        "prior": None,
        "num_images": 0,
        "precision": "fp32",
    },
}


def recipe(name: str) -> Any:
    """The config that a recipe alone describes, of its protocol's own class."""
    flags = ["--config", name, "--init", "RUN", "--out", "OUT", "--data.root", "DIR"]
    command = PROTOCOLS[VARIANTS.get(name, name)]
    return parse(command.config, with_recipes(flags, "transfer"), prog="virtex transfer")


def value_of(values: Any, path: str) -> Any:
    """A nested value by its dotted name."""
    for name in path.split("."):
        assert isinstance(values, Mapping), path
        values = values[name]
    return values


def test_every_recipe_is_looked_at() -> None:
    assert set(EXPECTED) == {path.stem for path in recipe_paths("transfer")}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_recipe_states_the_papers_values(name: str) -> None:
    stated = to_dict(recipe(name))
    assert {path: value_of(stated, path) for path in EXPECTED[name]} == EXPECTED[name]


@pytest.mark.parametrize(
    ("name", "num_images", "num_steps", "milestones", "schedule"),
    [
        ("imagenet", 1_281_167, 500_500, (), "cosine"),
        ("imagenet_moco", 1_281_167, 500_500, (300_300, 400_400), "multistep"),
        ("imagenet_multistep", 1_281_167, 500_500, (300_300, 400_400), "multistep"),
        ("inaturalist", 437_513, 171_000, (119_700, 153_900), "multistep"),
    ],
)
def test_epochs_are_the_papers_steps(
    name: str, num_images: int, num_steps: int, milestones: tuple[int, ...], schedule: str
) -> None:
    training = image_classification.protocol(recipe(name)).training
    training = training.for_images(num_images, seed=0)
    assert training.run.num_steps == num_steps
    assert (training.optim.milestones, training.optim.schedule) == (milestones, schedule)


@pytest.mark.parametrize(
    "name", [name for name in EXPECTED if "segmentation" in name or "detection" in name]
)
def test_a_detection_recipe_is_the_protocol_that_it_describes(name: str) -> None:
    config = recipe(name)
    protocol = detection.protocol(config)
    assert protocol.name == f"{config.data.source}-{name.replace('_', '-').split('-')[1]}"
    assert (protocol.headline == "mask_AP") is config.task.masks
    assert protocol.training.optim == config.optim


def test_c4_looks_at_6000_proposals_and_keeps_1000_in_the_test() -> None:
    regions = recipe("voc-detection").task.regions.with_counts(C4_COUNTS)
    assert (regions.num_test_candidates, regions.num_test_proposals) == (6000, 1000)
    assert (regions.num_candidates, regions.num_proposals) == (12_000, 2000)


def test_the_svms_of_voc07_are_the_papers() -> None:
    assert (svm.COSTS, svm.NUM_FOLDS, svm.POSITIVE_WEIGHT) == ((0.01, 0.1, 1.0, 10.0), 3, 2.0)
    config = recipe("voc07")
    assert voc07.with_voc_splits(config.data).train_split == "trainval"
    assert voc07.with_voc_splits(config.data).val_split == "test"
    assert voc07.protocol_name(config.data) == "voc07"


@pytest.mark.parametrize("name", PROTOCOLS)
def test_the_options_that_a_protocol_prints_can_be_given_back(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, path = PROTOCOLS[name].config, tmp_path / "printed.yaml"
    flags = ["--config", name, "--init", "RUN", "--out", "OUT", "--data.root", "DIR"]
    with pytest.raises(SystemExit):
        parse(config, with_recipes([*flags, "--print_config"], "transfer"), prog="transfer")
    path.write_text(capsys.readouterr().out)
    again = parse(config, ["--config", str(path)], prog="transfer")
    assert again == recipe(name)


def test_a_prior_is_subtracted_where_texts_differ_most() -> None:
    priors = [recipe(name).matching.prior for name in ("zero-shot", "retrieval")]
    assert priors == [0.0, 1.0]


def test_captions_are_searched_with_five_beams_over_thirty_steps() -> None:
    generation = captioning.generation_of(recipe("captioning"), image_size=224, max_tokens=30)
    decoding = asdict(generation.decoding)
    assert {name: decoding[name] for name in ("strategy", "num_beams", "max_steps")} == {
        "strategy": "beam",
        "num_beams": 5,
        "max_steps": 30,
    }
    assert decoding["per_node_beams"] == 2
    assert (decoding["length_penalty"], decoding["original"]) == (0.0, True)
    assert (generation.image.size, generation.image.validation_short_side) == (224, 256)
