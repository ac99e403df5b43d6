"""Results: written whole, read back equal, named by what they measured."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from tests.transfer.conftest import Noise
from virtex.data.example import Source
from virtex.errors import DataError
from virtex.models.backbone import Backbone
from virtex.transfer.protocol import Protocol, Result


@dataclass(frozen=True)
class CountsImages(Protocol):
    """A protocol whose number is the count of images."""

    headline: ClassVar[str] = "count"
    name: str = "counting"
    seed: int = 3

    def settings(self) -> dict[str, Any]:
        return {"image_size": 32, "costs": (1, 2)}

    def measure(self, backbone: Backbone, *, train: Source, test: Source) -> dict[str, float]:
        return {"count": float(len(train) + len(test)), "num_test": float(len(test))}

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")


@pytest.fixture
def result(backbone: Backbone) -> Result:
    return CountsImages().run(
        backbone,
        train=Noise(4, split="train"),
        test=Noise(3, split="val"),
        initialisation={"init": "runs/a b", "step": 200, "sha256": "12ab"},
    )


def test_a_result_holds_everything_needed_to_reproduce_it(result: Result) -> None:
    assert result.score == 7.0
    assert result.data == {
        "train": {"source": "noise", "images": 4, "split": "train"},
        "test": {"source": "noise", "images": 3, "split": "val"},
    }
    assert (result.seed, result.device) == (3, "cpu")
    assert {"python", "torch", "timm", "scikit-learn", "virtex"} <= set(result.versions)
    assert result.seconds >= 0
    assert "runs/a b, step 200; train -> val; 32 px" in result.summary()


def test_a_result_names_the_only_split_where_nothing_was_trained_on(result: Result) -> None:
    assert replace(result, data={"test": result.data["test"]}).splits == "val"
    assert replace(result, data={"train": {"split": "train"}, "test": {}}).splits == ""


def test_a_summary_has_all_numbers_of_the_headlines_kind(result: Result) -> None:
    numbers = {"box_AP": 40.0, "box_AP50": 60.0, "mask_AP": 35.0, "num_test": 9.0}
    segmented = replace(result, headline="mask_AP", numbers=numbers)
    assert " mask_AP 35.00, box_AP 40.00 (" in segmented.summary()
    assert " count 7.00 (" in result.summary()


def test_a_result_is_read_back_equal(result: Result, tmp_path: Path) -> None:
    path = result.write(tmp_path / "results")
    again = Result.read(path)
    assert again.settings_hash == result.settings_hash
    assert again.write(tmp_path / "again.json").read_text() == path.read_text()
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_the_file_name_identifies_the_measurement(result: Result) -> None:
    others = [
        replace(result, seed=4),
        replace(result, settings={"image_size": 64}),
        replace(result, data={}),
        replace(result, initialisation={**result.initialisation, "step": 400}),
    ]
    names = {result.file_name, *(other.file_name for other in others)}
    assert len(names) == 5
    again = replace(result, seconds=99.0, versions={}, numbers={"count": 1.0})
    assert again.file_name == result.file_name
    assert result.file_name.startswith("counting-a_b-")


def test_an_init_of_odd_characters_still_gives_a_file_name(result: Result, tmp_path: Path) -> None:
    for init in ("..", "/", "run/", "weird: *?"):
        path = replace(result, initialisation={"init": init}).write(tmp_path)
        assert path.parent == tmp_path
        assert path.is_file()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"protocol": "voc07"}', '"voc07"', None], ids=str)
def test_a_file_that_is_no_result_is_named(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "broken.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError, match=r"broken\.json"):
        Result.read(path)


def test_a_result_whose_headline_is_missing_is_broken(result: Result, tmp_path: Path) -> None:
    path = result.write(tmp_path / "r.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "numbers": {}}))
    with pytest.raises(DataError, match=r"r\.json"):
        Result.read(path)
