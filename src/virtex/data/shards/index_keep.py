"""Whether the ids of a list belong to images that an index has found."""

import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from virtex.data.checks import quoted
from virtex.data.shards.gather import Gathered
from virtex.data.shards.keep_list import KeepList
from virtex.data.shards.shard_facts import keys_of
from virtex.errors import DataError, listing

log = logging.getLogger("virtex")


def checked(
    gathered: Iterable[Gathered], keep: KeepList, root: str, facts_of: Callable[[str], Path]
) -> Iterator[Gathered]:
    """Yield what is gathered, then say which ids of the list no shard has.

    Args:
        root: Where the shards lie.
        facts_of: Function of a shard's name that returns the file of its facts.

    Raises:
        DataError: No shard has any of them; so that no manifest is written.
    """
    is_known, example = np.zeros(len(keep), np.bool_), ""
    for one in gathered:
        is_known[one.listed] = True
        if not example and one.shard.num_examples:
            key = next(iter(keys_of(facts_of(one.shard.name))))
            example = quoted(f"{one.shard.name}/{key}")
        yield one
    log.info("--keep lists %s ids", f"{len(keep):,}")
    _report(keep, is_known, root, example)


def _report(keep: KeepList, is_known: NDArray[np.bool_], root: str, example: str) -> None:
    """Say which ids (K,) are unknown; a DataError says that all are, although there are images."""
    num_unknown = len(keep) - int(np.count_nonzero(is_known))
    if not num_unknown:
        return
    names = listing([quoted(name) for name in keep.some_of(~is_known)])
    if num_unknown < len(keep):
        log.warning(
            "%s of the ids in %s belong to no image, such as %s", f"{num_unknown:,}", keep.source,
            names,
        )  # fmt: skip
    elif example:
        raise DataError(
            f"none of the {len(keep):,} ids in {keep.source} is that of an image at {root}. They "
            f'are such as {names}, and must be keys, SHARD/KEY or the "uid" of the .json files, '
            f"such as {example}. SHARD is the path below the root that is indexed: index the "
            "folder or URL that the list was made from."
        )
