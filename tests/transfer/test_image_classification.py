"""Classifiers trained on augmented images: recipes, few labels, resuming, bad data."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from virtex.config import parse, with_recipes
from virtex.data.layouts import write_scenes
from virtex.engine.loop import FitResult
from virtex.engine.optim import lr_scale
from virtex.errors import ConfigError, DataError
from virtex.models.backbone import Backbone, BackboneConfig
from virtex.transfer import image_classification, training
from virtex.transfer.command import architecture
from virtex.transfer.features import backbone_digest
from virtex.transfer.image_classification import ImageClassificationConfig
from virtex.transfer.image_classification import protocol as protocol_of
from virtex.transfer.protocol import Result

SMALL = """
image: {size: 32}
backbone: {name: resnet18, options: {layers: [1, 1, 1, 1], channels: [8, 8, 16, 32]}}
epochs: 4
run: {batch_size: 12, tensorboard: false, device: cpu}
loader: {num_workers: 0}
"""


def config_of(recipe: str, *arguments: str) -> ImageClassificationConfig:
    line = with_recipes(["--config", recipe, *arguments], "transfer")
    return parse(ImageClassificationConfig, line, prog="virtex transfer")


def small(recipe: str, data: Path, out: Path, *arguments: str) -> ImageClassificationConfig:
    places = ("--init", "random", "--data.root", str(data), "--out", str(out))
    drops = ("--drop_epochs", "[3]" if recipe == "finetune" else "[]")
    return config_of(recipe, "--config", SMALL, *drops, *places, *arguments)


@pytest.mark.parametrize(
    ("recipe", "num_images", "num_steps", "drops"),
    [
        ("imagenet", 1_281_167, 500_500, ()),
        ("imagenet_moco", 1_281_167, 500_500, (300_300, 400_400)),
        ("imagenet_multistep", 1_281_167, 500_500, (300_300, 400_400)),
        ("inaturalist", 437_513, 171_000, (119_700, 153_900)),
    ],
)
def test_epochs_become_the_papers_steps(
    recipe: str, num_images: int, num_steps: int, drops: tuple[int, ...]
) -> None:
    protocol = protocol_of(config_of(recipe, "--init", "random", "--out", "out"))
    counted = protocol.training.for_images(num_images, seed=0)
    assert (counted.run.num_steps, counted.optim.milestones) == (num_steps, drops)
    assert lr_scale(counted.optim, step=0, num_steps=num_steps) == 1.0


def test_an_untrained_network_of_one_size_is_built_for_the_size_of_the_images() -> None:
    arguments = ("--init", "random", "--out", "out", "--image.size", "64")
    named = ("--backbone.name", "swin_tiny_patch4_window7_224")
    config = config_of("finetune", *arguments, *named)
    built = architecture(config)
    assert built is not None
    assert built.options == {"img_size": 64}


def test_a_linear_layer_classifies_colors_and_leaves_the_backbone(
    colors: Path, tmp_path: Path
) -> None:
    config = small("imagenet", colors, tmp_path / "out", "--optim.lr", "30", "--knn", "true",
                   "--neighbors.num_neighbors", "3")  # fmt: skip
    (result,) = image_classification.run(config)
    assert result.protocol == "linear-augmented"  # these are not ImageNet's classes
    assert result.numbers["top1"] > 80
    assert result.numbers["knn_top1"] > 80
    (path,) = (tmp_path / "out").glob("*.json")
    written = Result.read(path)
    assert written.numbers == result.numbers
    assert written.settings_hash == result.settings_hash
    (state,) = (tmp_path / "out" / "training").glob("*/checkpoints/*.pt")
    weights = torch.load(state, weights_only=True)["task"]
    torch.manual_seed(0)
    untouched = Backbone(config.backbone)  # type: ignore[arg-type]
    for name, value in untouched.state_dict().items():
        torch.testing.assert_close(weights[f"backbone.{name}"], value, rtol=0, atol=0)


def test_fine_tuning_changes_the_backbone(colors: Path, tmp_path: Path) -> None:
    config = small("finetune", colors, tmp_path)
    (result,) = image_classification.run(config)
    assert result.protocol == "finetune"
    (state,) = tmp_path.glob("training/*/checkpoints/*.pt")
    stem = torch.load(state, weights_only=True)["task"]["backbone.cnn.conv1.weight"]
    torch.manual_seed(0)
    assert not torch.equal(stem, Backbone(config.backbone).state_dict()["cnn.conv1.weight"])  # type: ignore[arg-type]


def test_an_interrupted_training_resumes_to_the_same_bits(colors: Path, tmp_path: Path) -> None:
    keep = ("--run.checkpoint_every", "5", "--run.keep_checkpoints", "0")
    config = small("finetune", colors, tmp_path, *keep)
    (whole,) = image_classification.run(config)
    first, *_, last = sorted(tmp_path.glob("training/*/checkpoints/*.pt"))
    weights = torch.load(last, weights_only=True)["task"]
    for checkpoint in last.parent.iterdir():
        if checkpoint != first:
            checkpoint.unlink()
    (again,) = image_classification.run(config)
    resumed = torch.load(last, weights_only=True)["task"]
    assert all(torch.equal(value, resumed[name]) for name, value in weights.items())
    assert again.numbers == whole.numbers


@pytest.mark.parametrize(
    ("changes", "is_another"),
    [
        (("--seed", "1"), True),
        (("--frozen", "false"), True),
        (("--shots", "3"), True),
        (("--optim.lr", "0.1"), True),
        (("--image.flip_prob", "0"), True),
        (("--backbone.options.act_layer", "gelu"), True),
        (("--run.precision", "bf16"), True),
        (("--knn", "true", "--neighbors.num_neighbors", "2"), False),
        (("--run.log_every", "1"), False),
        (("--loader.num_workers", "1"), False),
    ],
)
def test_what_weights_depend_on_makes_another_training(
    changes: tuple[str, ...], is_another: bool, colors: Path, tmp_path: Path
) -> None:
    for arguments in ((), changes, changes):
        image_classification.run(small("imagenet", colors, tmp_path, *arguments))
    assert len(list((tmp_path / "training").iterdir())) == 1 + is_another


def test_results_of_other_votes_and_of_none_do_not_replace_each_other(
    colors: Path, tmp_path: Path
) -> None:
    votes = [("--knn", "true", "--neighbors.num_neighbors", number) for number in ("1", "5")]
    for arguments in (*votes, ()):
        image_classification.run(small("finetune", colors, tmp_path, *arguments))
    results = [Result.read(path) for path in tmp_path.glob("*.json")]
    shown = {
        vote and vote["num_neighbors"]: "knn_top1" in one.numbers
        for one in results
        for vote in [one.settings.get("neighbors")]
    }
    assert shown == {1: True, 5: True, None: False}
    assert len({one.numbers["top1"] for one in results}) == 1
    assert len(list((tmp_path / "training").iterdir())) == 1


def test_a_call_without_neighbours_keeps_those_of_an_earlier_version(
    colors: Path, tmp_path: Path
) -> None:
    config = small("finetune", colors, tmp_path)
    (result,) = image_classification.run(config)
    earlier = replace(result, numbers={**result.numbers, "knn_top1": 12.0, "top1": 0.0})
    path = earlier.write(tmp_path)
    image_classification.run(config)
    assert Result.read(path).numbers == {**result.numbers, "knn_top1": 12.0}
    path.write_text("damaged")
    image_classification.run(config)
    assert Result.read(path).numbers == result.numbers


@pytest.mark.parametrize("knn", ["false", "true"])
def test_nearest_neighbours_beside_it_leave_the_figure_the_papers(knn: str) -> None:
    config = config_of("imagenet", "--init", "random", "--out", "out", "--knn", knn)
    protocol = replace(protocol_of(config), name="imagenet")
    train, test = (range(number) for number in image_classification.NUM_IMAGES["imagenet"])
    assert protocol.as_in_paper(train, test)  # type: ignore[arg-type]


def test_options_of_later_versions_that_are_off_leave_the_settings_of_earlier_ones() -> None:
    config = config_of("imagenet", "--init", "random", "--out", "out")
    slower = config_of("imagenet", "--init", "random", "--out", "out", "--optim.layer_decay", "0.5")
    off, on = (protocol_of(each).settings() for each in (config, slower))
    assert on.keys() - off.keys() == {"layer_decay"}
    assert not off.keys() & {"ema_decay", "unfreeze_at"}


@pytest.mark.parametrize("options", [{"freeze_stages": 2}, {"drop_path": 0.1}])
def test_how_a_backbone_is_trained_makes_another_training(options: dict) -> None:
    slim = {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 32]}
    plain, other = (
        Backbone(BackboneConfig("resnet18", options=slim, **more)) for more in ({}, options)
    )
    other.load_state_dict(plain.state_dict())
    assert backbone_digest(other) != backbone_digest(plain)


def test_freezing_by_the_backbones_own_options_is_refused(colors: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--frozen"):
        image_classification.run(small("finetune", colors, tmp_path, "--backbone.frozen", "true"))


def test_an_interrupted_training_writes_no_result(
    colors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = FitResult(3, "interrupted")
    monkeypatch.setattr(training, "fit", lambda *arguments, **keywords: stopped)
    with pytest.raises(KeyboardInterrupt):
        image_classification.run(small("imagenet", colors, tmp_path))
    assert not list(tmp_path.glob("*.json"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--run.num_steps", "10"), "epochs 4 and run.num_steps 10"),
        (("--epochs", "null", "--drop_epochs", "[2]"), "count in epochs"),
        (("--drop_epochs", "[3, 2]"), "must be at least 1 and rise"),
        (("--drop_epochs", "[2, 4]"), "lie beyond the 4 epochs"),
        (
            (
                "--epochs",
                "null",
                "--run.num_steps",
                "5",
                "--optim.schedule",
                "multistep",
                "--optim.milestones",
                "[5]",
            ),
            "lie beyond the 5 steps",
        ),
        (("--run.seed", "3"), "--seed"),
        (("--optim.ema_decay", "0.9"), "are for pretraining"),
        (("--labels", "0"), "labels 0.0 must be above 0"),
        (("--labels", "0.5", "--shots", "2"), "leave one out"),
        (("--num_seeds", "0"), "num_seeds"),
        (("--neighbors.temperature", "0"), r"neighbors\.temperature 0\.0 must be at least"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    arguments: tuple[str, ...], message: str, colors: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        image_classification.run(small("imagenet", colors, tmp_path, *arguments))
    assert not list(tmp_path.glob("out*"))


def test_few_shots_are_other_images_for_each_seed(colors: Path, tmp_path: Path) -> None:
    config = small("imagenet", colors, tmp_path, "--shots", "2", "--num_seeds", "3")
    results = image_classification.run(config)
    assert [result.seed for result in results] == [0, 1, 2]
    assert {result.numbers["num_train"] for result in results} == {6.0}
    assert len({str(result.data["train"]) for result in results}) > 1
    assert len(list(tmp_path.glob("*.json"))) == 3


def test_unreadable_images_end_neighbors_before_training_unless_they_are_allowed(
    colors: Path, tmp_path: Path
) -> None:
    for folder in (colors / "train").iterdir():
        for path in sorted(folder.iterdir())[:4]:
            path.write_bytes(b"no image")
    flags = ["--knn", "true", "--loader.bad_image_limit"]
    with pytest.raises(DataError, match="12 of 36 examples cannot be read"):
        image_classification.run(small("imagenet", colors, tmp_path, *flags, "0.01"))
    assert not (tmp_path / "training").exists()
    (result,) = image_classification.run(small("imagenet", colors, tmp_path, *flags, "0.1"))
    assert "knn_top1" in result.numbers


@pytest.mark.parametrize("recipe", ["imagenet", "finetune"])
def test_too_few_images_are_refused_before_training(
    recipe: str, colors: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="only 3 training images, and 5 are needed"):
        image_classification.run(small(recipe, colors, tmp_path, "--shots", "1", "--knn", "true"))
    assert not (tmp_path / "training").exists()


def test_a_single_class_is_refused_before_training(colors: Path, tmp_path: Path) -> None:
    for split in ("train", "val"):
        for name in ("green", "red"):
            shutil.rmtree(colors / split / name)
    with pytest.raises(DataError, match="one class"):
        image_classification.run(small("finetune", colors, tmp_path))
    assert not (tmp_path / "training").exists()


@pytest.mark.parametrize("recipe", ["imagenet", "imagenet_moco", "inaturalist"])
def test_a_protocol_runs_on_scenes_in_the_benchmarks_own_layout(
    recipe: str, tmp_path: Path
) -> None:
    layout = "inaturalist" if recipe == "inaturalist" else "imagenet"
    write_scenes(layout, tmp_path / "data", num_train=60, num_val=20, image_size=64)
    (result,) = image_classification.run(small(recipe, tmp_path / "data", tmp_path / "out"))
    assert result.protocol == {"inaturalist": layout}.get(recipe, "linear-augmented")
    assert 0 <= result.numbers["top1"] <= result.numbers["top5"] <= 100
    assert result.numbers["num_train"] > result.numbers["num_test"] > 0
    assert not result.as_in_paper
