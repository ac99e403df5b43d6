"""INIT: the one way to say where a backbone comes from."""

import difflib
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from virtex.config import from_dict
from virtex.data.tokenizer import Tokenizer
from virtex.engine import checkpoint
from virtex.engine.checkpoint import CheckpointFolder
from virtex.errors import CheckpointError, ConfigError, listing
from virtex.models.backbone import Backbone, BackboneConfig
from virtex.zoo import models
from virtex.zoo.foreign import (
    COUNTER,
    backbone_state,
    infer_resnet,
    read_safetensors,
    read_tensors,
    unwrap,
)
from virtex.zoo.weights_file import (
    FORMAT,
    WEIGHTS_NAME,
    Weights,
    read_weights,
    save_weights,
    stored_categories,
)

__all__ = [
    "WEIGHTS_NAME",
    "Initialisation",
    "Weights",
    "is_trained_file",
    "load_backbone",
    "load_strictly",
    "open_backbone",
    "read_trained",
    "read_weights",
    "save_weights",
    "start_from",
    "stored_backbone",
    "trained_file",
]

IMAGENET = BackboneConfig(name="resnet50.tv_in1k", pretrained=True)
"""torchvision's ResNet-50, which the paper compares with, as timm publishes it."""
ALLOWED = (
    "INIT is random, imagenet, a run folder, one of its checkpoints (checkpoints/step_*.pt), a "
    f"{WEIGHTS_NAME}, a .pth or .safetensors of a released VirTex, torchvision, timm or MoCo "
    "model, or a published name (docs/zoo.md)"
)


@dataclass(frozen=True)
class Initialisation:
    """Where a backbone came from, for the record of a result."""

    init: str
    """What the user gave."""
    backbone: BackboneConfig
    step: int | None = None
    """The training step, where it is one of our runs."""
    sha256: str | None = None
    """Of the file, where there is one."""


def trained_file(init: str | Path) -> Path:
    """The file that INIT names: itself, or in a run folder its weights, else its last checkpoint.

    A published name is fetched, unless it was before; a file or folder of that name wins.

    Raises:
        CheckpointError: There is none.
    """
    path = models.path_of(init)
    published = models.named(init)
    if path.is_file():
        return path
    if published is not None:
        return models.fetch(published)
    if not path.is_dir():
        close = difflib.get_close_matches(str(init), ["random", "imagenet", *models.names()])
        hint = f" Did you mean {' or '.join(close)}?" if close else ""
        raise CheckpointError(f"{str(init)!r}: no such file or folder.{hint} {ALLOWED}.")
    if (path / WEIGHTS_NAME).is_file():
        return path / WEIGHTS_NAME
    checkpoints = CheckpointFolder(path / "checkpoints")
    steps = checkpoints.steps()
    if not steps:
        raise CheckpointError(
            f"{path} is no run folder that has been trained: it holds neither {WEIGHTS_NAME} nor "
            f"checkpoints/step_*.pt. {ALLOWED}."
        )
    return checkpoints.at(steps[-1])


def is_trained_file(path: Path) -> bool:
    """Whether a file is a weights file or a checkpoint of this package.

    Raises:
        CheckpointError: A damaged safetensors file.
    """
    if path.suffix == ".safetensors":
        return read_safetensors(path)[1].get("format") == FORMAT
    return checkpoint.NAME.fullmatch(path.name) is not None


def read_trained(path: Path) -> Weights:
    """Read a weights file, or a checkpoint of a run with what lies in the run's folder.

    That is the tokenizer, and in the weights file the names of the classes.

    Raises:
        CheckpointError: Damaged, or not ours.
    """
    if path.suffix == ".safetensors":
        return read_weights(path)
    values = checkpoint.load(path)
    absent = sorted({"task", "config", "step"} - values.keys())
    if absent:
        raise CheckpointError(f"{path} is no checkpoint of a run: it has no {listing(absent)}.")
    run = path.parent.parent
    vocabulary = run / "tokenizer.model"
    tokenizer = Tokenizer.load(vocabulary) if vocabulary.is_file() else None
    categories = stored_categories(run / WEIGHTS_NAME)
    return Weights(values["task"], values["config"], tokenizer, values["step"], categories)


def load_backbone(
    init: str | Path, *, config: BackboneConfig | None = None, seed: int = 0
) -> Backbone:
    """The backbone that INIT names: images (B, 3, H, W), normalised, to a grid (B, C, h, w).

    In evaluation mode: an image's features depend on no other image. Args and Raises as of
    `open_backbone`.
    """
    return open_backbone(init, config=config, seed=seed)[0].eval()


def start_from(init: str | Path, backbone: Backbone) -> Initialisation:
    """Put the weights that INIT names into a backbone; `random` leaves it as it is.

    The global generator is left as it was: what is built next starts as it would have anyway.

    Raises:
        CheckpointError: INIT cannot be found or read, or holds another architecture.
    """
    if str(init) == "random":
        return Initialisation("random", backbone.config)
    with torch.random.fork_rng(devices=[]):
        opened, initialisation = open_backbone(init, config=backbone.config)
    backbone.load_state_dict(opened.state_dict())
    return replace(initialisation, backbone=backbone.config)


def open_backbone(
    init: str | Path, *, config: BackboneConfig | None = None, seed: int = 0
) -> tuple[Backbone, Initialisation]:
    """The backbone that INIT names, and where it came from.

    Args:
        config: The architecture, where INIT does not say it, or to insist on it; and whether to
            freeze it.
        seed: Of random initialisation.

    Raises:
        CheckpointError: INIT cannot be found or read, or holds another architecture than `config`.
    """
    if str(init) == "random":
        backbone = _random(replace(config or BackboneConfig(), pretrained=False), seed)
        return backbone, Initialisation("random", backbone.config)
    if str(init) == "imagenet":
        backbone = Backbone(replace(config or IMAGENET, pretrained=True))
        return backbone, Initialisation("imagenet", backbone.config)
    published, path = models.named(init), trained_file(init)
    step = None
    if is_trained_file(path):
        weights = read_trained(path)
        stored, step = stored_backbone(weights.config, path), weights.step
        _require_same(stored, config, path)
        state: Mapping[str, Tensor] = _part_of_task(weights.state, path)
    else:
        values = read_tensors(path) if published is None else models.read_fetched(path)
        state = unwrap(values, path)
        stored = _architecture(state, config, published, path)
    frozen, frozen_norm = (config.frozen, config.frozen_norm) if config else (False, False)
    architecture = replace(stored, pretrained=False, frozen=frozen, frozen_norm=frozen_norm)
    backbone = Backbone(architecture)
    if step is None:
        state = backbone_state(state, path, names=backbone.cnn.state_dict())
    load_strictly(backbone.cnn, state, path)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return backbone, Initialisation(str(init), backbone.config, step, sha256)


def stored_backbone(config: dict[str, Any], path: Path) -> BackboneConfig:
    """The architecture in a run's config; it fetches no published weights."""
    try:
        return replace(from_dict(BackboneConfig, config["backbone"]), pretrained=False)
    except (ConfigError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: its config has no readable backbone: {error}") from error


def load_strictly(module: torch.nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Load a state dict that must fit; BatchNorm's counters, which old files lack, may be missing.

    Raises:
        CheckpointError: Names what is missing, unexpected or of another shape.
    """
    own = module.state_dict()
    counters = {name: value for name, value in own.items() if name.endswith(COUNTER)}
    state = {**counters, **state}
    misshapen = [
        f"{name} {tuple(state[name].shape)} for {tuple(own[name].shape)}"
        for name in own.keys() & state.keys()
        if state[name].shape != own[name].shape
    ]
    problems = [
        f"{len(names)} {kind}: {listing(sorted(names))}"
        for kind, names in (
            ("missing", own.keys() - state.keys()),
            ("unexpected", state.keys() - own.keys()),
            ("of another shape", misshapen),
        )
        if names
    ]
    if problems:
        raise CheckpointError(f"{path} does not fit the architecture: " + "; ".join(problems))
    module.load_state_dict(state)


def _random(config: BackboneConfig, seed: int) -> Backbone:
    """timm initialises from the global generator, which is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Backbone(config)


def _part_of_task(task_state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The backbone's part of a task's state dict, which lies at the top or in one of its parts."""
    matches = (re.match(r"(?:\w+\.)?backbone\.cnn\.", name) for name in task_state)
    prefixes = sorted({match[0] for match in matches if match}, key=len)
    if not prefixes:
        raise CheckpointError(f"{path} has no backbone among {listing(sorted(task_state))}")
    own = prefixes[0]
    return {
        name.removeprefix(own): value for name, value in task_state.items() if name.startswith(own)
    }


def _architecture(
    state: Mapping[str, Tensor],
    config: BackboneConfig | None,
    published: models.Published | None,
    path: Path,
) -> BackboneConfig:
    """The network of others' weights: as it was asked for, or as its names and shapes tell."""
    if config is not None and published is None:
        return config
    held = infer_resnet(backbone_state(state, path), path)
    if published is not None and held != published.backbone:
        raise CheckpointError(
            f"{path} holds a {held.name}, but {published.name} was published with a "
            f"{published.backbone.name}: it is another file. Remove it to fetch it anew."
        )
    _require_same(held, config, path)
    return held


def _require_same(stored: BackboneConfig, config: BackboneConfig | None, path: Path) -> None:
    """The published weights that a name's tag stands for do not make another architecture."""
    if config is None:
        return
    held, asked = ((c.name.partition(".")[0], c.options) for c in (stored, config))
    if held != asked:
        raise CheckpointError(
            f"{path} holds a {held[0]} with options {held[1]}, but {asked[0]} with options "
            f"{asked[1]} was asked for. Leave the backbone out to take the file's."
        )
