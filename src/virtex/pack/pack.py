"""The command `virtex pack`: any source to tar shards, which later epochs read at once.

The same command gives the same bytes with any number of processes, and after an interruption it
goes on with the shards that are missing.
"""

import logging
import time
from collections.abc import Generator
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from virtex import distributed, files
from virtex.cores import num_cores
from virtex.data.checks import check_same_classes, sha256_of_strings
from virtex.data.example import Source
from virtex.data.fingerprint import fingerprint
from virtex.data.shard_files import tar_end
from virtex.data.shards.index import index_shards
from virtex.data.shards.index_options import IndexConfig
from virtex.data.shards.remote import train_paths, val_paths
from virtex.data.shards.remote_visit import VisitedShards, visited
from virtex.data.source import Split, open_source, resolved
from virtex.data.validation import check_disjoint, check_validation
from virtex.errors import ConfigError, DataError, VirTexError, one_line
from virtex.options.sizes import bytes_of
from virtex.pack.pack_folder import LEFT_OUT, PackFolder, ShardCounts
from virtex.pack.pack_options import SHARD_SIZE, PackConfig
from virtex.pack.packer import PackedPiece, Packer, packed_pieces
from virtex.pack.shard_groups import GROUP, ShardGroups
from virtex.pack.shard_plan import PACKING_STREAM, Piece, ShardPlan
from virtex.processes import OPTION, Requested
from virtex.progress import ProgressBar

SAMPLE = 128
"""Examples whose mean size says how many fit into a shard of so many bytes."""
MAX_PROCESSES = 1024

log = logging.getLogger("virtex")


@dataclass
class Packed:
    """What a call packed, and what was there before it."""

    shards: dict[Split, dict[int, ShardCounts]] = field(default_factory=dict)
    num_packed: int = 0
    """Examples packed by this call."""
    seconds: float = 0.0
    """Time that it took to pack them."""

    def __str__(self) -> str:
        counts = [one for shards in self.shards.values() for one in shards.values()]
        num_examples = sum(one.num_examples for one in counts)
        num_bytes, before = (
            sum(getattr(one, name) for one in counts) for name in ("num_bytes", "num_source_bytes")
        )
        ratio = f" ({num_bytes / before:.2f} of the images' {_shown(before)})" if before else ""
        num_bad = sum(len(one.left_out) for one in counts)
        bad = f"; {num_bad:,} could not be read, see {LEFT_OUT}" if num_bad else ""
        speed = f"{self.num_packed / max(self.seconds, 1e-9):,.0f} images/s"
        return (
            f"packed {num_examples:,} examples in {len(counts):,} "
            f"shard{'s' * (len(counts) != 1)}, {_shown(num_bytes)}{ratio}{bad}; "
            + (speed if self.num_packed else "all were there already")
        )


def pack(config: PackConfig, *, processes: Requested = "auto") -> Packed:
    """Pack the images and annotations of a source, and return what the folder then holds.

    Each split's shards have a manifest, as `virtex index` writes it.

    Args:
        processes: Number of processes that read and encode images; auto: one per physical core.

    Raises:
        ConfigError: The options cannot work, the folder was begun with others or is in use, or
            several processes were started.
        DataError: The data cannot be used, too many images are bad, or the disk is full.
    """
    num_processes = _checked(processes)
    config = replace(config, data=resolved(config.data, config.needs))
    _check_beside(config)
    with visited(config.data, at_once=2 * GROUP, in_order=False) as remote:
        return _pack(config, remote, num_processes)


def _pack(config: PackConfig, remote: VisitedShards | None, num_processes: int) -> Packed:
    """Pack by resolved options, while shards at URLs can be read."""
    sources = _open(config, remote)
    folder, packed = PackFolder(config.out), Packed()
    with folder.opened(config.settings()):
        jobs = [
            _SplitJob(
                config, folder, split, source,
                _Remote(remote, _groups(config, split, source, remote)),
            )
            for split, source in sources.items()
        ]  # fmt: skip
        for job in jobs:
            packed.shards[job.split] = job.counts
        try:
            for job in jobs:
                job.run(packed, num_processes)
        except BaseException:
            with suppress(VirTexError):  # a full disk is said once
                folder.write_left_out(packed.shards)
            raise
        folder.write_left_out(packed.shards)
        for job in jobs:
            job.write_manifest(num_processes)
    return packed


class _SplitJob:
    """The shards of one split, some of which may be finished."""

    def __init__(
        self,
        config: PackConfig,
        folder: PackFolder,
        split: Split,
        source: Source,
        remote: "_Remote",
    ) -> None:
        self.config, self.folder, self.split, self.remote = config, folder, split, remote
        data = fingerprint(source, config.needs)
        if remote.groups is not None:  # else the same data would go on in another order
            data["shards shuffled together"] = GROUP
        if source.caption_keys:  # earlier versions packed the captions without them
            data["caption keys sha256"] = sha256_of_strings(source.caption_keys)
        num_shards = folder.num_shards(split, data)
        if num_shards is None:
            num_shards = _num_shards(config, source, remote.groups)
            folder.begin(split, data, num_shards=num_shards)
        self.plan = ShardPlan(len(source), num_shards, config.seed, remote.groups)
        self.packer = _packer(config, source, self.plan)
        self.counts = folder.finished(split, self.plan)

    def run(self, packed: Packed, num_processes: int) -> None:
        """Write the missing shards."""
        missing = [shard for shard in range(self.plan.num_shards) if shard not in self.counts]
        self._check_bad()
        total = self.plan.num_examples
        done = total - sum(self.plan.size(shard) for shard in missing)
        pieces = packed_pieces(self.packer, self.plan.pieces(missing), num_processes=num_processes)
        with closing(pieces), ProgressBar(f"pack {self.split}", total, start=done) as bar:
            for shard in missing:
                start = time.monotonic()
                self.remote.lead(self.plan, shard)
                self._write(shard, pieces, bar)
                packed.num_packed += self.counts[shard].num_examples
                packed.seconds += time.monotonic() - start

    def write_manifest(self, num_processes: int) -> None:
        """Write the manifest of the shards, which is `.virtex-manifest` beside them."""
        root = str(self.folder.out / self.split)
        config = IndexConfig(
            root,
            with_captions=self.config.needs.captions,
            caption_keys=self.packer.source.caption_keys,
        )
        index_shards(config, processes=min(num_processes, self.plan.num_shards))

    def _write(self, shard: int, pieces: Generator[PackedPiece], bar: ProgressBar) -> None:
        """Write one shard of the next pieces."""
        name = self.plan.name(shard)
        counts = self.counts[shard] = ShardCounts()
        with (
            files.replacing(self.folder.shard_path(self.split, name)) as temporary,
            temporary.open("wb") as file,
        ):
            for piece in self.plan.pieces([shard]):
                packed = next(pieces)
                counts.add(packed)
                self._report(packed, bar)
                file.write(packed.tar)
                bar.advance(piece.stop - piece.start)
            end = tar_end(counts.num_bytes)
            file.write(end)
            counts.num_bytes += len(end)
            self.folder.write_counts(self.split, name, counts)

    def _report(self, packed: PackedPiece, bar: ProgressBar) -> None:
        """Log the bad images of a piece, and raise a DataError if there are too many."""
        if packed.left_out:
            with bar.paused():
                for one in packed.left_out:
                    log.warning("left out: bad image %s: %s", one_line(one.location), one.reason)
            self._check_bad()

    def _check_bad(self) -> None:
        total, limit = self.plan.num_examples, self.config.bad_image_limit
        num_bad = sum(len(counts.left_out) for counts in self.counts.values())
        if num_bad > limit * total:
            raise DataError(
                f"{num_bad:,} of {total:,} {self.split} images cannot be read, more than the "
                f"{limit:.2%} that bad_image_limit allows; {self.folder.out / LEFT_OUT} lists "
                "them. The finished shards are kept. Mend or remove these images, or raise "
                "--bad_image_limit and give the same command again."
            )


def _checked(processes: Requested) -> int:
    """Return the number of processes; a ConfigError says that it cannot work."""
    if (number := distributed.num_started()) > 1:
        raise ConfigError(
            f"{number} processes were started, and each would pack all images. Start one without "
            f"torchrun or srun; {OPTION} says how many share the work."
        )
    if processes == "auto":
        return num_cores()
    if processes > MAX_PROCESSES:
        raise ConfigError(f"{OPTION} {processes} is too many: give at most {MAX_PROCESSES}.")
    return processes


def _check_beside(config: PackConfig) -> None:
    """Check that the new shards do not become part of the shards that are packed."""
    roots = (config.data.root, config.data.val_root)
    for root in roots if config.data.source == "webdataset" else ():
        if root is not None and root.resolve() in config.out.resolve().parents:
            raise ConfigError(
                f"{config.out} lies in {root}, whose .tar files at any depth are one data set. "
                "Name a folder beside it with --out."
            )


class _Remote(NamedTuple):
    """The shards at URLs that a split needs, if it has any."""

    shards: VisitedShards | None
    groups: ShardGroups | None

    def lead(self, plan: ShardPlan, shard: int) -> None:
        """Fetch ahead of a shard of the plan."""
        if self.shards is not None and self.groups is not None:
            self.shards.lead(plan, shard)


def _groups(
    config: PackConfig, split: Split, source: Source, remote: VisitedShards | None
) -> ShardGroups | None:
    """Return the groups in which the shards of a store are packed; None for other sources."""
    if remote is None or source.shard_counts is None:
        return None
    paths = train_paths(config.data) if split == "train" else val_paths(config.data)
    places = remote.places(list(paths))
    if not any(places):
        return None
    counts = np.concatenate(source.shard_counts.counts)
    return ShardGroups(counts, places, (config.seed, PACKING_STREAM))


def _open(config: PackConfig, remote: VisitedShards | None) -> dict[Split, Source]:
    """Return the source of each split that there is."""
    sources: dict[Split, Source] = {}
    for split in config.splits:
        source = open_source(config.data, split=split, needs=config.needs, remote=remote)
        if source is not None:
            sources[split] = source
        elif config.split == "val":
            raise ConfigError(
                "there are no validation images. Name them with --data.val_split, --data.val_root "
                "or --data.val_share, or leave --split val out."
            )
    if len(sources) > 1:
        check_validation(config.data)
        check_disjoint(sources["train"], sources["val"])
        if sources["train"].categories:  # a label is packed as its number
            check_same_classes(sources["train"], sources["val"])
    return sources


def _num_shards(config: PackConfig, source: Source, groups: ShardGroups | None) -> int:
    """Return the number of shards that holds all examples in shards of the size in the options."""
    size = config.shard_size or SHARD_SIZE
    if config.shard_bytes is not None:
        number = min(SAMPLE, len(source))
        plan = ShardPlan(len(source), 1, config.seed, groups)
        sample = _packer(config, source, plan)[Piece(0, 0, number)]
        if sample.error is not None:
            raise sample.error
        mean = len(sample.tar) / max(1, sample.num_examples)
        size = max(1, int(bytes_of(config.shard_bytes) / max(1.0, mean)))
    return -(-len(source) // size)


def _packer(config: PackConfig, source: Source, plan: ShardPlan) -> Packer:
    return Packer(source, plan, short_side=config.short_side, quality=config.quality)


def _shown(num_bytes: int) -> str:
    """Return a number of bytes in GB, MB or kB."""
    for unit, size in (("GB", 10**9), ("MB", 10**6)):
        if num_bytes >= size:
            return f"{num_bytes / size:,.1f} {unit}"
    return f"{num_bytes / 1000:,.1f} kB"
