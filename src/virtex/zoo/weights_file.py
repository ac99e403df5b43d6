"""Weights files: a trained task in one file that needs nothing beside it.

A weights file is a safetensors file of the task's state dict and, as bytes, the tokenizer's model,
if the task has one; its metadata hold the run's config, step and classes. A checkpoint of a run
holds the same together with what lies in the run's folder.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from virtex import files
from virtex.data.tokenizer import Tokenizer
from virtex.engine import checkpoint
from virtex.errors import CheckpointError, listing
from virtex.zoo.tensor_file import TensorFile, read_tensor_file

log = logging.getLogger("virtex")
FORMAT = "virtex"
VERSION = 1
TOKENIZER = "tokenizer"
WEIGHTS_NAME = "weights.safetensors"
CHECKPOINT_KEYS = {"version", "step", "config", "task"}
"""What a checkpoint of a run holds, among others."""


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
    task_state: Mapping[str, Tensor],
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
    content = safetensors.torch.save(tensors, metadata)
    files.write(path, content, error=CheckpointError)


def read_weights(path: Path | str) -> Weights:
    """Read a weights file, or a checkpoint of a run with what lies in the run's folder.

    Raises:
        CheckpointError: Damaged, written by something else, or by a newer version of this package.
    """
    path = Path(path)
    file = read_tensor_file(path)
    if not is_of_a_run(file):
        raise CheckpointError(
            f"{path} is not one that this package wrote (it holds {listing(sorted(file.values))}). "
            "load_backbone takes a backbone out of it."
        )
    return weights_in(file, path)


def is_of_a_run(file: TensorFile) -> bool:
    """Whether a file of tensors is a weights file or a checkpoint of this package."""
    return file.metadata.get("format") == FORMAT or file.values.keys() >= CHECKPOINT_KEYS


def weights_in(file: TensorFile, path: Path) -> Weights:
    """Return the trained task in a file for which `is_of_a_run` holds.

    Args:
        path: The file; in a run's folder lie a checkpoint's tokenizer and names of classes.

    Raises:
        CheckpointError: Metadata that cannot be read, or a newer version of this package.
    """
    if file.metadata.get("format") != FORMAT:
        return _weights_in_checkpoint(file.values, path)
    config, step, categories = _parsed(file.metadata, path)
    state = dict(file.values)
    model = state.pop(TOKENIZER, None)
    tokenizer = None if model is None else Tokenizer(model.numpy().tobytes())
    return Weights(state, config, tokenizer, step, categories)


def _weights_in_checkpoint(values: dict[str, Any], path: Path) -> Weights:
    checkpoint.check_version(values, path)
    run = path.parent.parent
    vocabulary = run / "tokenizer.model"
    tokenizer = Tokenizer.load(vocabulary) if vocabulary.is_file() else None
    categories = stored_categories(run / WEIGHTS_NAME)
    return Weights(values["task"], values["config"], tokenizer, values["step"], categories)


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
            f"({type(error).__name__}: {error}). Write it again: `virtex export RUN --format "
            "safetensors`."
        ) from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path} holds a config that is no mapping: {config!r}")
    return config, step, categories


def _unshared(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous tensors of which no two share memory, as safetensors demands."""
    seen: set[int] = set()
    result = {}
    for name, value in state.items():
        shared = value.untyped_storage().data_ptr() in seen
        seen.add(value.untyped_storage().data_ptr())
        result[name] = value.detach().clone() if shared else value.detach().contiguous()
    return result
