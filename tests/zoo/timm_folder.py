"""A small network in a folder that timm writes."""

from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import save_for_hf

from virtex.models.backbone import BackboneConfig

RESNET = BackboneConfig("resnet18", options={"layers": [1] * 4, "channels": [8, 8, 16, 16]})


def written(folder: Path, config: BackboneConfig, *, safe_serialization: bool = True) -> Any:
    """The network in a new folder that timm writes."""
    torch.manual_seed(1)
    network = timm.create_model(config.name, num_classes=7, **config.options)
    save_for_hf(
        network,
        folder,
        model_config={"model_args": config.options},
        safe_serialization=safe_serialization,
    )
    return network
