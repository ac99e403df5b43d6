"""From the facts of all shards to the manifest: what is kept, what is faulty, a sample of captions.

All files are written in the order of the shards, whatever the number of processes.
"""

import contextlib
import gzip
import json
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from virtex import files
from virtex.data.image_files import PassedOver
from virtex.data.shards.faults import KEPT, REASONS
from virtex.data.shards.index_folders import val_folder
from virtex.data.shards.keep_list import KeepList
from virtex.data.shards.manifest import (
    CAPTIONS,
    FAULTS,
    RECORDS,
    LeftOut,
    Manifest,
    Reading,
    Shard,
)
from virtex.data.shards.shard_facts import first_captions, keys_of, read_facts
from virtex.data.shards.store import Stored
from virtex.data.subsets import held_out
from virtex.errors import DataError

COMPRESSION = 6
MALFORMED = (ValueError, KeyError, TypeError, RecursionError)
"""Errors that a damaged line raises."""


class Selection(NamedTuple):
    """Which of the examples without fault are kept."""

    keep: KeepList | None
    val_share: float
    seed: int


class Gathering(NamedTuple):
    """A shard to gather."""

    facts: Path
    shard: Stored
    stamp: str
    num_sampled: int
    """Most captions that it gives to the sample."""
    selection: Selection
    reading: Reading


class Gathered(NamedTuple):
    """What the manifest says of a shard."""

    shard: Shard
    broken: str
    train: NDArray[np.bool_]
    """Which examples are kept for training, (N,)."""
    val: NDArray[np.bool_]
    """Which examples are kept for validation, (N,)."""
    faults: str
    """Lines of faults.jsonl."""
    fault_counts: Counter[str]
    captions: str
    """Lines of the sample."""
    passed_over: dict[str, int]
    listed: NDArray[np.int64]
    """Places in the list of kept ids of those that the shard has."""


@dataclass
class _Lists:
    """What is gathered of all shards for one manifest."""

    shards: list[Shard] = field(default_factory=list)
    kept: list[NDArray[np.uint8] | None] = field(default_factory=list)
    """Packed bits of each shard's examples; None for all."""

    def add(self, shard: Shard, mask: NDArray[np.bool_]) -> None:
        """Add a shard and which of its examples are kept."""
        self.shards.append(shard._replace(num_kept=int(mask.sum())))
        self.kept.append(None if mask.all() else np.packbits(mask))


def write_manifests(
    out: Path,
    root: str,
    gathered: Iterable[Gathered],
    *,
    pattern: str,
    reading: Reading,
    has_val: bool,
    is_local: bool,
) -> tuple[Manifest, Manifest | None]:
    """Write the manifest of all shards, and that of validation beside it; return both.

    Args:
        gathered: All shards in order.
        pattern: Names of numbered shards; empty for all below the root.
        reading: What they were read for.
        has_val: Examples are held out for validation; else there is no second manifest.
        is_local: The shards are files, whose modification times the manifest does not hold, so
            that it may move with them.
    """
    train, val = _Lists(), _Lists()
    left_out, counts, passed_over = list[LeftOut](), Counter[str](), Counter[str]()
    with (
        files.replacing(out / FAULTS) as faults,
        files.replacing(out / CAPTIONS) as captions,
        faults.open("w", encoding="ascii") as fault_file,
        _gzipped(captions) as caption_file,
    ):
        for one in gathered:
            passed_over.update(one.passed_over)
            if one.broken:
                left_out.append(LeftOut(one.shard.name, one.broken))
                continue
            shard = one.shard._replace(etag="") if is_local else one.shard
            train.add(shard, one.train)
            val.add(shard, one.val)
            counts.update(one.fault_counts)
            fault_file.write(one.faults)
            caption_file.write(one.captions.encode())
    PassedOver(passed_over).log(f"the shards in {root}")
    common = {
        "left_out": left_out,
        "fault_counts": counts,
        "reading": reading,
        "pattern": pattern,
    }
    manifest = _manifest(root, train, records_place=RECORDS, **common)
    manifest.write(out)
    if not has_val:
        return manifest, None
    validation = _manifest(root, val, records_place=f"../{out.name}/{RECORDS}", **common)
    validation.write(val_folder(out))
    return manifest, validation


def read_sample(folder: Path, *, most_bytes: int = 2**32) -> Iterator[tuple[str, ...]]:
    """Yield the captions of each sampled example of a manifest, in the order of the examples.

    Args:
        most_bytes: Bytes of text after which the file counts as damaged.

    Raises:
        DataError: The file is missing or damaged.
    """
    path = folder / CAPTIONS
    try:
        with gzip.open(path) as file:
            while line := file.readline(2**26):
                most_bytes -= len(line)
                captions = json.loads(line)["captions"]
                if most_bytes < 0 or not all(isinstance(one, str) for one in captions):
                    raise ValueError("too long, or no captions")
                yield tuple(captions)
    except (OSError, EOFError, zlib.error, *MALFORMED) as error:
        raise DataError(f"{path} cannot be read ({error}). Index the shards again.") from error


def gather(task: Gathering) -> Gathered:
    """Return what the manifest says of a shard; Raises: DataError if its facts are gone."""
    facts = read_facts(task.facts, stamp=task.stamp, reading=task.reading)
    if facts is None:
        raise DataError(f"{task.facts} has changed meanwhile. Restart the command.")
    name, count = task.shard.name, facts.num_examples
    is_good = np.isin(facts.faults, KEPT)
    num_sampled = len(facts.sample_positions)
    needs_keys = bool(task.selection.keep or task.selection.val_share)
    keys = list(keys_of(task.facts)) if needs_keys or num_sampled or not is_good.all() else []
    places = np.zeros(0, np.int64)
    if task.selection.keep is not None:
        is_listed, places = task.selection.keep.find(name, keys, facts.uids)
        is_good &= is_listed
    is_val = np.zeros(count, np.bool_)
    if task.selection.val_share:
        ids = (f"{name}/{key}" for key in keys)
        is_val = held_out(ids, task.selection.val_share, seed=task.selection.seed)
    train = is_good & ~is_val
    faulty = np.flatnonzero(facts.faults).tolist()
    reasons = [REASONS[facts.faults[position]] for position in faulty]
    return Gathered(
        shard=Shard(name, task.shard.size, task.shard.etag, facts.sha256, count, count),
        broken=facts.broken,
        train=train,
        val=is_good & is_val,
        faults="".join(
            json.dumps({"shard": name, "position": at, "key": keys[at], "reason": reason}) + "\n"
            for at, reason in zip(faulty, reasons, strict=True)
        ),
        fault_counts=Counter(reasons),
        captions=_sampled(task, facts.sample_positions.tolist(), list(facts.sample), keys, train),
        passed_over=dict(facts.passed_over),
        listed=places,
    )


def _sampled(
    task: Gathering,
    positions: list[int],
    captions: list[tuple[str, ...]],
    keys: list[str],
    is_kept: NDArray[np.bool_],
) -> str:
    """Return the lines of the sampled examples that are kept, the first of them by hash."""
    sampled = zip(positions, first_captions(captions, most=task.num_sampled), strict=False)
    return "".join(
        json.dumps({"id": f"{task.shard.name}/{keys[position]}", "captions": texts}) + "\n"
        for position, texts in sorted(sampled)
        if is_kept[position]
    )


@contextlib.contextmanager
def _gzipped(path: Path) -> Iterator[gzip.GzipFile]:
    """Yield a compressed file whose bytes follow from its content alone: no time, no name."""
    with (
        path.open("wb") as raw,
        gzip.GzipFile(
            filename="", mode="wb", fileobj=raw, mtime=0, compresslevel=COMPRESSION
        ) as file,
    ):
        yield file


def _manifest(root: str, lists: _Lists, **options: object) -> Manifest:
    counts = [shard.num_examples for shard in lists.shards]
    kept = (
        None if bits is None else np.unpackbits(bits, count=count).astype(np.bool_)
        for bits, count in zip(lists.kept, counts, strict=True)
    )
    return Manifest.of(root, lists.shards, kept=kept, **options)  # type: ignore[arg-type]
