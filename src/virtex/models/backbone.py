"""The visual backbone: any timm network that gives a feature grid. The only door to timm."""

import difflib
from dataclasses import dataclass, field
from typing import Any, Self

import timm
import torch
from torch import Tensor, nn

from virtex.errors import CheckpointError, ConfigError

PROBE_SIZE = 64
"""Side, in pixels, of the blank image that shows what grid a network gives."""


@dataclass(frozen=True)
class BackboneConfig:
    """Which network turns images into feature grids, and how it starts."""

    name: str = "resnet50"
    """A timm model that gives a feature grid; `resnet50.tv_in1k` also names published weights."""
    pretrained: bool = False
    """Start from timm's published weights instead of at random."""
    frozen: bool = False
    """Train neither the weights nor BatchNorm's running statistics."""
    options: dict[str, bool | int | float | str | list[int] | None] = field(default_factory=dict)
    """Passed to timm.create_model, e.g. {layers: [1, 1, 1, 1], channels: [32, 64, 128, 256]}."""


class Backbone(nn.Module):
    """Images (B, 3, H, W), normalised, to a feature grid (B, C, h, w).

    Parameters lie under `cnn` and, for ResNets, bear torchvision's names. timm starts the last
    BatchNorm of each residual block at zero, as the paper does.
    """

    cnn: Any
    """The timm network."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.config = config
        self.cnn = _create(config)
        _, *cells = _probe(self.cnn, config.name).shape
        self.channels_come_last = cells[2] == self.cnn.num_features != cells[0]
        self.num_channels = cells[2] if self.channels_come_last else cells[0]
        self.stride = _probe_size(self.cnn) // cells[1]
        if config.frozen:
            self.requires_grad_(False)
        self.train()

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) to their grid (B, C, h, w)."""
        grid = self.cnn.forward_features(images)
        return grid.permute(0, 3, 1, 2) if self.channels_come_last else grid

    def pooled(self, images: Tensor) -> Tensor:
        """The mean of the grid over its cells, (B, C)."""
        return self(images).mean((2, 3))

    def train(self, mode: bool = True) -> Self:
        """As nn.Module's, except that a frozen backbone's statistics stay where they are."""
        return super().train(mode and not self.config.frozen)


def _create(config: BackboneConfig) -> Any:
    """The timm network without its classifier."""
    if not timm.is_model(config.name):
        close = difflib.get_close_matches(config.name, timm.list_models(), n=3)
        hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
        raise ConfigError(
            f"unknown backbone {config.name!r}.{hint} `timm.list_models()` lists what there is."
        )
    options = dict(config.options)
    try:
        model = timm.create_model(config.name, pretrained=False, num_classes=0, **options)
    except (TypeError, ValueError, AssertionError) as error:
        raise ConfigError(
            f"timm cannot build {config.name!r} with options {options}: {error}\n"
            "backbone.options takes the keyword arguments of timm.create_model."
        ) from error
    return _with_published_weights(config) if config.pretrained else model


def _with_published_weights(config: BackboneConfig) -> Any:
    try:
        return timm.create_model(
            config.name, pretrained=True, num_classes=0, **dict(config.options)
        )
    except Exception as error:  # timm's hosts raise errors of several HTTP libraries
        raise CheckpointError(
            f"cannot get the published weights of {config.name!r}: {error}\n"
            "They are fetched once over the network and then cached; fetch them on a machine that "
            "has a network, or set backbone.pretrained to false."
        ) from error


def _probe_size(model: Any) -> int:
    """A resolution that the network accepts."""
    settings = model.pretrained_cfg
    return int(settings["input_size"][-1]) if settings.get("fixed_input_size") else PROBE_SIZE


@torch.no_grad()
def _probe(model: Any, name: str) -> Tensor:
    """The network's grid of one blank image; an error where it gives none."""
    size = _probe_size(model)
    features = model.eval().forward_features(torch.zeros(1, 3, size, size))
    if not isinstance(features, Tensor) or features.dim() != 4:
        shape = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise ConfigError(
            f"backbone {name!r} gives no feature grid (B, C, h, w) but {shape}. "
            "Choose a network with a grid: a resnet, regnet, convnext, efficientnet, swin..."
        )
    return features
