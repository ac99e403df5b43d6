"""Strict loading and digests of state dicts."""

import hashlib
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from virtex.errors import CheckpointError, ConfigError, listing

Module = TypeVar("Module", bound=nn.Module)

COUNTER = "num_batches_tracked"
"""Suffix of the names of BatchNorm's counters, which files from before PyTorch 0.4.1 lack."""


def build_strictly(
    build: Callable[[], Module], state: Mapping[str, Tensor], *, subject: object
) -> Module:
    """Build a module whose sizes a file states, and load the file's state dict into it.

    It is built on the meta device first, where it takes no memory, so that a file whose config
    states larger sizes than its weights have is refused before memory is allocated.

    Raises:
        CheckpointError: The module cannot be built, or does not fit the state dict.
    """
    try:
        with torch.device("meta"):
            check_fits(build(), state, subject=subject)
    except ConfigError as error:
        raise CheckpointError(f"{subject}: its network cannot be built: {error}") from error
    module = build()
    load_strictly(module, state, subject=subject)
    return module


def load_strictly(
    module: nn.Module, state: Mapping[str, Tensor], *, subject: object, remedy: str = ""
) -> None:
    """Load a state dict that must fit; only BatchNorm's counters may be missing.

    Args:
        subject: Source of the state dict, for the message.
        remedy: Sentence of the message that says what to do.

    Raises:
        CheckpointError: Names what is missing, unexpected or of another shape or type.
    """
    check_fits(module, state, subject=subject, remedy=remedy)
    own = module.state_dict()
    counters = {name: value for name, value in own.items() if name.endswith(COUNTER)}
    module.load_state_dict({**counters, **state})


def check_fits(
    module: nn.Module, state: Mapping[str, Tensor], *, subject: object, remedy: str = ""
) -> None:
    """Check that `load_strictly` could load a state dict, whatever its values.

    Raises:
        CheckpointError: Names what is missing, unexpected or of another shape or type.
    """
    own = module.state_dict()
    required = {
        name: tuple(value.shape)
        for name, value in own.items()
        if name in state or not name.endswith(COUNTER)
    }
    problems = differences(required, {name: tuple(value.shape) for name, value in state.items()})
    if not problems:
        problems = _no_weights({name: state[name] for name in own.keys() & state.keys()}, own)
    if problems:
        message = f"{subject} does not fit the architecture: {problems}. {remedy}"
        raise CheckpointError(message.rstrip())


def check_finite(state: Mapping[str, Tensor], subject: object) -> None:
    """Check that all weights are finite.

    Raises:
        CheckpointError: A weight is infinite or NaN; names all of them.
    """
    broken = [name for name, value in state.items() if not value.isfinite().all()]
    if broken:
        raise CheckpointError(
            f"{subject} holds weights that are infinite or NaN: {listing(sorted(broken))}. "
            "Its training diverged, or the file is damaged: give an earlier checkpoint."
        )


def _no_weights(found: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """Return the tensors that hold no numbers of a network's kind as text, empty if all do."""
    named = {name: kind for name, value in found.items() if (kind := _kind(value, own[name]))}
    kinds = sorted({*named.values()})
    return "; ".join(
        f"{len(names)} {kind}, must be floating-point numbers: {listing(names)}"
        for kind in kinds
        if (names := sorted(name for name in named if named[name] == kind))
    )


def _kind(value: Tensor, own: Tensor) -> str:
    """Return what a tensor is in place of plain numbers, empty if it is these."""
    if value.is_meta:
        return "without values"
    if value.is_quantized or value.layout != torch.strided:
        return "quantized" if value.is_quantized else "sparse"
    if own.is_floating_point() and not value.is_floating_point():
        return f"of type {value.dtype}".replace("torch.", "")
    return ""


def differences(
    expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]
) -> str:
    """Return the differences in names and shapes as text, empty if there are none."""
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
    """Return a SHA-256 of the names, shapes, types and values of a state dict, in order of names.

    It has no separators between these, which earlier versions' features depend on: two state dicts
    could be made that share it, but two that were trained do not.

    Args:
        identity: What identifies the model besides its weights.
    """
    digest = hashlib.sha256(identity)
    for name, value in sorted(state.items()):
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        values = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(values.numpy().tobytes())
    return digest.hexdigest()
