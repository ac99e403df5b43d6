"""Probe of a network's feature grid with a blank image: its size, shape and stride."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from virtex.errors import ConfigError

PROBE_SIZE = 64
"""Side, in pixels, of the blank image with which a network's grid is probed, if it takes that."""


@torch.no_grad()
def probe(model: Any, *, name: str, options: Mapping[str, Any]) -> tuple[int, Tensor, bool]:
    """Return the size and the grid of a blank image, and whether tokens make the grid.

    Raises:
        ConfigError: The network has no grid.
    """
    for size in (sizes := _probe_sizes(model, options)):
        images = torch.zeros(1, 3, size, size)
        try:
            features = model.eval().forward_features(images)
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
