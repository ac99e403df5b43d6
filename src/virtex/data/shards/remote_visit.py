"""The shards at URLs of a command that reads a data set once: a check, packing, a vocabulary.

They come through the node's cache by a filler, as in training (see `filler`), a few shards ahead of
the reader, so that memory and disk are bounded whatever the size of the data.
"""

import contextlib
import heapq
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from virtex.data.packed import starts_of
from virtex.data.shards.cache_size import num_bytes, open_cache
from virtex.data.shards.filler import Filler, Locate, Order
from virtex.data.shards.filling import NUM_AT_ONCE
from virtex.data.shards.manifest import Manifest, SourceShard, is_url
from virtex.data.shards.remote import RemoteShards, train_paths, val_paths
from virtex.data.source_options import SourceConfig

AHEAD = 2 * NUM_AT_ONCE
"""Shards in use and ahead of a reader that goes through them in order."""


@contextlib.contextmanager
def visited(
    config: SourceConfig, *, at_once: int = AHEAD, in_order: bool = True
) -> Iterator["VisitedShards | None"]:
    """Yield the shards at URLs that the options name; None if there are none.

    Args:
        at_once: Shards that the cache must have room for.
        in_order: Fetch ahead of a reader that goes through the shards in their order; else what
            is requested, or what `VisitedShards.lead` tells.

    Raises:
        ConfigError: The cache cannot be used, or is too small for them.
        DataError: A manifest is damaged.
    """
    remote = _remote_manifests(config)
    if not remote:
        yield None
        return
    every = [SourceShard(at, n) for at, one in enumerate(remote) for n in range(len(one))]
    largest = heapq.nlargest(at_once, every, key=lambda one: num_bytes(remote, [one]))
    cache = open_cache(config.cache_dir, config.cache_size, remote, needed=largest, remedy="")
    with Filler(cache, remote, num_retries=config.store_retries, margin=1) as filler:
        yield VisitedShards(filler, remote, is_followed=in_order)


def _remote_manifests(config: SourceConfig) -> list[Manifest]:
    if config.source != "webdataset":
        return []
    every = (Manifest.read(path) for path in (*train_paths(config), *val_paths(config)))
    return [one for one in every if is_url(one.root)]


class VisitedShards(RemoteShards):
    """Local paths of shards at URLs, for one visit of each; see `visited`."""

    has_own_records = True

    def __init__(self, filler: Filler, manifests: Sequence[Manifest], *, is_followed: bool) -> None:
        folders = [one.folder for one in manifests if one.folder is not None]
        self.in_order, self.is_followed = InOrder.of(manifests), is_followed
        super().__init__(filler, folders, self.in_order)

    def locate(self, manifest: Manifest) -> "Following":
        """Return the function that gives the path of a manifest's shard."""
        number = self.number(manifest.folder)
        assert number is not None
        return Following(self, number, self.filler.locate(number))

    def step_to(self, place: SourceShard) -> None:
        """Fetch what comes behind a shard, unless a reader only looks back at it."""
        step = self.in_order.step(place)
        if self.is_followed and (step > self.in_order.at or not place.shard):
            self.in_order.at = step
            self.follow(step)

    def lead(self, order: Order, step: int) -> None:
        """Fetch ahead in an order from a step on."""
        self.order = order
        self.follow(step)

    def places(self, paths: Sequence[Path]) -> list[SourceShard | None]:
        """Return the filler's name of each shard of several manifests; None for a local one."""
        found: list[SourceShard | None] = []
        for manifest in map(Manifest.read, paths):
            number = self.number(manifest.folder)
            shards = range(len(manifest))
            found += [None if number is None else SourceShard(number, one) for one in shards]
        return found


@dataclass
class InOrder:
    """The order of the manifests, and in each that of its shards; a step is a shard."""

    shards: Sequence[SourceShard]
    starts: Sequence[int]
    """Steps before each source."""
    at: int = -1
    """The step that readers have reached."""

    @classmethod
    def of(cls, manifests: Sequence[Manifest]) -> "InOrder":
        """Return the order of some manifests."""
        every = [SourceShard(at, n) for at, one in enumerate(manifests) for n in range(len(one))]
        return cls(every, starts_of([len(one) for one in manifests]).tolist())

    def step(self, place: SourceShard) -> int:
        """Return the step of a shard."""
        return self.starts[place.source] + place.shard

    def shards_needed(self, first_step: int, num_steps: int) -> Sequence[SourceShard]:
        """Return the shards of some steps."""
        return self.shards[first_step : first_step + num_steps]


class Following:
    """The path of a shard, whose reader the filler follows in the process that owns it."""

    def __init__(self, remote: VisitedShards, number: int, located: Locate) -> None:
        self.remote: VisitedShards | None = remote
        self.number, self.located, self.owner = number, located, os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        """Leave the filler out: it belongs to one process."""
        return {**self.__dict__, "remote": None}

    def __call__(self, shard: int) -> Path:
        if self.remote is not None and os.getpid() == self.owner:
            self.remote.step_to(SourceShard(self.number, shard))
        return self.located(shard)
