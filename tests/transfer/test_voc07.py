"""VOC07 linear against scikit-learn's own cross-validation, on features made up and real."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.oracles.voc07_svm import slow_voc07_map
from tests.transfer.conftest import Noise
from virtex.data.source import SourceConfig
from virtex.errors import DataError
from virtex.models.backbone import Backbone
from virtex.transfer.features import CPU, Extraction, extract_features
from virtex.transfer.metrics.classification import average_precision
from virtex.transfer.solvers.probes import NeighborConfig
from virtex.transfer.solvers.svm import svm_scores
from virtex.transfer.voc07 import (
    NUM_IMAGES,
    MultiLabelSvm,
    Voc07Config,
    multilabel_targets,
    protocol_name,
    voc07_average_precisions,
)

QUICK = Extraction(image_size=32, batch_size=4, num_workers=0)


def map_of(*data: np.ndarray) -> float:
    return float(100 * voc07_average_precisions(*data).mean())


def made_up(seed: int, num_images: int = 150) -> tuple[np.ndarray, np.ndarray]:
    """Features in which each of four classes leaves a trace, and targets with unknowns."""
    rng = np.random.default_rng(seed)
    targets = rng.choice(np.array([-1, 0, 1], np.int8), (num_images, 4), p=[0.7, 0.05, 0.25])
    traces = np.random.default_rng(99).normal(size=(4, 16))
    features = np.abs(rng.normal(size=(num_images, 16)) + 0.7 * (targets == 1) @ traces)
    return features.astype(np.float32), targets


@pytest.mark.parametrize("dual", [False, True])
def test_the_number_is_that_of_scikit_learns_cross_validation(dual: bool) -> None:
    data = (*made_up(0), *made_up(1))
    expected = slow_voc07_map(*data, dual=dual)
    assert 30 < expected < 95
    assert map_of(*data) == pytest.approx(expected, abs=1e-6 if not dual else 0.05)


def test_the_number_does_not_depend_on_the_features_length() -> None:
    train, train_targets, test, test_targets = (*made_up(0), *made_up(1))
    value = map_of(train, train_targets, test, test_targets)
    lengths = np.random.default_rng(3).uniform(1, 9, (len(train), 1)).astype(np.float32)
    again = map_of(lengths * train, train_targets, test, test_targets)
    assert again == pytest.approx(value, abs=1e-3)


def test_unknown_test_images_do_not_count_and_unknown_training_images_count_as_absent() -> None:
    train, train_targets, test, test_targets = (*made_up(0), *made_up(1))
    value = map_of(train, train_targets, test, test_targets)
    as_absent = np.where(train_targets == 0, -1, train_targets).astype(np.int8)
    assert map_of(train, as_absent, test, test_targets) == value
    known = np.where(test_targets == 0, -1, test_targets).astype(np.int8)
    assert map_of(train, train_targets, test, known) != value


def test_scores_of_a_class_do_not_depend_on_the_other_classes() -> None:
    train, targets = made_up(0)
    signs = np.where(targets > 0, 1, -1).astype(np.int8)
    test, _ = made_up(1)
    alone = svm_scores(train, signs[:, 2:3], test, device=CPU)
    together = svm_scores(train, signs, test, device=CPU)[:, 2:3]
    np.testing.assert_allclose(together, alone, atol=1e-3)


def test_targets_say_present_absent_and_unknown_and_skip_bad_images(backbone: Backbone) -> None:
    source = Noise(4, labels=[(0, 2), (), (), (1,)], ignored={2: (1,)}, bad=(1,))
    features = extract_features(backbone, source, QUICK)
    assert multilabel_targets(features, 3).tolist() == [[1, -1, 1], [-1, 0, -1], [-1, 1, -1]]


def test_classes_that_cannot_be_learned_or_tested_are_named(backbone: Backbone) -> None:
    train = Noise(8, labels=[(0,)] * 4 + [(1,)] * 4)
    test = Noise(2, labels=[(0,), (2,)])
    with pytest.raises(DataError) as caught:
        MultiLabelSvm(extraction=QUICK).check(train, test)
    assert "training images show cow" in str(caught.value)
    assert "no test image shows dog" in str(caught.value)
    assert "lack" not in str(caught.value)


def test_rare_classes_are_left_out_on_request(backbone: Backbone) -> None:
    train = Noise(8, labels=[(0, 2)] * 4 + [(1,)] * 4)
    test = Noise(3, labels=[(0,), (2,), (2,)])
    protocol = MultiLabelSvm(extraction=QUICK, leave_out_rare=True)
    numbers = protocol.measure(backbone, train=train, test=test)
    assert {key for key in numbers if key.startswith("AP/")} == {"AP/cat", "AP/cow"}
    assert numbers["num_classes"] == 2
    assert numbers["mAP"] == pytest.approx((numbers["AP/cat"] + numbers["AP/cow"]) / 2)
    assert protocol.settings() != MultiLabelSvm(extraction=QUICK).settings()


def test_nearest_neighbours_are_reported_beside_the_svms_with_unknown_images_left_out(
    backbone: Backbone,
) -> None:
    train = Noise(12, labels=[(0,), (1,), (0, 1), ()] * 3)
    test = Noise(6, labels=[(0,), (1,), ()] * 2, ignored={2: (0,)})
    protocol = MultiLabelSvm(extraction=QUICK, leave_out_rare=True)
    numbers = protocol.measure(backbone, train=train, test=test)
    values, others = (extract_features(backbone, s, QUICK).values for s in (train, test))
    values, others = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (values, others))
    weights = np.exp(others @ values.T / 0.07)  # all 12 vote
    shares = (weights @ np.array([[1, 0], [0, 1], [1, 1], [0, 0]] * 3)) / weights.sum(1)[:, None]
    known = np.array([True, True, False, True, True, True])
    cat = average_precision(np.array([1, 0, 0, 1, 0, 0], bool)[known], shares[known, 0])
    dog = average_precision(np.array([0, 1, 0, 0, 1, 0], bool), shares[:, 1])
    assert numbers["knn_mAP"] == pytest.approx(50 * (cat + dog))
    assert protocol.settings()["num_neighbors"] == 20


def test_other_classes_in_the_test_are_refused(backbone: Backbone) -> None:
    test = Noise(3, categories=("cat", "dog", "hen"))
    with pytest.raises(DataError, match="cow, hen"):
        MultiLabelSvm(extraction=QUICK).check(Noise(3), test)


@pytest.mark.parametrize(
    ("splits", "name"),
    [
        ((None, None), "voc07"),
        (("train", "val"), "voc07"),
        (("2007_train", "2007_val"), "voc07"),
        (("2012_train", "2012_val"), "multilabel-svm"),
        (("2007_trainval+2012_trainval", "2007_test"), "multilabel-svm"),
        (("2012_trainval", "test"), "multilabel-svm"),
    ],
)
def test_only_images_of_2007_are_called_voc07(
    splits: tuple[str | None, str | None], name: str
) -> None:
    train, test = splits
    data = SourceConfig("voc", root=Path("devkit"), train_split=train, val_split=test)
    assert protocol_name(data) == name


@pytest.mark.parametrize("root", ["VOCdevkit/VOC2012", "VOC2012"])
def test_a_folder_of_another_year_is_not_called_voc07(tmp_path: Path, root: str) -> None:
    (tmp_path / root / "ImageSets").mkdir(parents=True)
    data = SourceConfig("voc", tmp_path / root, train_split="train", val_split="val")
    assert protocol_name(data) == "multilabel-svm"


def test_seeds_that_change_nothing_are_refused(tmp_path: Path) -> None:
    weights = Voc07Config(init="weights.pth", out=tmp_path, num_seeds=3)
    assert [problem for problem in weights.problems() if "do not depend on the seed" in problem]
    for changes in ({"init": "random"}, {"shots": 4}, {"labels": 0.5}, {"num_seeds": 1}):
        assert replace(weights, **changes).problems() == []


def test_other_sources_are_not_called_voc07() -> None:
    assert protocol_name(SourceConfig("scenes")) == "multilabel-svm"


def test_neighbours_change_nothing_about_whether_the_map_is_as_in_the_paper() -> None:
    train, test = (Noise(number) for number in NUM_IMAGES)
    more = MultiLabelSvm(neighbors=NeighborConfig(num_neighbors=50))
    assert more.as_in_paper(train, test)
    assert not MultiLabelSvm(leave_out_rare=True).as_in_paper(train, test)
