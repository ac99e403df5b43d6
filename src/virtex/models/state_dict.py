"""State dicts: loaded strictly, and known again by a digest."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from virtex.errors import CheckpointError, listing

COUNTER = "num_batches_tracked"
"""The end of the names of BatchNorm's counters, which files from before PyTorch 0.4.1 lack."""


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], *, subject: object) -> None:
    """Load a state dict that must fit; only BatchNorm's counters may be missing.

    Args:
        subject: Where the state dict comes from, for the message.

    Raises:
        CheckpointError: Names what is missing, unexpected or of another shape.
    """
    own = module.state_dict()
    counters = {name: value for name, value in own.items() if name.endswith(COUNTER)}
    state = {**counters, **state}
    shapes = ({name: tuple(value.shape) for name, value in s.items()} for s in (own, state))
    problems = differences(*shapes)
    if problems:
        raise CheckpointError(f"{subject} does not fit the architecture: {problems}")
    module.load_state_dict(state)


def differences(
    expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]
) -> str:
    """Say in which names and shapes two layouts differ; an empty text where they are the same."""
    misshapen = [
        f"{name} {found[name]} for {expected[name]}"
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
