"""Networks that are built for square images of one size, made to take others, as detectors need."""

from dataclasses import replace

import torch

from virtex.errors import ConfigError
from virtex.models.backbone import Backbone
from virtex.models.backbone_config import SIZE_OPTION, BackboneConfig
from virtex.models.feature_grid import reason


def of_any_size(config: BackboneConfig) -> BackboneConfig:
    """Return the architecture with the same weights that takes images of any size.

    Most do; a Swin and the like do with timm's `strict_img_size: false`, which pads their windows.

    Raises:
        ConfigError: The network takes images of one size alone.
    """
    failures = []
    for options in (config.options, {**config.options, SIZE_OPTION: False}):
        changed = replace(config, options=options)
        try:
            _forward_landscape(changed)
        except Exception as error:  # timm's networks raise errors of many kinds
            failures.append(reason(error))
        else:
            return changed
    raise ConfigError(
        f"backbone {config.name!r} takes images of one size alone ({failures[0]}), and a detector "
        "has images of all sizes. Choose a resnet, regnet, convnext, efficientnet, swin or vit."
    )


@torch.no_grad()
def _forward_landscape(config: BackboneConfig) -> None:
    """Compute the grid of a blank image that is wider than high, and larger than the own size."""
    with torch.random.fork_rng(devices=[]):
        backbone = Backbone(replace(config, pretrained=False)).eval()
    height, width = (backbone.own_size + cells * backbone.stride for cells in (1, 2))
    backbone(torch.zeros(1, 3, height, width))
