"""The shards of a run that lie at URLs: which of its manifests, the node's cache, and its filler.

A process that trains has one filler for all of its manifests. It is told each step, so that it is
ahead of the loader's workers.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from virtex.data.lanes import LaneOrder
from virtex.data.shards.cache_size import open_cache
from virtex.data.shards.filler import MARGIN, Filler, Order, needed_at_once, num_used
from virtex.data.shards.manifest import Manifest, SourceShard, has_manifest, is_url
from virtex.data.shards.store import open_store
from virtex.data.source_options import SourceConfig
from virtex.distributed import Share


class RemoteShards:
    """Local paths of the shards of a run's manifests at URLs.

    Args:
        filler: It has these manifests as its sources, in their order.
        folders: Folders of the manifests, in the same order.
        order: This process's training order, with the filler's numbers of its sources.
    """

    has_own_records = False
    """Whether ids are read from the manifest's records, where it has them, without the shard."""

    def __init__(self, filler: Filler, folders: Sequence[Path], order: Order) -> None:
        self.filler, self.order = filler, order
        self._sources = {folder: number for number, folder in enumerate(folders)}

    def number(self, folder: Path | None) -> int | None:
        """Return the filler's number of a manifest by its folder; None for a local one."""
        return None if folder is None else self._sources.get(folder)

    def locate(self, manifest: Manifest) -> Callable[[int], Path]:
        """Return the function that gives the path of a manifest's shard."""
        number = self.number(manifest.folder)
        assert number is not None
        return self.filler.locate(number)

    def first_shard(self, manifest: Manifest) -> int:
        """Return the shard of a manifest that this process needs first."""
        assert manifest.folder is not None
        number = self._sources[manifest.folder]
        needed = self.order.shards_needed(0, MARGIN)
        kept = manifest.num_kept.astype(bool).argmax()
        return next((one.shard for one in needed if one.source == number), int(kept))

    def follow(self, step: int) -> None:
        """Fetch ahead of training from a step on."""
        self.filler.follow(self.order, step)

    def advance(self, step: int) -> None:
        """Fetch ahead of the next step."""
        self.filler.advance(step)

    def close(self) -> None:
        """End the filler."""
        self.filler.close()


def open_remote(
    config: SourceConfig, *, seed: int, batch_size: int, share: Share, num_on_node: int
) -> RemoteShards | None:
    """Return the shards at URLs that the options name; None if there are none.

    Args:
        num_on_node: Number of processes that share this node's cache.

    Raises:
        ConfigError: The cache cannot be used, or is too small for the shards in use; or a store
            cannot be reached by its URL and the environment.
        DataError: A manifest is damaged, or has fewer examples than there are lanes.
    """
    if config.source != "webdataset":
        return None
    train = [Manifest.read(path) for path in train_paths(config)]
    every = [*train, *(Manifest.read(path) for path in val_paths(config))]
    remote = [one for one in every if is_url(one.root)]
    if not remote:
        return None
    for root in dict.fromkeys(one.root for one in remote):
        open_store(root)  # connects to nothing: the filler does, which starts later
    numbers = {at: remote.index(one) for at, one in enumerate(train) if one in remote}
    order_of = partial(
        LaneOrder,
        [one.num_kept for one in train],
        seed=seed,
        batch_size=batch_size,
        num_lanes=config.num_lanes,
        weights=[*config.mix.values()] or None,
    )
    orders = {
        rank: _RemoteOrder(order_of(share=Share(rank, share.world_size)), numbers)
        for rank in _ranks_on_node(share, num_on_node)
    }
    ordered = [remote[at] for at in sorted({*numbers.values()})]  # not those of validation
    cache = open_cache(
        config.cache_dir,
        config.cache_size,
        remote,
        needed=needed_at_once(orders.values(), 0, ordered),
        is_main=share.rank == 0,
    )
    filler = Filler(cache, remote, num_retries=config.store_retries, num_ordered=num_used(ordered))
    folders = [one.folder for one in remote if one.folder is not None]
    return RemoteShards(filler, folders, orders[share.rank])


def _ranks_on_node(share: Share, num_on_node: int) -> range:
    """Return the ranks of the processes that share this process's node."""
    first = share.rank - share.rank % num_on_node
    return range(first, min(first + num_on_node, share.world_size))


@dataclass(frozen=True)
class _RemoteOrder:
    """A training order that leaves out the shards of local sources."""

    order: LaneOrder
    numbers: Mapping[int, int]
    """The filler's number of each source at a URL, by its number in the order."""

    def shards_needed(self, first_step: int, num_steps: int) -> list[SourceShard]:
        """Return the shards of some steps in order of first use."""
        return [
            SourceShard(self.numbers[source], shard)
            for source, shard in self.order.shards_needed(first_step, num_steps)
            if source in self.numbers
        ]


def train_paths(config: SourceConfig) -> Iterable[Path]:
    """Return the training data's manifests."""
    if config.mix:
        return map(Path, config.mix)
    return _manifests(config.root)


def val_paths(config: SourceConfig) -> Iterable[Path]:
    """Return the validation data's manifests."""
    return _manifests(config.val_root)


def _manifests(root: Path | None) -> list[Path]:
    return [root] if root is not None and has_manifest(root) else []
