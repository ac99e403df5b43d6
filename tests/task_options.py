"""Each pretext task at the size of a test: what it adds to tests/small_run.py's options."""

import yaml

HEAD = {"head": {"hidden_size": 64, "dropout": 0.0}}
TEXT = {"text": {"hidden_size": 64, "num_layers": 1}, "embedding_size": 32}
REGIONS = {"pyramid_channels": 8, "box_width": 16, "num_regions": 16, "num_proposals": 50}
TASKS: dict[str, tuple[str, dict[str, object]]] = {
    "captioning": ("CaptioningConfig", {**HEAD, "bidirectional": False}),
    "bicaptioning": ("CaptioningConfig", HEAD),
    "masked_lm": ("MaskedLmConfig", HEAD),
    "icmlm": ("MaskedLmConfig", {**HEAD, "masked_words": "concepts"}),
    "cappa": ("CapPaConfig", HEAD),
    "token_classification": ("TokenClassificationConfig", {}),
    "token_classification_bce": ("TokenClassificationConfig", {"loss": "bce"}),
    "superclass": ("TokenClassificationConfig", {"idf": True}),
    "label_classification": ("LabelClassificationConfig", {}),
    "instance_segmentation": ("InstanceSegmentationConfig", {"regions": REGIONS}),
    "moco": ("MocoConfig", {"dim": 16, "queue_size": 16, "momentum": 0.9, "temperature": 0.2}),
    "pirl": ("PirlConfig", {"dim": 16, "num_negatives": 100}),
    "clip": ("ContrastiveConfig", TEXT),
    "siglip": ("ContrastiveConfig", {**TEXT, "loss": "sigmoid"}),
}
"""Name to the config's class and its options."""


def task_flags(name: str) -> list[str]:
    """The command-line flags that choose a task."""
    config_class, options = TASKS[name]
    return [
        "--config",
        yaml.safe_dump({"task": {"class_path": config_class, "init_args": options}}),
    ]
