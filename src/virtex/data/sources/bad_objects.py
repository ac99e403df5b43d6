"""Objects that cannot be: a few are dropped and named, many are an error."""

import logging
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from virtex.data.checks import Problems, quoted
from virtex.errors import listing

SLACK = 2.0
"""So many pixels beyond the edge of its image a box may reach: published boxes are rounded."""
OUTSIDE = f"boxes outside their image or more than {SLACK:g} pixels beyond its edge"

log = logging.getLogger("virtex")


def box_faults(
    boxes: NDArray[np.float32], image_sizes: NDArray[np.float64]
) -> dict[str, NDArray[np.bool_]]:
    """What may be wrong with a box, and which boxes (M,) it is true of.

    Args:
        boxes: (M, 4) corners.
        image_sizes: (M, 2) height and width of each box's image; NaN where they are not known.
    """
    low, high, limits = boxes[:, :2], boxes[:, 2:], image_sizes[:, ::-1]
    is_flat = np.any(high <= low, axis=1)
    beyond = (low < -SLACK) | (high > limits + SLACK)
    missing = (high <= 0) | (low >= limits)
    return {
        OUTSIDE: np.any(beyond | missing, axis=1) & ~is_flat,
        "boxes without area": is_flat,
    }


def find_good_objects(
    faults: dict[str, NDArray[np.bool_]],
    name_of: Callable[[int], str],
    *,
    subject: str,
    limit: float,
    problems: Problems,
) -> NDArray[np.bool_]:
    """Which objects (M,) to keep: those without a fault.

    Faulty ones are named in the log, or in `problems` where they are too many.

    Args:
        faults: What may be wrong, and which objects (M,) it is true of.
        name_of: How the user finds object number m.
        subject: What lists the objects.
        limit: Share of the objects that may be dropped.
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
            f"{subject}: {counts} are bad, and --data.bad_object_limit {limit:g} allows no more "
            f"than that share of them: {details}. Mend or remove them, or raise the limit to have "
            "them dropped."
        )
    else:
        log.warning("%s: %s are bad and were dropped: %s.", subject, counts, details)
    return ~is_bad


def dropped_identity(num_dropped: int) -> dict[str, str | int]:
    """What a source's identity says of objects that were dropped; nothing where none was."""
    return {"dropped_objects": num_dropped} if num_dropped else {}


def _described(what: str, mask: NDArray[np.bool_], name_of: Callable[[int], str]) -> str:
    names = [quoted(name_of(index)) for index in np.flatnonzero(mask).tolist()]
    return f"{what}: {len(names):,} ({listing(names)})"
