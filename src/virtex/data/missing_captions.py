"""Missing and bad captions: a few are left out and logged, many are an error.

An image or row counts where it has no caption, or one that is empty or not text, also beside good
ones. Of the latter the bad captions are left out, and the others are skipped.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from virtex.data.checks import Problems, is_caption, quoted
from virtex.data.source_options import OPTIONS, SourceConfig, is_manifest
from virtex.errors import listing

log = logging.getLogger("virtex")

IN_PART = "in part empty or not text"
"""Fault of the captions of an item that also has good ones."""
IN_PART_REMEDY = "Write or remove these captions."


class Missing(NamedTuple):
    """Items of a data set that have no caption, or a bad one, for one reason."""

    what: str
    """Description of the items with the reason, such as `images whose caption is empty`."""
    names: Sequence[object]
    remedy: str


def good_captions(
    items: Iterable[tuple[object, Sequence[object]]],
    *,
    kind: str,
    limit: float,
    problems: Problems,
) -> list[list[str]]:
    """Return the captions of each item that are text and not empty; see `skip_within_limit`.

    Args:
        items: Name and captions of each, of any type.
    """
    captions, without, in_part = list[list[str]](), [], []
    for name, texts in items:
        good = [text for text in texts if is_caption(text)]
        captions.append(good)
        if not good:
            without.append(name)
        elif len(good) < len(texts):
            in_part.append(name)
    missing = [
        Missing(f"{kind} without a caption", without, "Write captions or remove them."),
        Missing(f"{kind} whose caption is {IN_PART}", in_part, IN_PART_REMEDY),
    ]
    skip_within_limit(missing, total=len(captions), kind=kind, limit=limit, problems=problems)
    return captions


def skip_within_limit(
    missing: Sequence[Missing], *, total: int, kind: str, limit: float, problems: Problems
) -> None:
    """Log the missing and bad captions, which are left out; add problems if there are too many.

    Args:
        total: Number of all items, with and without a caption.
        kind: What an item is, in the plural.
        limit: Largest fraction of items without a caption, or with a bad one.
    """
    missing = [one for one in missing if one.names]
    num_missing = sum(len(one.names) for one in missing)
    if num_missing > limit * total:
        for what, names, remedy in missing:
            problems.add_all(what, names, remedy)
        problems.add(
            f"{num_missing:,} of {total:,} {kind} have no caption, or a bad one, and "
            f"--data.missing_caption_limit {limit:g} allows no larger fraction. Correct or remove "
            "them, or raise the limit to skip them."
        )
    elif missing:
        details = "; ".join(
            f"{what}: {len(names):,} ({listing(quoted(name) for name in names)})"
            for what, names, _ in missing
        )
        counts = f"{num_missing:,} of {total:,} {kind}"
        log.warning(
            "%s: %s were skipped, or their bad captions: %s.", problems.subject, counts, details
        )


def without_caption_limit(config: SourceConfig) -> SourceConfig:
    """Return options by which images without a caption are skipped, however many there are.

    The limit of manifests, `fault_limit`, stays.
    """
    if is_manifest(config) or "missing_caption_limit" not in OPTIONS[config.source]:
        return config
    return replace(config, missing_caption_limit=1.0)


def skipped_identity(num_skipped: int) -> dict[str, str | int]:
    """Return the entry of a source's identity for skipped images, if there are any."""
    return {"skipped_images": num_skipped} if num_skipped else {}
