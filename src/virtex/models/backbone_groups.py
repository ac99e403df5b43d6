"""Groups of a backbone's layers from its stem on, and groups that are kept from training.

The groups are timm's own (its coarse `group_matcher`): the stem, then the stages of a convolutional
network or the blocks of a ViT, then a final norm, if there is one.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from virtex.errors import ConfigError
from virtex.models.batch_norm import batch_norms

GroupParameters = Callable[..., Mapping[str, int]]
"""timm's function from a network and a matcher of names to the group of each parameter."""


def layer_groups(
    network: Any, group_parameters: GroupParameters, *, name: str, idle: Collection[str] = ()
) -> dict[str, int]:
    """Return the group of each parameter by name, 0 for the stem's.

    Args:
        idle: Names of parameters without influence, which count to the last group.

    Raises:
        ConfigError: timm knows no groups of this network.
    """
    try:
        groups = group_parameters(network, network.group_matcher(coarse=True), reverse=True)
    except (AttributeError, NotImplementedError, AssertionError):
        groups = {}
    used = sorted({group for parameter, group in groups.items() if parameter not in idle})
    if len(used) < 2:
        raise ConfigError(
            f"timm knows no groups of layers of the backbone {name!r}, which optim.layer_decay and "
            "backbone.freeze_stages need. Leave these out, or choose a resnet, convnext, vit..."
        )
    return {
        parameter: used.index(group) if group in used else len(used) - 1
        for parameter, group in groups.items()
    }


def first_groups(groups: Mapping[str, int], number: int, *, name: str) -> set[str]:
    """Return the names of the parameters of the first groups.

    Raises:
        ConfigError: There are no more groups than these.
    """
    most = max(groups.values())
    if number > most:
        raise ConfigError(
            f"backbone.freeze_stages {number} must be from 0 to {most} for {name!r}, which has "
            f"{most + 1} groups of layers, the stem included. To freeze all: backbone.frozen."
        )
    return {parameter for parameter, group in groups.items() if group < number}


def idle_names(network: nn.Module, forward: Callable[[], Tensor]) -> set[str]:
    """Return the names of the parameters that do not influence a forward pass."""
    named = dict(network.named_parameters())
    with torch.enable_grad():
        gradients = torch.autograd.grad(forward().sum(), list(named.values()), allow_unused=True)
    return {name for name, value in zip(named, gradients, strict=True) if value is None}


def norm_names(network: nn.Module, *, name: str) -> set[str]:
    """Return the names of BatchNorm's parameters.

    Raises:
        ConfigError: There is no BatchNorm.
    """
    layers = batch_norms(network)
    if not layers:
        raise ConfigError(f"backbone {name!r} has no BatchNorm: set frozen_norm to false")
    norms = {parameter for layer in layers for parameter in layer.parameters()}
    return {name for name, parameter in network.named_parameters() if parameter in norms}


def modules_of(network: nn.Module, names: Collection[str]) -> Iterator[nn.Module]:
    """Yield the modules that have parameters, all of which are among those named."""
    for prefix, module in network.named_modules():
        own = [f"{prefix}.{name}" if prefix else name for name, _ in module.named_parameters()]
        if own and all(name in names for name in own):
            yield module


def has_drop_path(network: nn.Module) -> bool:
    """Return whether residual branches of a network are dropped in training."""
    return any(
        getattr(module, "drop_prob", None) and type(module).__name__ == "DropPath"
        for module in network.modules()
    )
