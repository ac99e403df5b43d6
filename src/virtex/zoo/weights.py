"""Weights files, and INIT: the one way to say where a backbone comes from.

A weights file is a safetensors file of the task's state dict and, as bytes, the tokenizer's model,
if the task has one; its metadata hold the run's config, step and classes. It needs nothing beside
it.
"""

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from virtex.config import from_dict
from virtex.data.tokenizer import Tokenizer
from virtex.engine import checkpoint
from virtex.engine.checkpoint import CheckpointFolder
from virtex.errors import CheckpointError, ConfigError, listing
from virtex.models.backbone import Backbone, BackboneConfig
from virtex.zoo.published import backbone_state, infer_resnet, read_torch_file

FORMAT = "virtex"
VERSION = 1
TOKENIZER = "tokenizer"
WEIGHTS_NAME = "weights.safetensors"
IMAGENET = BackboneConfig(name="resnet50.tv_in1k", pretrained=True)
"""torchvision's ResNet-50, which the paper compares with, as timm publishes it."""
ALLOWED = (
    "INIT is random, imagenet, a run folder, one of its checkpoints (checkpoints/step_*.pt), a "
    f"{WEIGHTS_NAME}, or a .pth of a released VirTex, torchvision ResNet or MoCo model"
)


@dataclass(frozen=True)
class Weights:
    """A trained task, as plain values: all that is needed to use it or build on it."""

    state: dict[str, Tensor]
    """The task's state dict."""
    config: dict[str, Any]
    """The run's config, as config.to_dict gives it."""
    tokenizer: Tokenizer | None
    """None where the task read no captions."""
    step: int
    categories: tuple[str, ...] = ()
    """Names of the classes that the task learned, if it did."""


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


def save_weights(
    path: Path,
    task_state: dict[str, Tensor],
    *,
    config: dict[str, Any],
    tokenizer: Tokenizer | None,
    step: int,
    categories: Sequence[str] = (),
) -> None:
    """Write a weights file, all of it or nothing.

    Raises:
        CheckpointError: The disk is full, or the folder cannot be written.
    """
    tensors = _unshared(task_state)
    if tokenizer is not None:
        tensors[TOKENIZER] = torch.frombuffer(bytearray(tokenizer.model_bytes), dtype=torch.uint8)
    metadata = {
        "format": FORMAT,
        "version": str(VERSION),
        "config": json.dumps(config),
        "step": str(step),
        "categories": json.dumps(list(categories)),
    }
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, temporary, metadata)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise CheckpointError(
            f"cannot write {path}: {error}. Free some space, or choose another folder."
        ) from error


def read_weights(path: Path) -> Weights:
    """Read a weights file that `save_weights` wrote.

    Raises:
        CheckpointError: Damaged, written by something else, or by a newer version of this package.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged or no safetensors file: {error}") from error
    if metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} is a safetensors file, but not one that this package wrote (tensors "
            f"{listing(sorted(state))}). {ALLOWED}."
        )
    if int(metadata["version"]) > VERSION:
        raise CheckpointError(
            f"{path} has format {metadata['version']}, this package reads up to {VERSION}: "
            "upgrade virtex."
        )
    model = state.pop(TOKENIZER, None)
    return Weights(
        state,
        json.loads(metadata["config"]),
        None if model is None else Tokenizer(model.numpy().tobytes()),
        int(metadata["step"]),
        tuple(json.loads(metadata.get("categories", "[]"))),
    )


def trained_file(init: str | Path) -> Path:
    """The file that INIT names: itself, or in a run folder its weights, else its last checkpoint.

    Raises:
        CheckpointError: There is none.
    """
    path = Path(init).expanduser()
    if path.is_file():
        return path
    if not path.is_dir():
        raise CheckpointError(f"{str(init)!r}: no such file or folder. {ALLOWED}.")
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
    """Whether a file has the name of a weights file or checkpoint of this package."""
    return path.suffix == ".safetensors" or checkpoint.NAME.fullmatch(path.name) is not None


def read_trained(path: Path) -> Weights:
    """Read a weights file, or a checkpoint of a run with the run's tokenizer beside it.

    Raises:
        CheckpointError: Damaged, or not ours.
    """
    if path.suffix == ".safetensors":
        return read_weights(path)
    values = checkpoint.load(path)
    vocabulary = path.parent.parent / "tokenizer.model"
    tokenizer = Tokenizer.load(vocabulary) if vocabulary.is_file() else None
    return Weights(values["task"], values["config"], tokenizer, values["step"])


def load_backbone(
    init: str | Path, *, config: BackboneConfig | None = None, seed: int = 0
) -> Backbone:
    """The backbone that INIT names: images (B, 3, H, W), normalised, to a grid (B, C, h, w).

    Args and Raises as of `open_backbone`.
    """
    return open_backbone(init, config=config, seed=seed)[0]


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
    path = trained_file(init)
    step = None
    if is_trained_file(path):
        weights = read_trained(path)
        state, step = _backbone_state(weights.state, path), weights.step
        stored = stored_backbone(weights.config, path)
        _require_same(stored, config, path)
    else:
        state = backbone_state(read_torch_file(path), path)
        stored = config or infer_resnet(state, path)
    backbone = Backbone(replace(stored, pretrained=False, frozen=bool(config and config.frozen)))
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


def load_strictly(module: torch.nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Load a state dict that must fit; BatchNorm's counters, which old files lack, may be missing.

    Raises:
        CheckpointError: Names what is missing, unexpected or of another shape.
    """
    own = module.state_dict()
    counters = {name: value for name, value in own.items() if name.endswith("num_batches_tracked")}
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


def _backbone_state(task_state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The backbone's part of a task's state dict, which lies at the top or in one of its parts."""
    matches = (re.match(r"(?:\w+\.)?backbone\.cnn\.", name) for name in task_state)
    prefixes = sorted({match[0] for match in matches if match}, key=len)
    if not prefixes:
        raise CheckpointError(f"{path} has no backbone among {listing(sorted(task_state))}")
    own = prefixes[0]
    return {
        name.removeprefix(own): value for name, value in task_state.items() if name.startswith(own)
    }


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


def _unshared(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous tensors of which no two share memory, as safetensors demands."""
    seen: set[int] = set()
    result = {}
    for name, value in state.items():
        shared = value.untyped_storage().data_ptr() in seen
        seen.add(value.untyped_storage().data_ptr())
        result[name] = value.detach().clone() if shared else value.detach().contiguous()
    return result
