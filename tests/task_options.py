"""Each pretext task at the size of a test: what it adds to tests/small_run.py's options."""

from typing import Any

import yaml

HEAD = {"head": {"hidden_size": 64, "dropout": 0.0}}
TEXT = {"text": {"hidden_size": 64, "num_layers": 1}, "embedding_size": 32}
REGIONS = {"pyramid_channels": 8, "box_width": 16, "num_regions": 16, "num_proposals": 50}
TASKS: dict[str, dict[str, object]] = {
    "captioning": {"name": "captioning", **HEAD},
    "bicaptioning": {"name": "bicaptioning", **HEAD},
    "bicaptioning_tokens": {"name": "bicaptioning", "token_weight": 0.5, **HEAD},
    "bicaptioning_share": {"name": "bicaptioning", "grid_share": 0.5, **HEAD},
    "masked_lm": {"name": "masked_lm", **HEAD},
    "icmlm": {"name": "icmlm", **HEAD},
    "cappa": {"name": "cappa", **HEAD},
    "locca": {"name": "locca", **HEAD},
    "prefix_lm": {"name": "prefix_lm"},
    "self_critical": {"name": "self_critical", "samples_per_image": 2, **HEAD},
    "token_classification": {"name": "token_classification"},
    "token_classification_bce": {"name": "token_classification", "loss": "bce"},
    "superclass": {"name": "superclass"},
    "label_classification": {"name": "label_classification"},
    "instance_segmentation": {"name": "instance_segmentation", "regions": REGIONS},
    "moco": {"name": "moco", "dim": 16, "queue_size": 16, "momentum": 0.9, "temperature": 0.2},
    "pirl": {"name": "pirl", "dim": 16, "num_negatives": 100},
    "clip": {"name": "clip", **TEXT},
    "superclip": {"name": "superclip", **TEXT},
    "siglip": {"name": "siglip", **TEXT},
}
"""What a test calls the task, and its options."""
SMALL_VIT: dict[str, Any] = {
    "name": "vit_tiny_patch16_224",
    "options": {"img_size": 64, "embed_dim": 32, "depth": 2, "num_heads": 2},
}
"""Options of the backbone of a task that needs a ViT."""
BACKBONES = {
    "prefix_lm": {"backbone": SMALL_VIT},
    "self_critical": {"backbone": {"frozen_norm": True}},
}


def task_flags(name: str) -> list[str]:
    """The command-line flags that choose a task, and a backbone if it needs one of its own."""
    return ["--config", yaml.safe_dump({"task": TASKS[name], **BACKBONES.get(name, {})})]
