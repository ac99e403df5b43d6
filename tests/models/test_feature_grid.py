"""A network is probed once in a process, and any other network for itself."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import timm
import torch

from tests.models.small import SLIM
from virtex.errors import ConfigError
from virtex.models import feature_grid
from virtex.models.backbone import Backbone, BackboneConfig

SLIM_RESNET = BackboneConfig("resnet18", options=SLIM)


@pytest.fixture(autouse=True)
def probes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names of the networks that are probed from here on, beginning with none known."""
    done, probe = [], feature_grid._probe
    monkeypatch.setattr(feature_grid, "_known", {})
    monkeypatch.setattr(
        feature_grid, "_probe", lambda *given: done.append(given[1]) or probe(*given)
    )
    return done


def test_equal_networks_are_probed_once(probes: list[str]) -> None:
    first, second = Backbone(SLIM_RESNET), Backbone(replace(SLIM_RESNET, frozen=True))
    assert probes == ["resnet18"]
    assert (second.stride, second.num_channels, second.own_size) == (32, 16, 64)
    assert first.training
    assert not second.training
    with torch.device("meta"):  # where indices are not checked
        Backbone(SLIM_RESNET)
    assert probes == ["resnet18"] * 2


def test_other_options_are_other_networks(probes: list[str]) -> None:
    assert Backbone(SLIM_RESNET).stride == 32
    dilated = replace(SLIM_RESNET, options={**SLIM, "output_stride": 16})
    assert Backbone(dilated).stride == 16  # with equal parameters
    wide = replace(SLIM_RESNET, options={**SLIM, "channels": [8, 8, 16, 32]})
    assert Backbone(wide).num_channels == 32
    assert probes == ["resnet18"] * 3


def test_a_name_that_comes_to_stand_for_another_class_is_probed_again(probes: list[str]) -> None:
    class Halved(timm.models.resnet.ResNet):
        def forward_features(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward_features(x)[:, :8]

    network = timm.create_model("resnet18", **SLIM)
    options = {"name": "resnet18", "options": SLIM}
    assert feature_grid.probe(network, **options).num_channels == 16
    network.__class__ = Halved
    assert feature_grid.probe(network, **options).num_channels == 8
    assert len(probes) == 2


def test_parameters_without_influence_stay_untrained_in_each_of_them() -> None:
    config = BackboneConfig("vit_tiny_patch16_224", options={"depth": 1, "global_pool": "map"})
    for _ in range(2):
        backbone = Backbone(config)
        idle = {name for name, value in backbone.named_parameters() if not value.requires_grad}
        assert idle
        assert all(name.startswith("cnn.attn_pool.") for name in idle)


def test_a_network_without_a_grid_is_refused_each_time(probes: list[str]) -> None:
    config = BackboneConfig("hiera_tiny_224", options={"stages": [1, 1, 1, 1], "embed_dim": 12})
    for _ in range(2):
        with pytest.raises(ConfigError, match="gives no feature grid"):
            Backbone(config)
    assert len(probes) == 2
