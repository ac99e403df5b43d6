"""Options of all transfer commands: contradictions are refused, and seeds determine the weights."""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from statistics import stdev
from typing import Any, ClassVar

import pytest
import torch

from tests.transfer.conftest import SLIM, Noise
from virtex.config import recipe_paths
from virtex.data.example import Source
from virtex.data.source import SourceConfig
from virtex.errors import ConfigError
from virtex.models.backbone import Backbone, BackboneConfig
from virtex.report.comparisons import compare
from virtex.transfer.command import (
    LabelledConfig,
    MeasurementConfig,
    TransferConfig,
    architecture,
    extraction,
    run_protocol,
    with_fewer_labels,
)
from virtex.transfer.features import CPU, data_identity
from virtex.transfer.protocol import Protocol
from virtex.transfer.protocols import PROTOCOLS
from virtex.zoo.backbones import load_backbone

CONFIG = TransferConfig(init="random", out=Path("out"), backbone=SLIM)


def test_a_random_backbone_is_a_function_of_the_seed() -> None:
    weights = [
        next(load_backbone("random", config=SLIM, seed=seed).parameters()).detach()
        for seed in (0, 0, 1)
    ]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_backbone_from_takes_the_architecture_alone(tmp_path: Path) -> None:
    found = load_backbone("random", config=BackboneConfig("resnet18"))
    torch.save(found.cnn.state_dict(), tmp_path / "resnet18.pth")
    config = replace(CONFIG, backbone=None, seed=5, backbone_from=str(tmp_path / "resnet18.pth"))
    again = load_backbone(config.init, config=architecture(config), seed=config.seed)
    assert [p.shape for p in again.parameters()] == [p.shape for p in found.parameters()]
    assert not torch.equal(next(again.parameters()), next(found.parameters()))


@pytest.mark.parametrize(
    "changes", [{"init": "imagenet", "backbone": None}, {"backbone": BackboneConfig("resnet18")}]
)
def test_backbone_from_beside_what_it_contradicts_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="backbone_from"):
        architecture(replace(CONFIG, backbone_from="run", **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("changes", [{"image_size": 0}, {"batch_size": 0}, {"num_workers": -1}])
def test_sizes_that_cannot_work_are_refused(changes: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=next(iter(changes))):
        extraction(replace(CONFIG, **changes))  # type: ignore[arg-type]


def test_every_protocol_has_options_that_name_init_and_out() -> None:
    for command in PROTOCOLS.values():
        assert issubclass(command.config, MeasurementConfig)
        assert {"init", "out", "data"} <= {field.name for field in fields(command.config)}


@dataclass(frozen=True, kw_only=True)
class CountsImages(Protocol):
    """A protocol whose number is the count of training images."""

    headline: ClassVar[str] = "num_train"
    name: str = "counting"

    def settings(self) -> dict[str, Any]:
        return {}

    def measure(self, backbone: Backbone, *, train: Source, test: Source) -> dict[str, float]:
        return {"num_train": float(len(train))}

    @property
    def device(self) -> torch.device:
        return CPU


def test_few_shots_of_several_seeds_share_a_row_though_their_numbers_differ(
    tmp_path: Path,
) -> None:
    scenes = SourceConfig("scenes", num_images=80, num_val_images=4, image_size=64)
    command = LabelledConfig(init="random", out=tmp_path, backbone=SLIM, shots=3, num_seeds=3)
    results = run_protocol(CountsImages(), command, scenes)
    counts = [result.score for result in results]
    assert len(set(counts)) > 1
    assert len(list(tmp_path.glob("*.json"))) == 3
    more = run_protocol(CountsImages(), replace(command, shots=4, num_seeds=1), scenes)
    (group, other) = compare([*results, *more])
    assert [score.deviation for score in group.scores] == [pytest.approx(stdev(counts))]
    assert (group.about.count("shots 3"), other.about.count("shots 4")) == (1, 1)


def test_the_rule_of_few_labels_is_in_the_identity_and_the_images_are_in_the_features_key() -> None:
    source = Noise(40, labels=[(0,), (1,)] * 20)
    few = [
        with_fewer_labels(source, replace(CONFIG, **rule), seed=seed)  # type: ignore[arg-type]
        for rule, seed in [({"labels": 0.2}, 0), ({"labels": 0.2}, 1), ({"shots": 4}, 0)]
    ]
    drawn = [(part.identity()["drawn"], part.identity()["drawn_from"]) for part in few]
    assert drawn == [("labels 0.2", 40), ("labels 0.2", 40), ("shots 4", 40)]
    assert [len(part) for part in few] == [8, 8, 8]
    assert str(data_identity(few[0])) == str(data_identity(few[2]))  # the same images
    assert str(data_identity(few[0])) != str(data_identity(few[1]))
    assert with_fewer_labels(source, CONFIG, seed=0) is source


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_protocol_has_the_options_that_the_docs_say(name: str) -> None:
    options = {field.name for field in fields(PROTOCOLS[name].config)}
    trains_nothing = name in ("captioning", "zero-shot", "retrieval")
    assert ({"num_seeds", "backbone", "backbone_from"} <= options) is not trains_nothing
    classifies = name in ("voc07", "linear", "imagenet", "inaturalist", "finetune")
    assert ({"labels", "shots"} <= options) is classifies
    assert ("loader" in options) is not (trains_nothing or name in ("voc07", "linear"))


def test_every_protocol_has_a_recipe_of_its_name() -> None:
    assert set(PROTOCOLS) <= {path.stem for path in recipe_paths("transfer")}
