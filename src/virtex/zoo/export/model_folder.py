"""A folder for the Hugging Face hub: the backbone for timm, the whole task for virtex, a card."""

import json
import logging
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from virtex import files
from virtex.data.transforms import ImageConfig
from virtex.errors import CheckpointError, ConfigError
from virtex.imagenet import IMAGENET_MEAN, IMAGENET_STD
from virtex.models.backbone import Backbone
from virtex.zoo.backbones import origin_of
from virtex.zoo.export import open_clip_layout
from virtex.zoo.export.card_scores import scores_of
from virtex.zoo.export.layouts import timm_state
from virtex.zoo.export.model import Model
from virtex.zoo.export.model_card import CardConfig, model_card, without_folders
from virtex.zoo.export.writing import save_run, save_tensors
from virtex.zoo.hub import CONFIG_NAME, TIMM_WEIGHTS
from virtex.zoo.weights_file import WEIGHTS_NAME

log = logging.getLogger("virtex")

CARD_NAME = "README.md"
OWNED = (
    CARD_NAME,
    CONFIG_NAME,
    *TIMM_WEIGHTS,
    WEIGHTS_NAME,
    open_clip_layout.CONFIG_NAME,
    open_clip_layout.WEIGHTS_NAME,
)
"""Names of files that this module writes, or that are read in place of those."""


def write_model_folder(model: Model, path: Path, *, card: CardConfig) -> list[str]:
    """Write config.json and model.safetensors for timm, and a card; return the files' names.

    Of a run the folder also holds weights.safetensors, so that it is an INIT; of a contrastively
    trained one the layout of open_clip, too, if that can express it. Files of another model, which
    would be read in place of these, are removed.

    Raises:
        DataError: A result of the run cannot be read.
        CheckpointError: The run's config cannot be read, or the folder cannot be written.
    """
    origin = origin_of(model.opened, model.backbone.config)
    scores = scores_of(origin, model.run_folder, weights=model.opened.path) if model.is_run else []
    open_clip = _open_clip(model, card.repository)
    card = replace(card, with_open_clip=open_clip is not None)
    text = model_card(model, card, scores=scores)
    config = json.dumps(timm_config(model.backbone, model.image), indent=2)
    with files.replacing(path, error=CheckpointError) as folder:
        folder.mkdir()
        (folder / CONFIG_NAME).write_text(config + "\n", encoding="utf-8")
        (folder / CARD_NAME).write_text(text, encoding="utf-8")
        save_tensors(timm_state(model.backbone), folder / TIMM_WEIGHTS[0])
        if model.is_run:
            public = {**without_folders(model.opened.config), "task": model.opened.config["task"]}
            save_run(model.opened, folder / WEIGHTS_NAME, config=public)
        if open_clip is not None:
            open_clip.write(folder)
        names = sorted(file.name for file in folder.iterdir())
    for name in set(OWNED) - set(names):
        (path / name).unlink(missing_ok=True)
    return names


def _open_clip(model: Model, repository: str | None) -> open_clip_layout.OpenClip | None:
    """Return a run in the layout of open_clip; None, after a log message, if that cannot be."""
    if not open_clip_layout.is_contrastive(model):
        return None
    try:
        return open_clip_layout.open_clip_layout(model, repository)
    except ConfigError as reason:
        log.warning("the folder is not for open_clip: %s", reason)
        return None


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
            "crop_pct": _crop_share(image.size, image.validation_short_side),
            "crop_mode": "center",
            "mean": backbone.config.image_mean or IMAGENET_MEAN,
            "std": backbone.config.image_std or IMAGENET_STD,
            "num_classes": 0,
            "pool_size": None,
            "first_conv": known.get("first_conv"),
            "classifier": known.get("classifier"),
        },
    }


def _crop_share(size: int, short_side: int) -> float:
    """Return a crop's share of the short side, which timm finds again by `floor(size / share)`."""
    share = size / short_side
    return share if math.floor(size / share) == short_side else math.nextafter(share, 0)
