"""The folders that `virtex index` writes, none of which may hold anything else.

The manifest lies in one, and what `--val_share` holds out in a second one beside it.
"""

import contextlib
import os
from pathlib import Path

from virtex import files
from virtex.data.checks import quoted
from virtex.data.shards.index_options import DEFAULT_OUT, IndexConfig, includes
from virtex.data.shards.manifest import (
    CAPTIONS,
    FAULTS,
    HEADER,
    KEPT,
    RECORDS,
    Manifest,
    has_manifest,
)
from virtex.data.shards.store import Store
from virtex.errors import ConfigError, DataError, raise_each

VAL_SUFFIX = "-val"
"""What the validation manifest is called behind the name of the first."""
OWN = {HEADER, KEPT, FAULTS, CAPTIONS, RECORDS}
"""Names of what a manifest's folder holds, beside hidden files."""
MARK = b'"virtex_manifest"'
"""Key that manifest.json begins with."""


def val_folder(out: Path) -> Path:
    """Return the folder of what is held out of the manifest in `out`."""
    return out.with_name(out.name + VAL_SUFFIX)


def out_of(config: IndexConfig, store: Store, pattern: str) -> Path:
    """Return the manifest's folder.

    Args:
        pattern: Names of numbered shards; empty for all of the store.

    Raises:
        ConfigError: This folder, or the second one, cannot be written or holds something else.
    """
    out = config.out
    if out is None:
        assert store.folder is not None
        if not store.folder.is_dir():
            raise DataError(f"{store.root} is not a folder. Name the folder of the .tar files.")
        out = store.folder / DEFAULT_OUT
    out = out.absolute()
    beside = val_folder(out)
    for each in [out, beside] if config.val_share else [out]:
        files.check_out(each, is_file=False)
    problems = [_problem(out, store.root, pattern, config)]
    if config.val_share:
        problems.append(_problem_beside(beside, out, store.root, config))
    raise_each(
        ConfigError, "the manifest would replace what is not its own", [*filter(None, problems)]
    )
    return out


def is_held_out_of(beside: Path, out: Path) -> bool:
    """Return whether a folder holds a manifest of what was held out of the one in `out`."""
    before = _manifest_in(beside)
    return before is not None and _is_of(before, out)


def _problem(out: Path, root: str, pattern: str, config: IndexConfig) -> str | None:
    """Return what else the manifest's folder holds; None if nothing."""
    before = _manifest_in(out)
    if before is None:
        return _problem_of_files(out)
    if config.overwrite:
        return None
    if before.root.rstrip("/") != root.rstrip("/"):
        return (
            f"{out} is the manifest of {before.root}, not of {root}: choose another "
            "--out, or give --overwrite."
        )
    if before.pattern is not None and not includes(pattern, before.pattern):
        return (
            f"{out} is the manifest of {_shown(before.pattern)} at {root}, and {_shown(pattern)} "
            "would replace it: give another folder by --out, or --overwrite."
        )
    if before.records_place not in ("", RECORDS):
        return (
            f"{out} is what was held out of {before.index_folder}: name that one by --out, choose "
            "another, or give --overwrite."
        )
    return None


def _problem_beside(beside: Path, out: Path, root: str, config: IndexConfig) -> str | None:
    """Return what else the folder of the held-out examples holds; None if nothing."""
    before = _manifest_in(beside)
    if before is None:
        problem = _problem_of_files(beside)
        return None if problem is None else f"--val_share writes {beside} too: {problem}"
    has_this_root = before.root.rstrip("/") == root.rstrip("/")
    # The records of one that was renamed, together with the first, are not where it says.
    is_renamed = has_this_root and before.absent_records is not None
    if not _is_of(before, out) and not is_renamed:
        return (
            f"--val_share writes {beside} too, which is a manifest of its own, of {before.root}. "
            "Move that folder away, or choose another --out."
        )
    if not has_this_root and not config.overwrite:
        return (
            f"--val_share writes {beside} too, which is the manifest of {before.root}, not of "
            f"{root}: choose another --out, or give --overwrite."
        )
    return None


def _problem_of_files(folder: Path) -> str | None:
    """Return which files in a folder without a sound manifest are none of an index that was cut."""
    names = {one.name for one in folder.iterdir()} if folder.is_dir() else set[str]()
    others = {name for name in names if not name.startswith(".")} - OWN
    is_other = HEADER in names and RECORDS not in names and MARK not in _start(folder / HEADER)
    if not others and not is_other:
        return None
    return f"{folder} is no manifest, and not empty: choose another --out."


def _manifest_in(folder: Path) -> Manifest | None:
    """Return the manifest in a folder; None if there is none, or a damaged one."""
    with contextlib.suppress(DataError):
        if has_manifest(folder):
            return Manifest.read(folder)
    return None


def _is_of(held_out: Manifest, out: Path) -> bool:
    """Return whether a manifest's records lie in the one in `out`, beside it."""
    return held_out.records_place == f"../{out.name}/{RECORDS}"


def _shown(pattern: str) -> str:
    return quoted(pattern) if pattern else "all shards"


def _start(path: Path) -> bytes:
    """Return the first bytes of a file; none if it cannot be read."""
    with contextlib.suppress(OSError), files.open_regular(path) as file:
        return os.pread(file.fileno(), 1000, 0)
    return b""
