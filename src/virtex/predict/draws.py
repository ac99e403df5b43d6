"""Randomness of sampled captions: an image's own, whichever images it is captioned with."""

import hashlib
from collections.abc import Iterable

import torch


def draws_of(seed: int, keys: Iterable[object]) -> list[torch.Generator]:
    """A generator for each image, from the seed and what the image is known by (name, place)."""
    return [_generator(f"{seed} {key}") for key in keys]


def _generator(name: str) -> torch.Generator:
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big"))
