"""What has changed in a store since its shards were indexed before, in words."""

import contextlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from virtex.data.checks import quoted
from virtex.data.shards.manifest import Manifest, has_manifest
from virtex.data.shards.shard_facts import stamp_of
from virtex.data.shards.store import Stored
from virtex.errors import DataError, listing

log = logging.getLogger("virtex")


def report_changes(
    out: Path, root: str, shards: Sequence[Stored], facts_of: Callable[[str], Path]
) -> None:
    """Log which shards the manifest in `out` has no more, in another version, or not yet.

    Args:
        root: Where the shards lie; a manifest of other shards, or none, has nothing to compare.
        facts_of: Function of a shard's name that returns the file of its facts.
    """
    before = _names_before(out, root)
    if before is None:
        return
    now = {one.name for one in shards}
    changed = [
        one.name
        for one in shards
        if one.name in before and stamp_of(facts_of(one.name)) not in (None, one.stamp)
    ]
    _say(logging.WARNING, "gone since the last index", sorted(before - now))
    _say(logging.WARNING, "changed since the last index", changed)
    _say(logging.INFO, "new since the last index", sorted(now - before))


def _names_before(out: Path, root: str) -> set[str] | None:
    """Return the shards that were indexed before; None if there is no manifest of this root."""
    with contextlib.suppress(DataError):  # damaged: written again
        if has_manifest(out):
            manifest = Manifest.read(out)
            if manifest.root.rstrip("/") == root.rstrip("/"):
                return {*manifest.names, *(one.name for one in manifest.left_out)}
    return None


def _say(level: int, what: str, names: Sequence[str]) -> None:
    if names:
        count = f"{len(names):,} shard{'s' * (len(names) != 1)}"
        log.log(level, "%s %s: %s", count, what, listing(map(quoted, names)))
