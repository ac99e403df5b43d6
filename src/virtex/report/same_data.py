"""Groups of results on the same data, as far as the records of the data tell."""

import os
from collections.abc import Callable, Hashable, Sequence

from virtex.report.weights import weights_key
from virtex.transfer.identities import LOCATIONS, RULE
from virtex.transfer.protocol import Result, digest

LOCATION_OR_SAMPLE = frozenset({*LOCATIONS, "subset_sha256"})
"""Parts of an identity that same data may differ in: the folders, and the sample of a seed."""


def grouped(results: Sequence[Result], key: Callable[[Result], Hashable]) -> list[list[Result]]:
    """Return groups of results with the same key, in the order of each group's first result."""
    groups: dict[Hashable, list[Result]] = {}
    for result in results:
        groups.setdefault(key(result), []).append(result)
    return list(groups.values())


def grouped_by_data(results: Sequence[Result]) -> list[list[Result]]:
    """Return groups of results on the same data.

    An identity holds no pixels, so that data of the same identity in two folders are a data set
    that was moved, or two of the same file names, such as the corruptions of ImageNet-C. They count
    as one unless an INIT, or weights, were measured in both with the same seed. Samples of few
    labels count as drawn by one rule unless a seed has two.
    """
    groups = grouped(results, lambda result: digest(_identity(result)))
    groups = _split(groups, places, alike=lambda one: (one.initialisation["init"], one.seed))
    groups = _split(groups, places, alike=lambda one: (weights_key(one), one.seed))
    return _split(groups, _samples, alike=lambda one: one.seed)


def locations(result: Result) -> dict[str, str]:
    """Return the folders and files of a result's data as recorded, by their absolute paths.

    Relative ones count from the current folder. Links are not followed: a network drive that is
    away would be waited for.
    """
    found: dict[str, str] = {}
    for identity in result.data.values():
        for name in LOCATIONS:
            if (location := identity.get(name)) is not None:
                found.setdefault(os.path.abspath(str(location)), str(location))  # noqa: PTH100
    return found


def places(result: Result) -> tuple[str, ...]:
    """Return the absolute paths of the folders and files of a result's data."""
    return tuple(locations(result))


def _samples(result: Result) -> tuple[str, ...]:
    return tuple(str(identity.get("subset_sha256")) for identity in result.data.values())


def _split(
    groups: Sequence[list[Result]],
    key: Callable[[Result], Hashable],
    *,
    alike: Callable[[Result], Hashable],
) -> list[list[Result]]:
    """Split by `key` the groups in which results of the same `alike` differ in it."""
    split = []
    for group in groups:
        differ = any(len(set(map(key, same))) > 1 for same in grouped(group, alike))
        split += grouped(group, key) if differ else [group]
    return split


def _identity(result: Result) -> dict[str, dict[str, str | int]]:
    """Return the identity of the data, without their folders and the sample of a seed."""
    return {
        role: {
            key: value
            for key, value in identity.items()
            if key not in LOCATION_OR_SAMPLE and not (key == "subset" and RULE in identity)
        }
        for role, identity in result.data.items()
    }
