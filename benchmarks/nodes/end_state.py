"""What a run ended with, as one digest, so that two runs can be compared to the bit."""

import hashlib
from collections.abc import Iterator

import torch

from virtex.engine import checkpoint
from virtex.engine.run import RunFolder


def digest_of(folder: RunFolder, step: int) -> str:
    """Return a digest of all numbers of the final checkpoint; "" if there is none."""
    path = folder.checkpoints.at(step)
    if not path.exists():
        return ""
    digest = hashlib.sha256()
    for name, value in sorted(leaves({**checkpoint.load(path), "config": None})):
        digest.update(f"{name}={value}\n".encode())
    return digest.hexdigest()


def leaves(value: object, name: str = "") -> Iterator[tuple[str, str]]:
    """Return the names of all values within a checkpoint, and what they are."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield from leaves(each, f"{name}.{key}")
    elif isinstance(value, list | tuple):
        for index, each in enumerate(value):
            yield from leaves(each, f"{name}.{index}")
    elif isinstance(value, torch.Tensor):
        content = value.flatten().contiguous().view(torch.uint8).numpy()
        yield name, f"{value.dtype} {list(value.shape)} {hashlib.sha256(content).hexdigest()}"
    else:
        yield name, repr(value)
