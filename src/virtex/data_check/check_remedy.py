"""What to do with the images of a check that are to be left out, in lines of its page."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from virtex.data.shards.index_options import DEFAULT_OUT
from virtex.data.shards.manifest import Manifest
from virtex.data.source_options import is_manifest
from virtex.data_check.check_config import CheckConfig
from virtex.data_check.split_check import SplitCheck
from virtex.errors import one_line


def leave_out(
    config: CheckConfig, checks: Sequence[SplitCheck], bad: Sequence[NDArray[np.int64]]
) -> list[str]:
    """Return how the images to leave out are left out; nothing if there are none.

    Args:
        bad: Indices of the images of each split that have a finding to leave out.
    """
    num_bad = sum(map(len, bad)) + sum(check.num_without for check in checks)
    lines, train = ["", f"images to leave out: {num_bad:,}"], checks[0]
    if num_bad and len(bad[0]) == len(train):
        return [*lines, "  nothing is usable: no training image would be left"]
    unseen = [] if config.write_good is None else _unseen(train, bad[0])
    if not num_bad:
        return ["", *unseen] if unseen else []
    if config.write_good is None:
        lines[1] += "; list the others by --write_good GOOD.txt"
    commands = _commands(config, train, config.write_good)
    return [*lines, *unseen, *(f"  {one_line(one)}" for one in commands)]


def _unseen(train: SplitCheck, bad: NDArray[np.int64]) -> list[str]:
    """Return how many images are listed as good that were not decoded; nothing for none."""
    is_unseen = np.ones(len(train), np.bool_)
    is_unseen[bad] = is_unseen[train.images.indices] = False
    if not is_unseen.any():
        return []
    counts = f"{np.count_nonzero(is_unseen):,} of {len(train) - len(bad):,}"
    return [f"listed as good without being decoded: {counts}", "  --all decodes all"]


def _commands(config: CheckConfig, train: SplitCheck, good: Path | None) -> Iterator[str]:
    """Yield the options and commands that train on the list of good images."""
    name = good or "GOOD.txt"
    if config.data.mix:
        yield "then check each manifest by itself, since its index takes the list"
    elif is_manifest(config.data):
        assert config.data.root is not None
        manifest = Manifest.read(config.data.root)
        own = Path(manifest.root) / DEFAULT_OUT
        out = "" if manifest.folder == own else f" --out {manifest.folder}"
        yield f"then virtex index {manifest.root}{out} --keep {name}"
    else:
        # The list is of the part that was checked, of which the same share would be a smaller one.
        yield f"then --data.keep {name}{' --data.share 1' * (config.data.share < 1)}"
        if config.data.source == "webdataset":
            root = train.opened.source.identity()["root"]
            yield f"or virtex index {root} --keep {name}"
