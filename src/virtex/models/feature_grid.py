"""Probe of a network's feature grid with a blank image: its size, shape and stride."""

from collections.abc import Hashable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from virtex.errors import ConfigError
from virtex.models.backbone_groups import idle_names

PROBE_SIZE = 64
"""Side, in pixels, of the blank image with which a network's grid is probed, if it takes that."""


class FeatureGrid(NamedTuple):
    """What a blank image tells of a network."""

    image_size: int
    """Side of square images that the network takes, in pixels."""
    num_channels: int
    stride: int
    is_sequence: bool
    """Whether tokens make the grid."""
    channels_come_last: bool
    idle: frozenset[str]
    """Names of the parameters on which the grid does not depend."""


_known: dict[Hashable, FeatureGrid] = {}
"""The grids of networks of this process, of which a command builds the same several times."""


def probe(network: Any, *, name: str, options: Mapping[str, Any]) -> FeatureGrid:
    """Return what a blank image tells of a network, which is then in evaluation.

    Raises:
        ConfigError: The network has no grid.
    """
    shapes = tuple((key, value.shape, value.is_meta) for key, value in network.named_parameters())
    key = type(network), name, repr(options), shapes
    network.eval()
    if key not in _known:
        _known[key] = _probe(network, name, options)
    return _known[key]


def _probe(network: Any, name: str, options: Mapping[str, Any]) -> FeatureGrid:
    size, grid, is_sequence = _blank_grid(network, name, options)
    _, *cells = grid.shape
    come_last = cells[2] == network.num_features != cells[0]
    images = torch.zeros(1, 3, size, size, device=grid.device)
    forward = partial(grid_of_tokens, network) if is_sequence else network.forward_features
    return FeatureGrid(
        size,
        num_channels=cells[2] if come_last else cells[0],
        stride=stride_of(network, size, cells[1]),
        is_sequence=is_sequence,
        channels_come_last=come_last,
        idle=frozenset(idle_names(network, lambda: forward(images))),
    )


@torch.no_grad()
def _blank_grid(model: Any, name: str, options: Mapping[str, Any]) -> tuple[int, Tensor, bool]:
    """Return the size and the grid of a blank image, and whether tokens make the grid."""
    for size in (sizes := _probe_sizes(model, options)):
        images = torch.zeros(1, 3, size, size)
        try:
            features = model.forward_features(images)
        except Exception as error:  # timm's networks raise errors of many kinds
            if size != sizes[-1]:
                continue
            raise ConfigError(
                f"backbone {name!r} with options {options} takes no images of {size} "
                f"px, for which it is built ({reason(error)}). Choose other options, or leave "
                "them out."
            ) from error
        if isinstance(features, Tensor) and features.dim() == 4:
            return size, features, False
        return size, _probe_tokens(model, images, features, name), True
    raise AssertionError("there is a size")


def reason(error: Exception) -> str:
    """Return an error's type and first line, if it has one, without a full stop."""
    text = str(error).partition("\n")[0].rstrip(".")
    return f"{type(error).__name__}: {text}".removesuffix(": ")


def _probe_sizes(model: Any, options: Mapping[str, Any]) -> list[int]:
    """Return the image sizes to try: the one that the network is built for, or a small one."""
    own = int(model.pretrained_cfg.get("input_size", (3, 224, 224))[-1])
    given = options.get("img_size")
    if given is not None:
        return [int(given[-1] if isinstance(given, list) else given)]
    return [own] if model.pretrained_cfg.get("fixed_input_size") else [PROBE_SIZE, own]


def _probe_tokens(model: Any, images: Tensor, features: Any, name: str) -> Tensor:
    """Return the grid that a network's tokens make."""
    try:
        return grid_of_tokens(model, images)
    except Exception as error:  # timm's networks raise errors of many kinds
        shape = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise ConfigError(
            f"backbone {name!r} gives no feature grid (B, C, h, w) but {shape}. "
            "Choose a network with a grid: a resnet, regnet, convnext, efficientnet, swin, vit..."
        ) from error


def stride_of(model: Any, image_size: int, grid_size: int) -> int:
    """Return the stride of the grid; if the image is no multiple of it, as timm states it."""
    stages = getattr(model, "feature_info", None)
    stated = int(stages[-1]["reduction"]) if stages else 0
    if stated and (image_size % grid_size or -(-image_size // stated) == grid_size):
        return stated
    return image_size // grid_size


def grid_of_tokens(model: Any, images: Tensor) -> Tensor:
    """Return a ViT's last tokens, without class and register tokens, as a grid (B, C, h, w)."""
    (grid,) = model.forward_intermediates(images, indices=1, norm=True, intermediates_only=True)
    return grid
