"""A folder for the Hugging Face hub: the backbone for timm, the whole task for virtex, a card."""

import json
from pathlib import Path
from typing import Any

from virtex import files
from virtex.data.transforms import IMAGENET_MEAN, IMAGENET_STD, ImageConfig
from virtex.errors import CheckpointError
from virtex.models.backbone import Backbone
from virtex.zoo.backbones import origin_of
from virtex.zoo.export.card_scores import scores_of
from virtex.zoo.export.layouts import timm_state
from virtex.zoo.export.model import Model
from virtex.zoo.export.model_card import model_card, without_folders
from virtex.zoo.export.writing import save_run, save_tensors
from virtex.zoo.weights_file import WEIGHTS_NAME


def write_model_folder(model: Model, path: Path) -> None:
    """Write a folder with config.json and model.safetensors for timm, and README.md.

    Of a run it also holds weights.safetensors, so that the folder is an INIT. Otherwise that file
    is removed, if it exists: it belongs to another model.

    Raises:
        DataError: A result of the run cannot be read.
        CheckpointError: The run's config cannot be read, or the folder cannot be written.
    """
    origin = origin_of(model.opened, model.backbone.config)
    scores = scores_of(origin, model.run_folder) if model.is_run else []
    card = model_card(model, title=path.name, scores=scores)
    config = json.dumps(timm_config(model.backbone, model.image), indent=2)
    with files.replacing(path, error=CheckpointError) as folder:
        folder.mkdir()
        (folder / "config.json").write_text(config + "\n", encoding="utf-8")
        (folder / "README.md").write_text(card, encoding="utf-8")
        save_tensors(timm_state(model.backbone), folder / "model.safetensors")
        if model.is_run:
            public = {**without_folders(model.opened.config), "task": model.opened.config["task"]}
            save_run(model.opened, folder / WEIGHTS_NAME, config=public)
    if not model.is_run:
        (path / WEIGHTS_NAME).unlink(missing_ok=True)


def timm_config(backbone: Backbone, image: ImageConfig) -> dict[str, Any]:
    """Return timm's config of the network and of its image preprocessing."""
    network = backbone.cnn
    options = dict(backbone.config.options)
    if getattr(network, "dynamic_img_size", False):  # ViTs that accept any image size
        options["dynamic_img_size"] = True
    known = network.pretrained_cfg
    fixed = bool(known.get("fixed_input_size")) and not options.get("dynamic_img_size")
    size = backbone.own_size if fixed else image.size
    return {
        "architecture": backbone.config.name.partition(".")[0],
        "num_classes": 0,
        "num_features": network.num_features,
        "model_args": options,
        "pretrained_cfg": {
            "input_size": [3, size, size],
            "fixed_input_size": fixed,
            "interpolation": "bilinear",
            "crop_pct": image.size / image.validation_short_side,
            "crop_mode": "center",
            "mean": IMAGENET_MEAN,
            "std": IMAGENET_STD,
            "num_classes": 0,
            "pool_size": None,
            "first_conv": known.get("first_conv"),
            "classifier": known.get("classifier"),
        },
    }
