"""Gradient checkpointing: a block's activations are computed again in the backward pass, not kept.

Chen et al., "Training Deep Nets with Sublinear Memory Cost" (2016). timm says which blocks these
are. The second pass gives the same activations, dropout included, but it would update BatchNorm's
running statistics a second time; hooks prevent that.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from virtex.errors import ConfigError
from virtex.models.batch_norm import batch_norms, update_once


def checkpoint_blocks(network: Any, forward: Callable[[], Tensor], *, name: str) -> None:
    """Turn gradient checkpointing on in a timm network.

    Args:
        forward: Function that runs the network with gradient, to see whether it then keeps less.
        name: The network, for the message.

    Raises:
        ConfigError: The network has no gradient checkpointing, or none in this forward pass.
    """
    before = kept_bytes(forward)
    if not _turn_on(network) or kept_bytes(forward) >= before:
        raise ConfigError(
            f"backbone {name!r} has no gradient checkpointing: set backbone.grad_checkpointing to "
            "false, or choose a network that has it, such as a resnet, regnet, convnext, swin or "
            "vit."
        )
    for layer in batch_norms(network):
        update_once(layer)


def kept_bytes(forward: Callable[[], object]) -> int:
    """Return the bytes of the tensors that a forward pass keeps for the backward pass."""
    total = 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal total
        total += tensor.numel() * tensor.element_size()
        return tensor

    with torch.enable_grad(), saved_tensors_hooks(count, lambda tensor: tensor):
        forward()
    return total


def _turn_on(network: nn.Module) -> bool:
    """Return whether the network has the option; timm's others lack the method or refuse it."""
    try:
        network.set_grad_checkpointing(True)  # type: ignore[operator]
    except (AttributeError, AssertionError):
        return False
    return True
