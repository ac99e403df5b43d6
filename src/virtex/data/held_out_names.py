"""Usual names of validation and test images: of folders, and within the names of shards."""

import logging
import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from virtex.data.checks import quoted
from virtex.errors import listing, one_line

log = logging.getLogger("virtex")

VALIDATION = ("validation", "val", "valid", "dev")
"""Usual names of a validation split."""
TEST = re.compile(r"test([-_]?\d+)?", re.IGNORECASE)
HELD_OUT = re.compile(rf"{TEST.pattern}|({'|'.join((*VALIDATION, 'eval'))})([-_]?\d+)?", re.I)
"""Usual names of folders of validation or test images, such as Val, dev and test2015."""
SHOWN = 4


def warn_of_held_out(root: object, shards: Sequence[str], *, remedy: str) -> None:
    """Warn of shards whose names say validation or test, among others that do not.

    Args:
        shards: Paths within the root.
        remedy: Sentence that says how to leave them out.
    """
    held_out = [name for name in shards if _says_held_out(name)]
    if 0 < len(held_out) < len(shards):
        log.warning(
            "%s: %d of %d shards are of validation or test images by their names (%s), and are "
            "taken with the others. %s",
            one_line(str(root)), len(held_out), len(shards),
            listing([quoted(name) for name in held_out], limit=SHOWN), remedy,
        )  # fmt: skip


def _says_held_out(shard: str) -> bool:
    """Return whether a folder of a path, or a part of its file's name, has a usual name."""
    path = PurePosixPath(shard)
    names = [*path.parts[:-1], *re.split(r"[-_.]", path.name)]
    return any(map(HELD_OUT.fullmatch, names))
