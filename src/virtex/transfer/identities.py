"""Identities of data, as results record them, and whether two are of the same data."""

from collections.abc import Mapping
from typing import Any

from virtex.data.example import Source

Identities = Mapping[str, Mapping[str, Any]]
"""Identity of the data by their role, train or test."""
RULE = "drawn"
"""Part of an identity that states how a seed samples images; then their number may differ."""
LOCATIONS = ("root", "image_root", "table")
"""Parts of an identity that name a folder or file, which each machine may have elsewhere."""
SAMPLE = frozenset({"subset", "subset_sha256"})
"""Parts of an identity that each seed has otherwise, where images are drawn."""


def identities_of(train: Source, test: Source) -> dict[str, dict[str, str | int]]:
    """Return the identities of training and test images, as a result records them."""
    return {"train": train.identity(), "test": test.identity()}


def same_data(first: Identities, second: Identities) -> bool:
    """Return whether data are the same, wherever they lie and whichever images a seed draws."""
    return _comparable(first) == _comparable(second)


def _comparable(identities: Identities) -> dict[str, dict[str, Any]]:
    return {
        role: {
            key: value
            for key, value in identity.items()
            if key not in LOCATIONS and not (key in SAMPLE and RULE in identity)
        }
        for role, identity in identities.items()
    }
