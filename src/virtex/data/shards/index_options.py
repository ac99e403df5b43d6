"""The options of `virtex index`: which shards there are, and where their manifest goes."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from virtex.data.checks import path_inside, quoted
from virtex.data.held_out_names import warn_of_held_out
from virtex.data.shards.store import Store, Stored, is_shard, open_store
from virtex.errors import ConfigError, DataError, listing, raise_all

DEFAULT_OUT = ".virtex-manifest"
PATTERN = re.compile(r"(?P<head>[^{}/]*)\{(?P<first>\d+)\.\.(?P<last>\d+)\}(?P<tail>[^{}]*)")
"""Names of numbered shards: {00000..00331}.tar."""
NUMBERED = re.compile(rf"(?P<root>.+?://[^{{}}]*/)(?P<pattern>{PATTERN.pattern})")
"""URL of numbered shards: http://host/path/{00000..00331}.tar."""
MOST_NUMBERED = 10_000_000

TRAIN_ALONE = (
    "Index the training shards' folder, or number them: 'file:///PATH/train-{000..331}.tar'."
)


@dataclass(frozen=True)
class IndexConfig:
    """Options of `virtex index`."""

    root: str
    """Folder of .tar files, or a URL of them: s3://, gs://, az://, file://, or numbered ones as
    http://host/path/{00000..00331}.tar."""
    out: Path | None = None
    """Folder of the manifest; null: .virtex-manifest in the folder of the shards."""
    overwrite: bool = False
    """Whether to read all shards again, and to replace the manifest of other shards."""
    keep: Path | None = None
    """File of the ids to keep, the others are left out: .txt or .txt.gz with one a line, or .npy of
    texts or of DataComp's pairs; an id is a key, SHARD/KEY, or "uid" in the .json file."""
    val_share: float = 0.0
    """Fraction held out for validation, in a second manifest beside the first, named -val."""
    seed: int = 0
    """Random seed of `val_share`."""
    with_captions: bool = True
    """Whether an example needs a caption."""
    caption_keys: tuple[str, ...] = ()
    """Keys of the .json files that hold captions, any of which is enough; `txt` is the .txt file.
    By default the .txt file, or else "caption"."""

    def __post_init__(self) -> None:
        problems = []
        if not self.root:
            problems.append("no shards: name their folder or URL")
        if not 0 <= self.val_share < 1:
            problems.append(f"val_share {self.val_share} must be at least 0 and below 1")
        if not -(2**63) <= self.seed < 2**63:
            problems.append(f"seed {self.seed} must be at least {-(2**63)} and below {2**63}")
        if self.out is None and "://" in self.root and not self.root.startswith("file://"):
            problems.append("the shards lie at a URL: name the manifest's folder by --out")
        if self.keep is not None and not self.keep.is_file():
            problems.append(f"keep {self.keep} is not a file")
        raise_all(ConfigError, "the shards cannot be indexed", problems)


def check_one_root(arguments: Sequence[str]) -> None:
    """Raise a ConfigError if a shell has expanded a pattern of shards into several arguments."""
    shards = [one for one in arguments if is_shard(one.rpartition("/")[2])]
    if len(shards) < 2:
        return
    first, last = shards[0], shards[-1]
    if "://" in first:
        remedy = f"quote the pattern, as in '{first.rpartition('/')[0]}/{{00000..00331}}.tar'"
    else:
        beside = Path(last).parents
        folder = next((one for one in Path(first).parents if one in beside), Path())
        remedy = f"name their folder, {folder}; all shards below it are indexed"
    raise ConfigError(
        f"{len(shards):,} shards were given, {quoted(first)} to {quoted(last)}, and one folder or "
        f"URL is allowed. A shell expands braces and stars: {remedy}."
    )


def opened(root: str) -> tuple[Store, str]:
    """Return the store of a root, and the pattern of its shards' names if the root numbers them."""
    if "{" not in root or "://" not in root:
        return open_store(root), ""
    found = NUMBERED.fullmatch(root)
    if found is None:
        raise ConfigError(f"{quoted(root)}: number shards as http://host/path/{{000..331}}.tar")
    if not 0 <= int(found["last"]) - int(found["first"]) < MOST_NUMBERED:
        raise ConfigError(f"{quoted(root)}: numbers must ascend, at most {MOST_NUMBERED:,} of them")
    return open_store(found["root"]), found["pattern"]


def includes(pattern: str, earlier: str) -> bool:
    """Return whether a pattern has all shards of an earlier one; an empty one is of all shards."""
    new, old = PATTERN.fullmatch(pattern), PATTERN.fullmatch(earlier)
    if new is None or old is None:
        return pattern == earlier
    is_alike = all(new[part] == old[part] for part in ("head", "tail"))
    has_width = len(new["first"]) == len(old["first"])
    has_all = int(new["first"]) <= int(old["first"]) and int(old["last"]) <= int(new["last"])
    return is_alike and has_width and has_all


def _names(pattern: str) -> list[str]:
    """Return the names of numbered shards."""
    found = PATTERN.fullmatch(pattern)
    assert found is not None
    head, first, last, tail = found.groups()
    return [f"{head}{n:0{len(first)}d}{tail}" for n in range(int(first), int(last) + 1)]


def listed(store: Store, pattern: str) -> list[Stored]:
    """Return the shards of a store; a DataError says that there are none, or of strange names.

    Args:
        pattern: The names of numbered shards; empty for all of the store.
    """
    shards = list(store.heads(_names(pattern)) if pattern else store.list())
    strange = [one.name for one in shards if path_inside("/root", one.name) != one.name]
    if strange:
        shown = listing(quoted(name) for name in strange)
        raise DataError(
            f"shards at {store.root} have names that are no paths: {shown}. Rename them."
        )
    if not shards:
        raise DataError(
            f"there are no .tar files at {store.root}. Correct the URL or folder; compressed "
            "shards must be uncompressed, since they are read by offset."
        )
    if not pattern:
        warn_of_held_out(store.root, [one.name for one in shards], remedy=TRAIN_ALONE)
    return sorted(shards)
