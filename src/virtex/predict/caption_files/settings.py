"""What captions in a file were written with, kept beside it, so that two kinds are never mixed."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch

from virtex.config import flat
from virtex.errors import ConfigError, listing
from virtex.predict.caption_files.growing_file import writing
from virtex.predict.predictor import Predictor

ANEW = "choose another file, or start anew with --overwrite (in Python overwrite=True)"
MODEL = "model"
NUM_HASH_DIGITS = 16


def settings_path(out: Path) -> Path:
    """Where the settings of a file of captions lie."""
    return out.with_name(f"{out.name}.settings.json")


def write_settings(out: Path, settings: dict[str, Any]) -> None:
    """Keep them beside `out`."""
    replace_file(settings_path(out), json.dumps(settings, indent=1) + "\n")


def check_settings(out: Path, settings: dict[str, Any]) -> None:
    """See that the captions in `out` were written with the same settings.

    Raises:
        ConfigError: They were not, or nobody knows.
    """
    path = settings_path(out)
    try:
        earlier = json.loads(path.read_text(encoding="utf-8"))
        kept = flat(earlier)
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"{out} holds something already, and {path.name} does not say which model and options "
            f"wrote it ({error}): {ANEW}."
        ) from error
    given = flat(json.loads(json.dumps(settings)))
    names = [name for name in {**kept, **given} if kept.get(name) != given.get(name)]
    differences = [
        "another model" if name == MODEL else f"{name} {kept.get(name)!r}, now {given.get(name)!r}"
        for name in names
    ]
    if differences:
        raise ConfigError(
            f"the captions in {out} were written with other settings "
            f"({listing(differences, limit=8)}): give the same, {ANEW}."
        )


def model_digest(predictor: Predictor) -> str:
    """The same for two predictors exactly if weights, vocabulary and images' sizes are."""
    image = predictor.image
    digest = hashlib.sha256(predictor.tokenizer.model_bytes)
    digest.update(f"{image.size} {image.validation_short_side}".encode())
    for name, value in sorted(predictor.captioner.state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:NUM_HASH_DIGITS]


def replace_file(path: Path, text: str) -> None:
    """Write a file, all of it or nothing.

    Raises:
        DataError: The disk is full, or gone.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with writing(path):
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
