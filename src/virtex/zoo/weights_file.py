"""Weights files: a trained task in one file that needs nothing beside it.

A weights file is a safetensors file of the task's state dict and, as bytes, the tokenizer's model,
if the task has one; its metadata hold the run's config, step and classes.
"""

import contextlib
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from virtex.data.tokenizer import Tokenizer
from virtex.errors import CheckpointError, listing
from virtex.zoo.foreign import read_safetensors

log = logging.getLogger("virtex")
FORMAT = "virtex"
VERSION = 1
TOKENIZER = "tokenizer"
WEIGHTS_NAME = "weights.safetensors"


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
    state, metadata = read_safetensors(path)
    if metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} is a safetensors file, but not one that this package wrote (tensors "
            f"{listing(sorted(state))}). load_backbone takes a backbone out of it."
        )
    config, step, categories = _parsed(metadata, path)
    model = state.pop(TOKENIZER, None)
    tokenizer = None if model is None else Tokenizer(model.numpy().tobytes())
    return Weights(state, config, tokenizer, step, categories)


def stored_categories(path: Path) -> tuple[str, ...]:
    """The names of the classes in a weights file, if it is there; its tensors are not read."""
    if not path.is_file():
        return ()
    try:
        with safe_open(path, framework="pt") as file:
            return _parsed(file.metadata() or {}, path)[2]
    except (SafetensorError, OSError, CheckpointError) as error:
        log.warning("the names of the classes, if any, are left out: %s: %s", path, error)
        return ()


def _parsed(metadata: dict[str, str], path: Path) -> tuple[dict[str, Any], int, tuple[str, ...]]:
    """Config, step and categories."""
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
            f"{path} says that it is a weights file, but its metadata cannot be read "
            f"({type(error).__name__}: {error}). Write it anew: `virtex export RUN --format "
            "safetensors`."
        ) from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path} holds a config that is no mapping: {config!r}")
    return config, step, categories


def _unshared(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous tensors of which no two share memory, as safetensors demands."""
    seen: set[int] = set()
    result = {}
    for name, value in state.items():
        shared = value.untyped_storage().data_ptr() in seen
        seen.add(value.untyped_storage().data_ptr())
        result[name] = value.detach().clone() if shared else value.detach().contiguous()
    return result
