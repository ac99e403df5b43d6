"""Drawn scenes in the layouts of the benchmarks, read back through the options a user gives."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from virtex.data.example import Example, Source
from virtex.data.layouts import write_scenes
from virtex.data.source import Needs, SourceConfig, open_source
from virtex.data.sources.scenes import ScenesSource

NUM_TRAIN, NUM_VAL, SEED = 40, 16, 5
OBJECTS = Needs(objects=True, labels=True)
MASKS = Needs(objects=True, labels=True, masks=True)
Written = Callable[[str], Path]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """The folder of a layout, written when it is first asked for."""
    folders: dict[str, Path] = {}

    def write(layout: str) -> Path:
        if layout not in folders:
            folders[layout] = root = tmp_path_factory.mktemp(layout)
            numbers = {"num_train": NUM_TRAIN, "num_val": NUM_VAL}
            write_scenes(layout, root, **numbers, seed=SEED, image_size=64)
        return folders[layout]

    return write


@pytest.fixture(scope="module")
def scenes() -> list[Example]:
    return list(ScenesSource(NUM_TRAIN, seed=SEED, image_size=64))


def opened(config: SourceConfig, needs: Needs) -> tuple[Source, Source]:
    """Training and validation data."""
    train, val = (open_source(config, split=split, needs=needs) for split in ("train", "val"))
    assert train is not None
    assert val is not None
    assert (len(train), len(val)) == (NUM_TRAIN, NUM_VAL)
    assert train.categories == val.categories
    for source in (train, val):
        assert all(isinstance(one.image, Path) and one.image.is_file() for one in source)
        assert [source.labels(i) for i in range(len(source))] == [one.labels for one in source]
    return train, val


def test_coco_gives_all_objects_or_a_crowd_of_them(written: Written, scenes: list[Example]) -> None:
    train, _ = opened(SourceConfig(source="coco", root=written("coco")), MASKS)
    assert any(example.crowd for example in train)
    for example, scene in zip(train, scenes, strict=True):
        assert example.labels == scene.labels
        assert example.boxes is not None
        assert example.areas is not None
        assert len(example.boxes) == len(example.masks) == len(example.areas)
        if not example.crowd:
            np.testing.assert_array_equal(example.boxes, scene.boxes)
        for area, mask in zip(example.areas, example.masks, strict=True):
            assert area == sum(mask["counts"][1::2])


def test_lvis_tells_what_is_absent_and_what_incomplete(
    written: Written, scenes: list[Example]
) -> None:
    train, val = opened(SourceConfig(source="lvis", root=written("lvis")), MASKS)
    assert len(train.frequencies) == len(train.categories) == 96
    assert set(train.frequencies) == {"r", "c"}
    assert train.frequencies == val.frequencies
    assert any(example.incomplete_labels for example in train)
    for example, scene in zip(train, scenes, strict=True):
        assert example.labels == scene.labels
        assert len(example.absent_labels) > 0
        assert not set(example.absent_labels) & set(example.labels)
        most = {label for label in scene.labels if scene.box_labels.count(label) > 3}
        assert set(example.incomplete_labels) == most
        assert not example.crowd
        assert example.areas is not None
        assert len(example.areas) == len(example.masks) == len(example.box_labels)


def test_inaturalist_gives_one_label_an_image(written: Written, scenes: list[Example]) -> None:
    config = SourceConfig(source="inaturalist", root=written("inaturalist"))
    train, _ = opened(config, Needs(labels=True))
    for example, scene in zip(train, scenes, strict=True):
        assert len(example.labels) == 1
        assert set(example.labels) <= set(scene.labels)


def test_voc_marks_small_objects_as_difficult(written: Written, scenes: list[Example]) -> None:
    config = SourceConfig(
        source="voc", root=written("voc"), train_split="trainval", val_split="test"
    )
    train, _ = opened(config, OBJECTS)
    assert any(example.difficult for example in train)
    for example, scene in zip(train, scenes, strict=True):
        np.testing.assert_array_equal(example.boxes, scene.boxes)
        assert len(example.difficult) in (0, len(scene.box_labels))
        easy = {
            label
            for place, label in enumerate(example.box_labels)
            if not (example.difficult and example.difficult[place])
        }
        assert set(example.labels) == easy
        assert set(example.ignored_labels) == set(example.box_labels) - easy


def as_another_year(voc: Path) -> None:
    """Make VOC2007 VOC2012, with names of images that 2007 has not."""
    target = voc.with_name("VOC2012")
    shutil.copytree(voc, target)
    for path in (target / "JPEGImages").iterdir():
        path.rename(path.with_name(f"2012_{path.name}"))
    for path in (target / "Annotations").iterdir():
        path.rename(path.with_name(f"2012_{path.name}"))
    for path in (target / "ImageSets" / "Main").iterdir():
        path.write_text("".join(f"2012_{line}\n" for line in path.read_text().splitlines()))


def test_voc_joins_two_years(written: Written, tmp_path: Path) -> None:
    shutil.copytree(written("voc") / "VOCdevkit", tmp_path / "VOCdevkit")
    as_another_year(tmp_path / "VOCdevkit" / "VOC2007")
    both = SourceConfig(
        source="voc",
        root=tmp_path,
        train_split="2007_trainval+2012_trainval",
        val_split="2007_test",
    )
    train = open_source(both, split="train", needs=OBJECTS)
    one = open_source(replace(both, train_split="trainval"), split="train", needs=OBJECTS)
    assert train is not None
    assert one is not None
    assert len(train) == 2 * NUM_TRAIN
    for place, example in enumerate(train):
        twin = one[place % NUM_TRAIN]
        assert example.image_id.removeprefix("2012_") == twin.image_id
        assert isinstance(example.image, Path)
        assert example.image.is_file()
        np.testing.assert_array_equal(example.boxes, twin.boxes)
        assert example.labels == twin.labels == train.labels(place)
        assert example.difficult == twin.difficult
