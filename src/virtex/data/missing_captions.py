"""Missing captions: a few images or rows without one are skipped and logged, many are an error."""

import logging
from collections.abc import Sequence
from typing import NamedTuple

from virtex.data.checks import Problems, quoted
from virtex.errors import listing

log = logging.getLogger("virtex")


class Missing(NamedTuple):
    """Items of a data set that have no caption for one reason."""

    what: str
    """Description of the items with the reason, such as `images whose caption is empty`."""
    names: Sequence[object]
    remedy: str


def skip_within_limit(
    missing: Sequence[Missing], *, total: int, kind: str, limit: float, problems: Problems
) -> None:
    """Log the items without a caption, which are skipped; add problems if there are too many.

    Args:
        total: Number of all items, with and without a caption.
        kind: What an item is, in the plural.
        limit: Largest fraction of items without a caption.
    """
    missing = [one for one in missing if one.names]
    num_missing = sum(len(one.names) for one in missing)
    if num_missing > limit * total:
        for what, names, remedy in missing:
            problems.add_all(what, names, remedy)
        problems.add(
            f"{num_missing:,} of {total:,} {kind} have no caption, and "
            f"--data.missing_caption_limit {limit:g} allows no larger fraction. Correct or remove "
            "them, or raise the limit to skip them."
        )
    elif missing:
        details = "; ".join(
            f"{what}: {len(names):,} ({listing(quoted(name) for name in names)})"
            for what, names, _ in missing
        )
        counts = f"{num_missing:,} of {total:,} {kind}"
        log.warning("%s: %s were skipped: %s.", problems.subject, counts, details)


def skipped_identity(num_skipped: int) -> dict[str, str | int]:
    """Return the entry of a source's identity for skipped images, if there are any."""
    return {"skipped_images": num_skipped} if num_skipped else {}
