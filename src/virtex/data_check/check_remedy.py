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
    lines = ["", f"images to leave out: {num_bad:,}"]
    train, listed = checks[0], config.write_good
    is_good = np.ones(len(train), np.bool_)
    is_good[bad[0]] = False
    num_good = int(np.count_nonzero(is_good))
    is_good[train.images.indices] = False
    num_unseen = int(np.count_nonzero(is_good))
    if num_bad and not num_good:
        return [*lines, "  nothing is usable: no training image would be left"]
    if num_bad and listed is None:
        lines[1] += "; list the others by --write_good GOOD.txt"
    unseen = []
    if listed is not None and num_unseen:
        unseen = [
            f"listed as good without being decoded: {num_unseen:,} of {num_good:,}",
            "  --all decodes all",
        ]
    if not num_bad:
        return ["", *unseen] if unseen else []
    return [*lines, *unseen, *(f"  {one_line(one)}" for one in _commands(config, train, listed))]


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
        yield f"then --data.keep {name}"
        if config.data.source == "webdataset":
            root = train.opened.source.identity()["root"]
            yield f"or virtex index {root} --keep {name}"
