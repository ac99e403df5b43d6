"""What all transfer commands share: contradictions refused, the same start at random."""

from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

from tests.transfer.conftest import SLIM
from virtex.config import recipe_paths
from virtex.errors import ConfigError
from virtex.models.backbone import BackboneConfig
from virtex.transfer.command import TransferConfig, extraction, load
from virtex.transfer.protocols import PROTOCOLS

CONFIG = TransferConfig(init="random", out=Path("out"), backbone=SLIM)


def test_a_random_backbone_is_a_function_of_the_seed() -> None:
    weights = [
        next(load(replace(CONFIG, seed=seed))[0].parameters()).detach() for seed in (0, 0, 1)
    ]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_backbone_from_takes_the_architecture_alone(tmp_path: Path) -> None:
    found = load(replace(CONFIG, backbone=BackboneConfig("resnet18")))[0]
    torch.save(found.cnn.state_dict(), tmp_path / "resnet18.pth")
    asked = replace(CONFIG, backbone=None, seed=5, backbone_from=str(tmp_path / "resnet18.pth"))
    again, initialisation = load(asked)
    assert initialisation.init == "random"
    assert [p.shape for p in again.parameters()] == [p.shape for p in found.parameters()]
    assert not torch.equal(next(again.parameters()), next(found.parameters()))


@pytest.mark.parametrize(
    "changes", [{"init": "imagenet", "backbone": None}, {"backbone": BackboneConfig("resnet18")}]
)
def test_backbone_from_beside_what_it_contradicts_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="backbone_from"):
        load(replace(CONFIG, backbone_from="run", **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("changes", [{"image_size": 0}, {"batch_size": 0}, {"num_workers": -1}])
def test_sizes_that_cannot_work_are_refused(changes: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=next(iter(changes))):
        extraction(replace(CONFIG, **changes))  # type: ignore[arg-type]


def test_every_protocol_has_options_that_name_init_and_out() -> None:
    for command in PROTOCOLS.values():
        assert {"init", "out", "data"} <= {field.name for field in fields(command.config)}


def test_every_protocol_has_a_recipe_of_its_name() -> None:
    assert set(PROTOCOLS) <= {path.stem for path in recipe_paths("transfer")}
