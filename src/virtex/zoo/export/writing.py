"""Files and folders that appear whole or not at all."""

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from virtex.errors import CheckpointError


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, a file or a folder, that becomes `path` after the block.

    A folder that exists keeps its other files; those of the same names are replaced one by one.

    Raises:
        CheckpointError: The disk is full, or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _put(temporary, path)
    except (OSError, RuntimeError, SafetensorError) as error:  # torch raises RuntimeError
        raise CheckpointError(
            f"cannot write {path}: {error}. Free some space, or choose another folder."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            _remove(temporary)


def save_torch(values: Mapping[str, object], path: Path) -> None:
    """Write tensors and plain values as a torch file that weights_only=True reads."""
    with written_whole(path) as temporary, temporary.open("wb") as file:
        torch.save(values, file)


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors as a safetensors file for PyTorch."""
    own = {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}
    with written_whole(path) as temporary:
        save_file(own, temporary, {"format": "pt"})


def _put(temporary: Path, path: Path) -> None:
    """Give what was written its name, once it is on the disk."""
    is_folder = temporary.is_dir()
    for file in temporary.iterdir() if is_folder else [temporary]:
        with file.open("rb+") as opened:
            os.fsync(opened.fileno())
    if is_folder and path.is_dir():
        for file in temporary.iterdir():
            file.replace(path / file.name)
    else:
        temporary.replace(path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
