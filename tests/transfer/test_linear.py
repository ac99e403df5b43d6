"""The linear protocol on a class folder, from the command line's config to the result."""

import logging
from pathlib import Path
from typing import Literal

import pytest
import torch

from tests.transfer.conftest import Noise
from virtex.config import parse
from virtex.data.example import Example
from virtex.errors import ConfigError, DataError
from virtex.models.backbone import Backbone
from virtex.transfer.features import Extraction, extract_features
from virtex.transfer.linear import (
    MOST_FOR_LOGISTIC,
    LinearConfig,
    LinearProbe,
    run,
    single_labels,
)
from virtex.transfer.protocol import Result
from virtex.transfer.solvers.probes import DEFAULT_COST, NeighborConfig

QUICK = Extraction(image_size=32, batch_size=8, num_workers=0)


def arguments(data: Path, out: Path) -> list[str]:
    options = {"layers": "[1,1,1,1]", "channels": "[8,8,16,32]"}
    backbone = [f"--backbone.options.{key}={value}" for key, value in options.items()]
    return [
        *("--init", "random", "--data.root", str(data), "--out", str(out)),
        *("--image_size", "32", "--num_workers", "0", "--backbone.name", "resnet18", *backbone),
        *("--neighbors.num_neighbors", "5", "--sgd.epochs", "20"),
    ]


@pytest.mark.parametrize("solver", ["logistic", "sgd"])
def test_colors_are_classified_and_the_result_written(
    colors: Path, tmp_path: Path, solver: str
) -> None:
    out = tmp_path / "scores"
    line = [*arguments(colors, out), "--solver", solver]
    (result,) = run(parse(LinearConfig, line, prog="virtex transfer linear"))
    assert result.numbers["top1"] == 100.0
    assert result.numbers["knn_top1"] > 90
    assert result.settings["solver"] == solver
    assert result.initialisation["init"] == "random"
    assert (result.numbers["num_train"], result.numbers["num_test"]) == (36, 15)
    assert [Result.read(path).numbers for path in out.glob("*.json")] == [result.numbers]
    assert len(list((out / "features").iterdir())) == 2


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("sgd.epochs", "0", "at least 1"),
        ("sgd.batch_size", "0", "at least 1"),
        ("sgd.lr", "0", "at least 1e-09"),
        ("sgd.momentum", "1.5", "at most 1"),
        ("sgd.weight_decay", "-0.1", "at least 0"),
        ("neighbors.num_neighbors", "0", "at least 1"),
        ("neighbors.temperature", "0", "at least 1e-09"),
    ],
)
def test_an_option_out_of_range_is_named(
    option: str, value: str, told: str, colors: Path, tmp_path: Path
) -> None:
    line = [*arguments(colors, tmp_path), f"--{option}", value]
    with pytest.raises(ConfigError, match=f"{option} {value}.* must be {told}"):
        run(parse(LinearConfig, line, prog="virtex transfer linear"))


@pytest.mark.parametrize("solver", ["logistic", "sgd"])
def test_features_of_a_diverged_backbone_are_refused(
    solver: Literal["logistic", "sgd"], backbone: Backbone
) -> None:
    with torch.no_grad():
        next(backbone.parameters()).fill_(torch.nan)
    labels = [(number % 2,) for number in range(6)]
    train, test = Noise(6, labels=labels), Noise(4, labels=labels[:4])
    probe = LinearProbe(extraction=QUICK, solver=solver)
    with pytest.raises(DataError, match="6 training images and 4 test images hold NaN"):
        probe.measure(backbone, train=train, test=test)


def test_a_single_file_can_be_named(colors: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores" / "mine.json"
    run(parse(LinearConfig, arguments(colors, out), prog="virtex transfer linear"))
    assert sorted(path.name for path in out.parent.iterdir()) == ["features", "mine.json"]


def test_data_without_a_test_split_are_refused(colors: Path, tmp_path: Path) -> None:
    line = arguments(colors / "train", tmp_path)
    with pytest.raises(ConfigError, match="no test data"):
        run(parse(LinearConfig, line, prog="virtex transfer linear"))


def test_test_images_that_are_trained_on_are_refused(colors: Path, tmp_path: Path) -> None:
    train, out = colors / "train", tmp_path / "scores"
    flat = [*arguments(train, out), "--data.val_root", str(train)]
    split = [*arguments(train, out), "--data.val_root", str(colors)]
    for line in (flat, [*split, "--data.val_split", "train"]):
        with pytest.raises(ConfigError, match=r"^36 of the 36 validation images would be trained"):
            run(parse(LinearConfig, line, prog="virtex transfer linear"))
    assert not out.exists()
    run(parse(LinearConfig, split, prog="virtex transfer linear"))


def test_labels_stay_with_their_images_where_some_are_bad(backbone: Backbone) -> None:
    source = Noise(5, labels=[(2,), (0,), (1,), (0,), (2,)], bad=(1, 4))
    features = extract_features(backbone, source, QUICK)
    assert single_labels(features, source).tolist() == [2, 1, 0]


class Unread(Noise):
    """Images none of which may be decoded."""

    def __getitem__(self, index: int) -> Example:  # type: ignore[override]
        return Example(f"noise-{index}", b"never read", labels=self.label_lists[index])


@pytest.mark.parametrize("role", ["training", "test"])
def test_images_of_several_classes_are_named_before_any_is_read(
    backbone: Backbone, role: str
) -> None:
    several, good = Unread(3, labels=[(0,), (0, 1), ()]), Unread(3, labels=[(0,), (1,), (2,)])
    train, test = (several, good) if role == "training" else (good, several)
    message = f"2 of 3 {role} images have none or several: noise-1, noise-2"
    with pytest.raises(DataError, match=message):
        LinearProbe(extraction=QUICK).check(train, test)


@pytest.mark.parametrize(
    ("solver", "num_images", "is_warned"),
    [
        ("logistic", MOST_FOR_LOGISTIC + 1, True),
        ("logistic", MOST_FOR_LOGISTIC, False),
        ("sgd", MOST_FOR_LOGISTIC + 1, False),
    ],
)
def test_a_fit_that_takes_hours_warns_with_the_remedy_before_it_starts(
    backbone: Backbone,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    solver: str,
    num_images: int,
    is_warned: bool,
) -> None:
    monkeypatch.setattr(logging.getLogger("virtex"), "propagate", True)
    many = Unread(num_images, labels=[(0,)] * num_images)
    with pytest.raises(DataError, match="cannot be read"):  # at the first images
        LinearProbe(extraction=QUICK, solver=solver).measure(  # type: ignore[arg-type]
            backbone, train=many, test=many
        )
    assert ("--solver sgd" in caplog.text) is is_warned


def test_all_training_images_vote_where_they_are_few(backbone: Backbone) -> None:
    source = Noise(6, labels=[(0,), (1,)] * 3)
    usual, all_of_them = LinearProbe(extraction=QUICK), NeighborConfig(num_neighbors=6)
    usual.check(source, source)
    expected = LinearProbe(extraction=QUICK, neighbors=all_of_them)
    found = (one.measure(backbone, train=source, test=source) for one in (usual, expected))
    assert len({numbers["knn_top1"] for numbers in found}) == 1
    few = Noise(4, labels=[(0,), (1,)] * 2)
    with pytest.raises(ConfigError, match="only 4 training images, and 5 are needed"):
        usual.check(few, few)
    probe = LinearProbe(extraction=QUICK, neighbors=NeighborConfig(num_neighbors=1))
    assert probe.measure(backbone, train=source, test=source)["knn_top1"] == 100.0


@pytest.mark.parametrize(("shots", "num_held_out", "chosen"), [(1, 0, False), (5, 6, True)])
def test_the_result_says_on_how_many_images_the_cost_was_chosen(
    backbone: Backbone, shots: int, num_held_out: int, chosen: bool
) -> None:
    names = ("cat", "dog", "cow", "car", "bus", "cup")
    labels = [(index,) for index in range(6)] * shots
    train, test = (Noise(len(labels), labels=labels, categories=names) for _ in range(2))
    numbers = LinearProbe(extraction=QUICK).measure(backbone, train=train, test=test)
    assert numbers["num_held_out"] == num_held_out
    assert chosen or numbers["cost"] == DEFAULT_COST


def test_a_single_class_is_refused(backbone: Backbone) -> None:
    source = Noise(30, labels=[(1,)] * 30)
    with pytest.raises(DataError, match="at least two"):
        LinearProbe(extraction=QUICK).check(source, source)
