"""Atomic writing of exported models."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from virtex import files
from virtex.errors import CheckpointError
from virtex.zoo.init import Opened
from virtex.zoo.tensor_file import write_tensor_file
from virtex.zoo.weights_file import save_weights


def save_torch(values: Mapping[str, object], path: Path) -> None:
    """Write tensors and plain values as a torch file that weights_only=True reads."""
    with files.replacing(path, error=CheckpointError) as temporary, temporary.open("wb") as file:
        torch.save(values, file)


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors as a safetensors file for PyTorch."""
    own = {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}
    write_tensor_file(path, own, {"format": "pt"})


def save_run(opened: Opened, path: Path, *, config: dict[str, Any]) -> None:
    """Write the whole task of a run as a weights file.

    Args:
        config: The parts of the run's config to publish.
    """
    assert opened.step is not None, "a run has a step"
    save_weights(
        path,
        opened.state,
        config=config,
        tokenizer=opened.tokenizer,
        step=opened.step,
        categories=opened.categories,
    )
