"""Groups of layers, frozen ones, and stochastic depth."""

import copy

import pytest
import torch
from torch import nn

from tests.models.small import SLIM
from virtex.errors import ConfigError
from virtex.models.backbone import Backbone, BackboneConfig
from virtex.models.backbone_groups import layer_groups

RESNET = BackboneConfig("resnet18", options=SLIM)
VIT = BackboneConfig("vit_tiny_patch16_224", options={"embed_dim": 24, "depth": 3, "num_heads": 2})
CONVNEXT = BackboneConfig("convnext_atto", options={"depths": [1] * 4, "dims": [8, 8, 16, 16]})


@pytest.mark.parametrize(
    ("config", "first", "inside", "last", "number"),
    [
        (RESNET, "conv1.weight", "layer2.0.bn1.bias", "layer4.0.conv2.weight", 5),
        (VIT, "pos_embed", "blocks.1.attn.qkv.bias", "norm.weight", 4),
        (CONVNEXT, "stem.0.weight", "stages.1.blocks.0.norm.bias", "stages.3.downsample.1.bias", 5),
    ],
)
def test_groups_are_the_stem_and_the_stages_or_blocks(
    config: BackboneConfig, first: str, inside: str, last: str, number: int
) -> None:
    backbone = Backbone(config)
    groups = backbone.layer_groups()
    assert groups.keys() == dict(backbone.named_parameters()).keys()
    assert sorted(set(groups.values())) == list(range(number))
    assert [groups[f"cnn.{name}"] for name in (first, inside, last)] == [0, 2, number - 1]


def perturb(backbone: Backbone) -> None:
    """Draw all weights: those of residual branches start as 0."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.normal_(generator=generator)


def step(backbone: Backbone) -> set[str]:
    """Train a step, and return the names of what has changed."""
    perturb(backbone)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in backbone.parameters() if p.requires_grad], 0.1)
    backbone(torch.randn(4, 3, 64, 64)).square().mean().backward()
    optimizer.step()
    return {n for n, value in backbone.state_dict().items() if not torch.equal(value, before[n])}


@pytest.mark.parametrize("number", [1, 3])
def test_frozen_stages_stay_as_they_are_and_the_rest_learns(number: int) -> None:
    backbone = Backbone(BackboneConfig("resnet18", options=SLIM, freeze_stages=number))
    changed = step(backbone.eval().train())
    for name in backbone.state_dict():
        stage = int(name.split("layer")[1][0]) if "layer" in name else 0
        assert (name in changed) is (stage >= number), name


@pytest.mark.parametrize("options", [{"frozen": True}, {"freeze_stages": 2}])
def test_an_unfrozen_backbone_is_as_one_that_never_was_frozen(options: dict) -> None:
    torch.manual_seed(0)
    held = Backbone(BackboneConfig("resnet18", options=SLIM, **options))
    torch.manual_seed(0)
    free = Backbone(RESNET)
    held.unfreeze()
    modes = [[module.training for module in backbone.modules()] for backbone in (held, free)]
    assert modes[0] == modes[1]
    assert all(parameter.requires_grad for parameter in held.parameters())
    torch.manual_seed(1)
    changed = step(held)
    torch.manual_seed(1)
    assert step(free) == changed == held.state_dict().keys()


def test_an_unfrozen_momentum_copy_is_not_learned() -> None:
    backbone = Backbone(BackboneConfig("resnet18", options=SLIM, freeze_stages=2))
    other = copy.deepcopy(backbone).requires_grad_(False)
    other.unfreeze(is_learned=False)
    assert other.cnn.bn1.training
    assert not any(parameter.requires_grad for parameter in other.parameters())
    assert not backbone.cnn.bn1.training


def test_an_unfrozen_backbone_computes_activations_again_if_it_should() -> None:
    frozen = BackboneConfig("resnet18", options=SLIM, frozen=True, grad_checkpointing=True)
    backbone = Backbone(frozen)
    assert not backbone.cnn.grad_checkpointing
    backbone.unfreeze()
    assert backbone.cnn.grad_checkpointing


def test_more_frozen_stages_than_there_are_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"freeze_stages 5 must be from 0 to 4 for 'resnet18'"):
        Backbone(BackboneConfig("resnet18", options=SLIM, freeze_stages=5))


def test_a_network_without_known_groups_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"timm knows no groups of layers of the backbone 'x'"):
        layer_groups(nn.Linear(2, 2), lambda *_, **__: {}, name="x")


@pytest.mark.parametrize("config", [RESNET, VIT, CONVNEXT], ids=lambda config: config.name)
def test_residual_branches_are_dropped_in_training_alone_and_by_seed(
    config: BackboneConfig,
) -> None:
    torch.manual_seed(0)
    plain = Backbone(config).eval()
    torch.manual_seed(0)
    dropping = Backbone(BackboneConfig(config.name, options=config.options, drop_path=0.5))
    perturb(plain)
    perturb(dropping)
    images = torch.randn(8, 3, 224, 224)
    torch.testing.assert_close(dropping.eval()(images), plain(images))
    grids = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        grids.append(dropping.train()(images).detach())
    assert torch.equal(grids[0], grids[1])
    assert not torch.equal(grids[0], grids[2])


@pytest.mark.parametrize("name", ["vgg11", "resnet18"])
def test_a_network_without_residual_branches_to_drop_is_refused(name: str) -> None:
    options = {"drop_path_rate": 0.1} if name == "resnet18" else {}
    with pytest.raises(ConfigError, match=r"drop_path|cannot drop residual branches"):
        Backbone(BackboneConfig(name, options=options, drop_path=0.2))
