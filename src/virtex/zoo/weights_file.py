"""Weights files: a trained task, with all that is needed to use it, in one file.

A weights file is a safetensors file. It holds the task's state dict and the tokenizer's model, as
bytes; its metadata hold the run's config, step and classes, and a checksum of it all. A run's
checkpoint holds state dict, config and step; tokenizer and classes are read from the run folder.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from virtex.data.tokenizer import Tokenizer
from virtex.engine import checkpoint
from virtex.errors import CheckpointError
from virtex.zoo.own_tokenizer import load_own_tokenizer, own_path
from virtex.zoo.tensor_file import TensorFile, read_tensor_file, write_tensor_file

log = logging.getLogger("virtex")
FORMAT = "virtex"
VERSION = 1
TOKENIZER = "tokenizer"
WEIGHTS_NAME = "weights.safetensors"
AVERAGED_NAME = "weights_ema.safetensors"
"""Name in a run folder of the weights file of averaged weights (optim.ema_decay)."""
CHECKPOINT_KEYS = {"version", "step", "config", "task"}
"""Keys by which a checkpoint of a run is recognised."""


@dataclass(frozen=True)
class Weights:
    """A trained task, as plain values."""

    state: dict[str, Tensor]
    """State dict of the task."""
    config: dict[str, Any]
    """Config of the run, as `config.to_dict` returns it."""
    tokenizer: Tokenizer | None
    """Vocabulary, if the task reads captions."""
    step: int
    categories: tuple[str, ...] = ()
    """Names of the classes, if the task learns classes."""


def save_weights(
    path: Path,
    task_state: Mapping[str, Tensor],
    *,
    config: dict[str, Any],
    tokenizer: Tokenizer | None,
    step: int,
    categories: Sequence[str] = (),
) -> None:
    """Write a weights file atomically.

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
    write_tensor_file(path, tensors, metadata)


def is_run(file: TensorFile) -> bool:
    """Return whether a file is a weights file or a checkpoint of this package."""
    return file.metadata.get("format") == FORMAT or file.values.keys() >= CHECKPOINT_KEYS


def parse_run(file: TensorFile, path: Path) -> Weights:
    """Return the trained task in a file for which `is_run` holds.

    Args:
        path: The file's path, which leads from a checkpoint to its run folder.

    Raises:
        CheckpointError: The metadata cannot be read, or a newer version of this package wrote the
            file.
    """
    if file.metadata.get("format") != FORMAT:
        return _parse_checkpoint(file.values, path)
    config, step, categories = _parse_metadata(file.metadata, path)
    state = dict(file.values)
    model = state.pop(TOKENIZER, None)
    tokenizer = None if model is None else Tokenizer(model.numpy().tobytes())
    return Weights(state, config, tokenizer, step, categories)


def _parse_checkpoint(values: dict[str, Any], path: Path) -> Weights:
    checkpoint.check_version(values, path)
    state, config = values["task"], values["config"]
    is_state = isinstance(state, dict) and all(isinstance(v, Tensor) for v in state.values())
    if not (is_state and isinstance(config, dict)):
        raise CheckpointError(f"{path} is damaged: its task or config is no mapping of values.")
    run = path.absolute().parent.parent
    tokenizer = load_own_tokenizer(run) if own_path(run).is_file() else None
    categories = _stored_categories(run / WEIGHTS_NAME)
    return Weights(state, config, tokenizer, values["step"], categories)


def _stored_categories(path: Path) -> tuple[str, ...]:
    """Return the names of the classes in a weights file, if it exists."""
    if not path.is_file():
        return ()
    try:
        with safe_open(path, framework="pt") as file:
            if (file.metadata() or {}).get("categories", "[]") == "[]":
                return ()  # without reading the tensors
        return _parse_metadata(read_tensor_file(path).metadata, path)[2]
    except (SafetensorError, OSError, CheckpointError) as error:
        log.warning("the names of the classes are left out: %s: %s", path, error)
        return ()


def step_of(path: Path) -> int | None:
    """Return the step that a weights file is of; None if it is missing or damaged.

    Raises:
        OSError: It cannot be read now.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return _parse_metadata(file.metadata() or {}, path)[1]
    except (SafetensorError, FileNotFoundError, CheckpointError):
        return None


def _parse_metadata(
    metadata: dict[str, str], path: Path
) -> tuple[dict[str, Any], int, tuple[str, ...]]:
    """Return config, step and categories."""
    try:
        version = int(metadata["version"])
        if version > VERSION:
            raise CheckpointError(
                f"{path} has format {version}, this package reads up to {VERSION}: upgrade virtex."
            )
        config, step = json.loads(metadata["config"]), int(metadata["step"])
        categories = tuple(json.loads(metadata.get("categories", "[]")))
    except (KeyError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"{path} is a weights file, but its metadata cannot be read "
            f"({type(error).__name__}: {error}). Write it again: `virtex export RUN --format "
            "safetensors`."
        ) from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path} holds a config that is no mapping: {config!r}")
    return config, step, categories


def _unshared(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return contiguous tensors that share no memory, as safetensors requires."""
    seen: set[int] = set()
    result = {}
    for name, value in state.items():
        shared = value.untyped_storage().data_ptr() in seen
        seen.add(value.untyped_storage().data_ptr())
        result[name] = value.detach().clone() if shared else value.detach().contiguous()
    return result
