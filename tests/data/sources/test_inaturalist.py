import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest

from tests.data.sources.layouts import jpeg, message_of, write
from virtex.data import checks
from virtex.data.source import Needs, SourceConfig, Split, open_source
from virtex.data.sources.inaturalist import InaturalistSource
from virtex.files import read_regular

FILES = {11: "train_val2018/Aves/2/a.jpg", 12: "train_val2018/Fungi/0/b.jpg", 13: "x/c.jpg"}
LABELS = Needs(labels=True)


def document() -> dict[str, Any]:
    images = [{"id": id_, "file_name": name} for id_, name in FILES.items()]
    pairs = ((13, 5), (11, 5), (12, 3))
    annotations = [
        {"id": 100 + image_id, "image_id": image_id, "category_id": category}
        for image_id, category in pairs
    ]
    categories = [{"id": 5, "name": "robin"}, {"id": 3, "name": "morel"}, {"id": 4, "name": "ray"}]
    return {"images": images, "annotations": annotations, "categories": categories}


def write_inaturalist(
    root: Path, content: dict[str, Any] | None = None, split: str = "train2018"
) -> Path:
    write(root / f"{split}.json", json.dumps(content or document()))
    for name in FILES.values():
        write(root / name, jpeg())
    return root


def test_each_image_has_one_label_by_the_order_of_category_ids(tmp_path: Path) -> None:
    source = InaturalistSource(write_inaturalist(tmp_path), split="train")
    assert source.categories == ("morel", "ray", "robin")
    assert [(example.image_id, example.labels) for example in source] == [
        ("11", (2,)),
        ("12", (0,)),
        ("13", (2,)),
    ]
    assert [source.labels(index) for index in range(3)] == [(2,), (0,), (2,)]
    assert source[1].image == tmp_path / "train_val2018" / "Fungi" / "0" / "b.jpg"


def test_train_stands_for_train2018_unless_there_is_a_train(tmp_path: Path) -> None:
    write_inaturalist(tmp_path)
    assert InaturalistSource(tmp_path, split="train").split == "train2018"
    assert InaturalistSource(tmp_path, split="train2018").split == "train2018"
    write_inaturalist(tmp_path, split="train")
    assert InaturalistSource(tmp_path, split="train").split == "train"


def test_a_pickled_source_gives_the_same_examples(tmp_path: Path) -> None:
    source = InaturalistSource(write_inaturalist(tmp_path), split="train")
    again = pickle.loads(pickle.dumps(source))
    assert [example.labels for example in again] == [(2,), (0,), (2,)]


def test_identity_counts_and_hashes(tmp_path: Path) -> None:
    before = InaturalistSource(write_inaturalist(tmp_path), split="train").identity()
    assert (before["source"], before["images"], before["classes"]) == ("inaturalist", 3, 3)
    other = document()
    other["annotations"][0]["category_id"] = 4
    assert InaturalistSource(write_inaturalist(tmp_path, other), split="train").identity() != before


def test_validation_is_there_if_its_file_is(tmp_path: Path) -> None:
    config = SourceConfig(source="inaturalist", root=write_inaturalist(tmp_path))
    assert open_source(config, split="val", needs=LABELS) is None
    named = replace(config, val_split="val2021")
    message = message_of(open_source, named, split="val", needs=LABELS)
    assert "val2021.json or val20212018.json but holds train2018.json" in message
    write_inaturalist(tmp_path, split="val2018")
    val = open_source(config, split="val", needs=LABELS)
    assert val is not None
    assert val.identity()["split"] == "val2018"


def test_both_files_must_have_the_same_categories(tmp_path: Path) -> None:
    write_inaturalist(tmp_path)
    other = document()
    other["categories"][2]["name"] = "skate"
    write_inaturalist(tmp_path, other, "val2018")
    config = SourceConfig(source="inaturalist", root=tmp_path)
    message = message_of(open_source, config, split="train", needs=LABELS)
    assert f"only in {tmp_path / 'train2018.json'}: 1 (ray)" in message
    assert f"only in {tmp_path / 'val2018.json'}: 1 (skate)" in message
    other["categories"][2] = {"id": 6, "name": "ray"}
    write_inaturalist(tmp_path, other, "val2018")
    assert "the order differs" in message_of(open_source, config, split="train", needs=LABELS)
    write_inaturalist(tmp_path, split="val2018")
    assert open_source(config, split="train", needs=LABELS) is not None


def test_the_training_file_is_read_only_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for split in ("train2018", "val2018"):
        write_inaturalist(tmp_path, split=split)
    read: list[str] = []

    def noting(path: Path) -> bytearray:
        read.append(path.name)
        return read_regular(path)

    monkeypatch.setattr(checks, "read_regular", noting)
    config = SourceConfig(source="inaturalist", root=tmp_path)
    for split in get_args(Split):
        open_source(config, split=split, needs=LABELS)
    assert read.count("train2018.json") == 1


def test_a_fraction_is_that_of_each_class(tmp_path: Path) -> None:
    config = SourceConfig(source="inaturalist", root=write_inaturalist(tmp_path), share=0.5)
    part = open_source(config, split="train", needs=LABELS)
    assert part is not None
    assert sorted(example.labels for example in part) == [(0,), (2,)]


def spoiled(key: str, **changes: Any) -> dict[str, Any]:
    content = document()
    content[key][0].update(changes)
    return content


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (spoiled("images", file_name="../a.jpg"), ["images outside"]),
        (spoiled("images", file_name="a.jpg"), ["images listed but absent: 1 (a.jpg)"]),
        (spoiled("annotations", image_id=99), ['not under "images": 1', "without a category: 1"]),
        (spoiled("annotations", category_id=9), ['not under "categories": 1']),
        (
            spoiled("annotations", image_id=11),
            ["several annotations: 1 (11)", "images without a category: 1 (13)"],
        ),
        (spoiled("categories", id=None), ['"categories" without "id" or "name": 1']),
        (spoiled("images", id=12), ["image ids given more than once: 1 (12)"]),
        ({"images": [], "categories": [], "annotations": []}, ["lists no images"]),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, content: dict[str, Any], parts: list[str]) -> None:
    message = message_of(InaturalistSource, write_inaturalist(tmp_path, content), split="train")
    for part in parts:
        assert part in message
