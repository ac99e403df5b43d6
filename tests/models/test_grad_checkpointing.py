"""Gradient checkpointing of the backbone: the same numbers with less memory."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.models.small import SLIM
from virtex import distributed
from virtex.errors import ConfigError
from virtex.models.backbone import Backbone, BackboneConfig
from virtex.models.batch_norm import HostSyncBatchNorm, synchronize
from virtex.models.grad_checkpointing import kept_bytes

OPTIONS = {
    "resnet18": SLIM | {"drop_path_rate": 0.5},
    "regnety_002": {"depth": 8},
    "vit_tiny_patch16_224": {"depth": 2, "proj_drop_rate": 0.5},
}
Forward = Callable[[Tensor], Tensor]
IMAGES = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def backbones(name: str = "resnet18", **options: bool) -> tuple[Backbone, Backbone]:
    """Return a backbone that keeps its activations, and its copy that computes them again."""
    pair = []
    for grad_checkpointing in (False, True):
        torch.manual_seed(0)
        pair.append(
            Backbone(
                BackboneConfig(
                    name,
                    options=OPTIONS.get(name, {}),
                    grad_checkpointing=grad_checkpointing,
                    **options,
                )
            )
        )
        for key, parameter in pair[-1].named_parameters():
            if "bn" in key:  # residual blocks begin as the identity
                nn.init.uniform_(parameter, 0.5, 1.5)
    return pair[0], pair[1]


def step(
    backbone: Backbone, forward: Callable[[Tensor], Tensor] | None = None
) -> dict[str, Tensor]:
    """Return the loss, gradients and buffers of two steps on one batch."""
    torch.manual_seed(1)
    for _ in range(2):
        loss = (backbone if forward is None else forward)(IMAGES).square().mean()
        loss.backward()
    gradients = {n: p.grad for n, p in backbone.named_parameters() if p.grad is not None}
    return {"loss": loss.detach(), **gradients, **dict(backbone.named_buffers())}


@pytest.mark.parametrize("name", OPTIONS)
def test_losses_gradients_and_statistics_are_the_same_to_the_bit(name: str) -> None:
    plain, checkpointed = backbones(name)
    expected, found = step(plain), step(checkpointed)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(found[key], value), key


def test_a_forward_pass_keeps_less() -> None:
    plain, checkpointed = backbones("vit_tiny_patch16_224")
    before, after = (kept_bytes(lambda b=b: b(IMAGES)) for b in (plain, checkpointed))
    assert after < 0.2 * before


def test_the_grids_of_several_strides_are_the_same() -> None:
    plain, checkpointed = backbones()
    results = []
    for backbone in (plain, checkpointed):
        torch.manual_seed(1)
        sum(grid.square().mean() for grid in backbone.stages(IMAGES, [8, 16, 32])).backward()
        results.append([p.grad for p in backbone.parameters()] + list(backbone.buffers()))
    for expected, found in zip(*results, strict=True):
        assert torch.equal(found, expected)


def test_a_copy_and_synchronized_layers_update_their_statistics_once(monkeypatch) -> None:
    plain, checkpointed = backbones()
    checkpointed = copy.deepcopy(checkpointed)
    with monkeypatch.context() as two:
        two.setattr(distributed, "world_size", lambda: 2)
        synchronize(checkpointed, torch.device("cpu"))
    assert isinstance(checkpointed.cnn.bn1, HostSyncBatchNorm)
    expected, found = step(plain), step(checkpointed)
    for key, value in expected.items():
        assert torch.equal(found[key], value), key


def test_layers_are_as_before_after_the_backward_pass() -> None:
    _, checkpointed = backbones()
    step(checkpointed)
    layer = checkpointed.cnn.layer1[0].bn1
    assert layer.momentum == 0.1
    assert layer.num_batches_tracked.item() == 2
    assert checkpointed.state_dict().keys() == backbones()[0].state_dict().keys()


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224"])
def test_a_compiled_backbone_is_one_graph_with_the_same_gradients(name: str) -> None:
    plain, checkpointed = backbones(name)
    compiled = torch.compile(checkpointed, fullgraph=True, backend="aot_eager")
    plain.eval(), checkpointed.eval()  # without random numbers, which compiled code draws otherwise
    expected, found = step(plain), step(checkpointed, compiled)
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, msg=key)


def test_a_compiled_backbone_updates_its_statistics_once() -> None:
    _, checkpointed = backbones()
    step(checkpointed, torch.compile(checkpointed, fullgraph=True, backend="aot_eager"))
    assert checkpointed.cnn.bn1.num_batches_tracked.item() == 2
    assert checkpointed.cnn.layer1[0].bn1.num_batches_tracked.item() == 2


@pytest.mark.parametrize("part", ["frozen", "frozen_norm"])
def test_frozen_parts_stay_as_they_were(part: str) -> None:
    plain, checkpointed = backbones(**{part: True})
    before = {name: value.clone() for name, value in checkpointed.named_buffers()}
    head = nn.Conv2d(checkpointed.num_channels, 1, 1)
    gradients = []
    for backbone in (plain, checkpointed):
        torch.manual_seed(1)
        backbone.zero_grad()
        head(backbone(IMAGES)).square().mean().backward()
        gradients.append([p.grad for p in backbone.parameters() if p.requires_grad])
    for expected, found in zip(*gradients, strict=True):
        assert torch.equal(found, expected)
    for name, value in checkpointed.named_buffers():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("name", ["dla34", "vgg11"])  # timm refuses; timm ignores it
def test_a_network_without_it_is_refused(name: str) -> None:
    with (
        torch.device("meta"),
        pytest.raises(ConfigError, match=f"{name}.*set backbone.grad_checkpointing to false, or"),
    ):
        Backbone(BackboneConfig(name, grad_checkpointing=True))
