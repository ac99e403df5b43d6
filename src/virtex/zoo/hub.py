"""Folders in timm's layout: on this machine, `local-dir:FOLDER`, or the hub, `hf-hub:OWNER/NAME`.

A folder holds a network in config.json and its weights, as timm and `virtex export --format
huggingface` write them. Its config may name only an architecture of timm's and options of it.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from virtex.config import from_dict
from virtex.errors import CheckpointError, ConfigError
from virtex.models.backbone import BackboneConfig, native_size
from virtex.models.renormalization import own_normalization
from virtex.zoo.hub_client import MAX_BYTES, Repository, fetch_files
from virtex.zoo.models import user_path
from virtex.zoo.weights_file import WEIGHTS_NAME

LOCAL, HUB = "local-dir:", "hf-hub:"
"""Prefixes of names, which timm has too."""
CONFIG_NAME = "config.json"
TIMM_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""Names of a network's weights in timm's layout, the first ones first."""
MAX_CONFIG_BYTES = 1 << 20


def is_folder_name(name: str) -> bool:
    """Return whether a name begins with `local-dir:` or `hf-hub:`."""
    return name.startswith((LOCAL, HUB))


def folder_of(name: str, *, config_only: bool = False) -> Path:
    """Return the folder that a name means, downloaded to the hub's cache if it is on the hub.

    Args:
        name: `local-dir:FOLDER`, or `hf-hub:OWNER/NAME`, perhaps with `@REVISION`.
        config_only: Download the config alone, not the weights.

    Raises:
        CheckpointError: There is no such folder, or it cannot be downloaded.
    """
    if name.startswith(LOCAL):
        folder = user_path(name.removeprefix(LOCAL))
        if not folder.is_dir():
            raise CheckpointError(f"{name}: there is no folder {folder}.")
        return folder
    name, _, revision = name.removeprefix(HUB).partition("@")
    repository = Repository(name, revision or None)
    if config_only:
        return fetch_files(repository, [(CONFIG_NAME,)], max_bytes=MAX_CONFIG_BYTES)
    contents = [(CONFIG_NAME, weights) for weights in TIMM_WEIGHTS]
    return fetch_files(repository, [(WEIGHTS_NAME,), *contents], max_bytes=MAX_BYTES)


def pinned(name: str) -> str:
    """Return the name of a model on the hub at the commit that its revision is now, downloaded.

    Raises:
        CheckpointError: It cannot be downloaded.
    """
    return f"{name.partition('@')[0]}@{folder_of(name).name}"


def timm_weights(folder: Path) -> Path | None:
    """Return the weights of a network in timm's layout, if a folder holds one."""
    if not (folder / CONFIG_NAME).is_file():
        return None
    return next((folder / name for name in TIMM_WEIGHTS if (folder / name).is_file()), None)


def stated_beside(path: Path) -> BackboneConfig | None:
    """Return the architecture that a config.json beside a file of weights states.

    None where the file has no name of timm's layout, or the config.json is of another library.

    Raises:
        CheckpointError: The architecture cannot be read.
    """
    if path.name not in TIMM_WEIGHTS or not (path.parent / CONFIG_NAME).is_file():
        return None
    with (path.parent / CONFIG_NAME).open("rb") as file:
        text = file.read(MAX_CONFIG_BYTES)
    return architecture_in(path.parent) if b'"architecture"' in text else None


def architecture_in(folder: Path) -> BackboneConfig:
    """Return the architecture in a folder's config.json.

    Raises:
        CheckpointError: It is missing or unreadable, or states no architecture.
    """
    path = folder / CONFIG_NAME
    try:
        with path.open("rb") as file:
            values = json.loads(file.read(MAX_CONFIG_BYTES))
        known = values.get("pretrained_cfg") or values  # timm's older files are flat
        images = own_normalization(known.get("mean"), known.get("std"))
        stated = {"name": values["architecture"], "options": _options(values), **images}
        config = from_dict(BackboneConfig, stated)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}.") from error
    except (
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        RecursionError,
        ConfigError,
    ) as error:
        raise CheckpointError(
            f"{path} states no architecture of timm's ({type(error).__name__}: {error})."
        ) from error
    if is_folder_name(config.name):
        raise CheckpointError(f"{path} names {config.name!r}, which is no architecture of timm's.")
    return config


def _options(values: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a network, as timm builds it from its config.json."""
    options = dict(values.get("model_args") or {})
    options.pop("num_classes", None)  # backbones have no classifier
    if options.get("in_chans") == 3:
        del options["in_chans"]
    known = values.get("pretrained_cfg") or {}
    if known.get("fixed_input_size") and not options.get("dynamic_img_size"):
        size = int(known["input_size"][-1])
        if size != native_size(values["architecture"]):
            options.setdefault("img_size", size)
    return options


def resolved(config: BackboneConfig) -> BackboneConfig:
    """Return the architecture that a user names: in place of a folder's name, what is in it.

    Names in files are never resolved, so that no file leads to another, or to the network.

    Raises:
        CheckpointError: The folder cannot be read, or states no architecture.
        ConfigError: Its weights are requested, which are an INIT.
    """
    if not is_folder_name(config.name):
        return config
    if config.pretrained:
        raise ConfigError(
            f"backbone.name {config.name!r} gives an architecture, no weights: give those "
            f"by init {config.name}, and leave out backbone.pretrained."
        )
    stated = architecture_in(folder_of(config.name, config_only=True))
    return replace(config, name=stated.name, options={**stated.options, **config.options})
