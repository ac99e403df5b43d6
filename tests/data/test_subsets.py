import gzip
import json
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torchvision.datasets import ImageFolder

from tests.data.sources.layouts import ANY_TEXT
from virtex.data.example import Example, Source, Subset
from virtex.data.source import Needs, SourceConfig, open_source
from virtex.data.subsets import (
    FewerCaptions,
    few_shots,
    first_of_each_class,
    fraction_of_each_class,
    held_out,
    id_line,
    id_lines,
    labeled_fraction,
    listed,
    random_fraction,
    repeat_factors,
)
from virtex.errors import DataError


class Numbers(Source):
    """Examples named by their number, with three captions each."""

    categories = ("one",)

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Example:  # type: ignore[override]
        index = range(self.size)[index]
        return Example(str(index), b"", tuple(f"{index} {which}" for which in "abc"))

    def identity(self) -> dict[str, str | int]:
        return {"source": "numbers"}


def ids(source: Source) -> list[str]:
    return [example.image_id for example in source]


@given(st.integers(1, 200), st.floats(0.01, 1), st.floats(0.01, 1), st.integers(0, 5))
def test_a_smaller_fraction_is_part_of_every_larger_one(
    size: int, first: float, second: float, seed: int
) -> None:
    small, large = (
        ids(random_fraction(Numbers(size), fraction, seed=seed))
        for fraction in sorted((first, second))
    )
    assert set(small) <= set(large)
    assert len(small) == max(1, round(min(first, second) * size))
    assert small == sorted(small, key=int)


class Classes(Numbers):
    """As Numbers, each example in one class: a tenth of them in class 1, the others in class 0."""

    def __getitem__(self, index: int) -> Example:  # type: ignore[override]
        example = super().__getitem__(index)
        return replace(example, labels=(int(index % 10 == 0),))


@pytest.mark.parametrize(("fraction", "sizes"), [(0.5, (90, 10)), (0.2, (36, 4)), (0.01, (2, 1))])
def test_a_fraction_of_each_class_keeps_their_proportions(
    fraction: float, sizes: tuple[int, int]
) -> None:
    subset = fraction_of_each_class(Classes(200), fraction, seed=0)
    labels = [example.labels[0] for example in subset]
    assert (labels.count(0), labels.count(1)) == sizes
    assert ids(subset) == sorted(ids(subset), key=int)
    whole = fraction_of_each_class(Classes(200), min(1, 2 * fraction), seed=0)
    assert set(ids(subset)) <= set(ids(whole))


def released_subset(root: Path, percentage: float) -> list[str]:
    """Restatement of what the released ImageNetDataset keeps: torchvision's list, cut by class."""
    folder = ImageFolder(str(root))
    label_to_indices: dict[int, list[int]] = defaultdict(list)
    for index, target in enumerate(folder.targets):
        label_to_indices[target].append(index)
    for label in label_to_indices:
        retain = int(len(label_to_indices[label]) * (percentage / 100))
        label_to_indices[label] = label_to_indices[label][:retain]
    kept = [index for indices in label_to_indices.values() for index in indices]
    return [str(Path(folder.imgs[index][0]).relative_to(root)) for index in kept]


@pytest.mark.parametrize("percentage", [10, 20, 50, 7, 29])
def test_the_first_of_each_class_are_the_released_subset(tmp_path: Path, percentage: int) -> None:
    rng = np.random.default_rng(percentage)
    for name, size in {"n01": 100, "n02": 73, "n010": 59, "N03": 31}.items():
        folder = tmp_path / "train" / name
        folder.mkdir(parents=True)
        for number in rng.choice(20_000, size, replace=False).tolist():
            (folder / f"{name}_{number}.JPEG").touch()
    config = SourceConfig(
        source="classes", root=tmp_path, share=percentage / 100, share_draw="first"
    )
    labels = Needs(labels=True)
    source = open_source(config, split="train", needs=labels)
    assert source is not None
    found = [source.image_id(index) for index in range(len(source))]
    assert found == released_subset(tmp_path / "train", percentage)
    other_seed = open_source(replace(config, seed=7), split="train", needs=labels)
    assert other_seed is not None
    assert other_seed.identity() == source.identity()


def test_a_class_of_which_the_first_images_are_none_is_named() -> None:
    with pytest.raises(DataError, match=r"leaves no image of one. Give a larger share"):
        first_of_each_class(OneClass(9), 0.1)


class OneClass(Numbers):
    """As Numbers, all in one class."""

    def labels(self, index: int) -> tuple[int, ...]:
        return (0,)


class Labeled(Numbers):
    """As Numbers, with the labels given; reading a whole example is a mistake."""

    frequencies = ("r", "c", "f")

    def __init__(self, labels: list[tuple[int, ...]]) -> None:
        super().__init__(len(labels))
        self.all_labels = labels

    def __getitem__(self, index: int) -> Example:  # type: ignore[override]
        raise AssertionError("the labels alone are cheaper")

    def labels(self, index: int) -> tuple[int, ...]:
        return self.all_labels[index]


LABELS = st.lists(st.sets(st.integers(0, 6), max_size=3).map(tuple), min_size=1, max_size=60)
ONE_LABEL = st.lists(st.integers(0, 4).map(lambda label: (label,)), min_size=1, max_size=60)
SHOTS, SEEDS = st.integers(1, 6), st.integers(0, 3)


def shown(labels: list[tuple[int, ...]]) -> dict[int, int]:
    """How many of the images show each class."""
    return {label: sum(label in one for one in labels) for label in range(7)}


@given(LABELS, SHOTS, SEEDS)
def test_few_shots_show_each_class_often_enough(
    labels: list[tuple[int, ...]], num_shots: int, seed: int
) -> None:
    source = Labeled(labels)
    if not any(labels):
        with pytest.raises(DataError, match="has a class"):
            few_shots(source, num_shots, seed=seed)
        return
    indices = list(few_shots(source, num_shots, seed=seed).indices)
    assert indices == sorted(set(indices))
    chosen, whole = shown([labels[index] for index in indices]), shown(labels)
    for label, count in whole.items():
        assert chosen[label] >= min(num_shots, count)
    assert len(indices) <= sum(min(num_shots, count) for count in whole.values())
    assert indices == list(few_shots(source, num_shots, seed=seed).indices)


@given(ONE_LABEL, SHOTS, SHOTS, SEEDS)
def test_fewer_shots_of_one_label_are_part_of_more(
    labels: list[tuple[int, ...]], first: int, second: int, seed: int
) -> None:
    source = Labeled(labels)
    few, more = (
        set(few_shots(source, number, seed=seed).indices) for number in sorted((first, second))
    )
    assert few <= more
    whole = shown(labels)
    for label, count in shown([labels[index] for index in few]).items():
        assert count == min(first, second, whole[label])


def test_an_image_drawn_for_a_rare_class_counts_for_the_common_ones_in_it() -> None:
    for seed in range(5):
        source = Labeled([*[(1,)] * 30, (0, 1), *[(1,)] * 30])
        assert list(few_shots(source, 1, seed=seed).indices) == [30]


@given(ONE_LABEL, st.floats(0.001, 1) | st.sampled_from([0.1, 0.25, 0.5, 1.0]), SEEDS)
def test_a_fraction_of_each_class_equals_the_oracles(
    labels: list[tuple[int, ...]], fraction: float, seed: int
) -> None:
    order = np.random.default_rng(seed).permutation(len(labels)).tolist()
    expected: list[int] = []
    for label in set(labels):
        members = [index for index in order if labels[index] == label]
        expected += members[: max(1, round(fraction * len(members)))]
    indices = list(fraction_of_each_class(Labeled(labels), fraction, seed=seed).indices)
    assert indices == sorted(expected)


def test_a_fraction_of_many_classes_takes_no_time_for_each_of_them() -> None:
    source = Labeled([(index % 20_000,) for index in range(100_000)])
    start = time.process_time()
    assert len(fraction_of_each_class(source, 0.4, seed=0)) == 40_000
    assert time.process_time() - start < 1


def test_another_seed_draws_other_shots() -> None:
    source = Labeled([(index % 2,) for index in range(200)])
    draws = {tuple(few_shots(source, 5, seed=seed).indices) for seed in range(4)}
    assert len(draws) == 4


def test_a_labeled_fraction_keeps_proportions_where_each_image_has_one_label() -> None:
    single = Labeled([(int(index % 10 == 0),) for index in range(200)])
    part = labeled_fraction(single, 0.2, seed=0)
    labels = [part.labels(index)[0] for index in range(len(part))]
    assert (labels.count(0), labels.count(1)) == (36, 4)
    several = Labeled([(0, 1), *single.all_labels[1:]])
    assert len(labeled_fraction(several, 0.2, seed=0)) == 40
    assert list(labeled_fraction(several, 0.2, seed=0).indices) == list(
        random_fraction(several, 0.2, seed=0).indices
    )


@given(LABELS, st.floats(0.001, 1))
def test_repeat_factors_equal_the_oracles(labels: list[tuple[int, ...]], threshold: float) -> None:
    fractions = {label: count / len(labels) for label, count in shown(labels).items()}
    expected = [
        max([1.0, *((threshold / fractions[label]) ** 0.5 for label in one)]) for one in labels
    ]
    np.testing.assert_allclose(repeat_factors(Labeled(labels), threshold), expected)


def test_a_rare_class_repeats_its_images_and_the_common_ones_in_them() -> None:
    source = Labeled([(0, 1), *[(0,)] * 98, ()])
    factors = repeat_factors(source, 0.04)
    assert factors.tolist() == [2.0] + [1.0] * 99


def test_parts_pass_on_labels_and_frequencies() -> None:
    source = FewerCaptions(Subset(Labeled([(0,), (1,), (2, 1)]), [2, 0]), 1)
    assert [source.labels(index) for index in range(2)] == [(2, 1), (0,)]
    assert source.frequencies == ("r", "c", "f")


def test_a_subset_tells_which_examples_it_holds() -> None:
    def identity(*chains: list[int]) -> dict[str, str | int]:
        source: Source = Numbers(9)
        for indices in chains:
            source = Subset(source, indices)
        return source.identity()

    assert identity([1, 2])["subset"] == identity([1, 3])["subset"] == 2
    assert identity([1, 2]) == identity([1, 2])
    hashes = [
        identity(*chains)["subset_sha256"]
        for chains in ([[1, 2]], [[1, 3]], [[2, 1]], [[1, 2, 3], [0, 1]], [[4, 2, 3], [0, 1]])
    ]
    assert len(set(hashes)) == len(hashes)


def test_captions_alone_are_those_of_the_example() -> None:
    source = random_fraction(FewerCaptions(Numbers(10), 2), 0.5, seed=0)
    assert [source.captions(i) for i in range(5)] == [example.captions for example in source]


def test_another_seed_gives_another_fraction() -> None:
    fractions = [tuple(ids(random_fraction(Numbers(100), 0.1, seed=seed))) for seed in range(3)]
    assert len(set(fractions)) == 3


def test_fewer_captions_are_the_first_ones() -> None:
    source = FewerCaptions(Numbers(4), 2)
    assert source[3].captions == ("3 a", "3 b")
    assert (len(source), source.categories) == (4, ("one",))
    assert source.identity()["captions_per_image"] == 2
    assert FewerCaptions(Numbers(4), 9)[0].captions == ("0 a", "0 b", "0 c")


NAMES = st.lists(ANY_TEXT, unique=True)


@given(NAMES, NAMES, st.floats(0, 1))
def test_an_image_keeps_its_side_when_others_are_added(
    names: list[str], others: list[str], fraction: float
) -> None:
    before = held_out(names, fraction, seed=0)
    assert (held_out([*names, *others], fraction, seed=0)[: len(names)] == before).all()


@pytest.mark.parametrize("fraction", [0.05, 0.5])
def test_the_fraction_held_out_is_near_the_requested_one(fraction: float) -> None:
    names = [f"{number:06d}.jpg" for number in range(20_000)]
    chosen = [held_out(names, fraction, seed=seed) for seed in (0, 1)]
    assert np.mean(chosen, axis=1) == pytest.approx([fraction, fraction], abs=0.01)
    both = (chosen[0] & chosen[1]).mean()
    assert both == pytest.approx(fraction * fraction, abs=0.01)


def test_listed_examples_are_kept_in_the_order_of_the_source(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "keep.txt.gz"
    path.write_bytes(gzip.compress(b"7\n\n 2 \n99\n"))
    kept = listed(Numbers(9), path)
    assert [example.image_id for example in kept] == ["2", "7"]
    assert "1 ids are of no image" in caplog.text


@given(st.lists(ANY_TEXT.filter(lambda text: json.loads(json.dumps(text)) == text)))
@hypothesis.example(
    ["caf\udce9.jpg", "line\nbreak", "line\\nbreak", " lead", '"', '"a"', "\ufeffa", "a\u2028b"]
)
def test_every_id_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, ids: list[str]
) -> None:
    path = tmp_path_factory.mktemp("lists") / "keep.txt"
    path.write_bytes(b"".join(id_line(one).encode() + b"\n" for one in ids))
    assert list(id_lines(path)) == ids


def test_ids_that_are_held_out_are_said_to_be_of_validation_images(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="virtex")
    (tmp_path / "keep.txt").write_text("1\n2\n3\n99\n")
    assert len(listed(Subset(Numbers(9), [1, 4, 5]), tmp_path / "keep.txt")) == 1
    said = [message.partition("keep.txt: ")[2] for message in caplog.messages]
    assert said == ["2 ids are of validation images", "1 ids are of no image"]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.txt", b"x\n", "none of its 1 ids"),
        ("a.txt", b"\xff\xfe\x00", "cannot be read"),
        ("a.gz", b"no gzip", "cannot be read"),
        ("a.txt", None, "cannot be read"),
    ],
)
def test_a_list_that_keeps_nothing_or_cannot_be_read_is_an_error(
    tmp_path: Path, name: str, content: bytes | None, reason: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=f"--data.keep .*{reason}"):
        listed(Numbers(9), tmp_path / name)
