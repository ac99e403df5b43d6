"""Bad objects: a few are dropped and logged, many are an error."""

import logging
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from virtex.data.checks import Problems, quoted
from virtex.errors import listing

SLACK = 2.0
"""Most pixels by which a box may exceed its image, since published boxes are rounded."""
MAX_PIXEL = 1e6
"""Largest coordinate of a plausible box."""
OUTSIDE = f"boxes outside their image or more than {SLACK:g} pixels beyond its edge"

log = logging.getLogger("virtex")


def box_faults(
    boxes: NDArray[np.float32], image_sizes: NDArray[np.float64]
) -> dict[str, NDArray[np.bool_]]:
    """Return each possible fault of a box, and which boxes (M,) have it.

    Args:
        boxes: (M, 4) corners.
        image_sizes: (M, 2) height and width of each box's image, NaN if unknown.
    """
    low, high, limits = boxes[:, :2], boxes[:, 2:], image_sizes[:, ::-1]
    is_flat = np.any(high <= low, axis=1)
    beyond = (low < -SLACK) | (high > limits + SLACK)
    missing = (high <= 0) | (low >= limits)
    return {
        OUTSIDE: np.any(beyond | missing, axis=1) & ~is_flat,
        "boxes without area": is_flat,
    }


def known_size(image_size: NDArray[np.float64]) -> tuple[float, float] | None:
    """Return a height and width (2,) as numbers; None if they are NaN."""
    height, width = image_size.tolist()
    return None if math.isnan(height) else (height, width)


def find_good_objects(
    faults: dict[str, NDArray[np.bool_]],
    name_of: Callable[[int], str],
    *,
    subject: str,
    limit: float,
    problems: Problems,
) -> NDArray[np.bool_]:
    """Return which objects (M,) have no fault; log the others, or add a problem at too many.

    Args:
        faults: Each possible fault, and which objects (M,) have it.
        name_of: Returns the name of an object by its index.
        subject: The file that lists the objects.
        limit: Largest fraction of bad objects.
    """
    is_bad = np.logical_or.reduce(list(faults.values()))
    num_bad = int(is_bad.sum())
    if not num_bad:
        return ~is_bad
    details = "; ".join(
        _described(what, mask, name_of) for what, mask in faults.items() if mask.any()
    )
    counts = f"{num_bad:,} of its {len(is_bad):,} objects"
    if num_bad > limit * len(is_bad):
        problems.add(
            f"{subject}: {counts} are bad, and --data.bad_object_limit {limit:g} allows no "
            f"larger fraction: {details}. Correct or remove them, or raise the limit to drop them."
        )
    else:
        log.warning("%s: %s are bad and were dropped: %s.", subject, counts, details)
    return ~is_bad


def dropped_identity(num_dropped: int) -> dict[str, str | int]:
    """Return the entry of a source's identity for dropped objects, if there are any."""
    return {"dropped_objects": num_dropped} if num_dropped else {}


def _described(what: str, mask: NDArray[np.bool_], name_of: Callable[[int], str]) -> str:
    names = [quoted(name_of(index)) for index in np.flatnonzero(mask).tolist()]
    return f"{what}: {len(names):,} ({listing(names)})"
