"""State dicts: loaded strictly, and known again by a digest."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from virtex.errors import CheckpointError, listing

COUNTER = "num_batches_tracked"
"""The end of the names of BatchNorm's counters, which files from before PyTorch 0.4.1 lack."""


def load_strictly(
    module: nn.Module, state: Mapping[str, Tensor], *, subject: object, remedy: str = ""
) -> None:
    """Load a state dict that must fit; only BatchNorm's counters may be missing.

    Args:
        subject: Where the state dict comes from, for the message.
        remedy: A sentence that says what to do, for the message.

    Raises:
        CheckpointError: Names what is missing, unexpected or of another shape.
    """
    check_fits(module, state, subject=subject, remedy=remedy)
    own = module.state_dict()
    counters = {name: value for name, value in own.items() if name.endswith(COUNTER)}
    module.load_state_dict({**counters, **state})


def check_fits(
    module: nn.Module, state: Mapping[str, Tensor], *, subject: object, remedy: str = ""
) -> None:
    """Refuse a state dict that `load_strictly` could not load; the values do not matter.

    A module that was built on the meta device takes no memory: a file whose config claims sizes
    that its weights do not have is so refused before they cost anything.

    Raises:
        CheckpointError: Names what is missing, unexpected or of another shape.
    """
    own = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in state.items()}
    missing_counters = {name for name in own.keys() - found.keys() if name.endswith(COUNTER)}
    problems = differences({n: s for n, s in own.items() if n not in missing_counters}, found)
    if problems:
        message = f"{subject} does not fit the architecture: {problems}. {remedy}"
        raise CheckpointError(message.rstrip())


def differences(
    expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]
) -> str:
    """Say in which names and shapes two layouts differ; an empty text where they are the same."""
    misshapen = [
        f"{name} is {found[name]}, must be {expected[name]}"
        for name in expected.keys() & found.keys()
        if found[name] != expected[name]
    ]
    kinds = (
        ("missing", expected.keys() - found.keys()),
        ("unexpected", found.keys() - expected.keys()),
        ("of another shape", misshapen),
    )
    return "; ".join(
        f"{len(names)} {kind}: {listing(sorted(names))}" for kind, names in kinds if names
    )


def state_digest(state: Mapping[str, Tensor], identity: bytes = b"") -> str:
    """Return a SHA-256 that two state dicts share exactly if their names and values are the same.

    Args:
        identity: What belongs to the model beside its weights.
    """
    digest = hashlib.sha256(identity)
    for name, value in sorted(state.items()):
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        values = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(values.numpy().tobytes())
    return digest.hexdigest()
