"""The size of the cache: what the user gave, or what is needed at once and half of the rest."""

import logging
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from virtex.data.shards.cache import ShardCache
from virtex.data.shards.fetch import RECORD_BYTES, RECORDS_BYTES
from virtex.data.shards.manifest import Manifest, SourceShard
from virtex.errors import ConfigError
from virtex.options.sizes import bytes_of

log = logging.getLogger("virtex")


def default_folder() -> Path:
    """Return ~/.cache/virtex/shards.

    Raises:
        ConfigError: This user has no home.
    """
    try:
        return Path.home() / ".cache" / "virtex" / "shards"
    except RuntimeError as error:
        raise ConfigError(
            "there is no home folder for the cache of shards. Name a folder by --data.cache_dir."
        ) from error


def num_bytes(manifests: Sequence[Manifest], shards: Iterable[tuple[int, int]]) -> int:
    """Return the bytes of shards, each given by its source and index, with their records."""
    total = 0
    for source, shard in set(map(tuple, shards)):
        manifest = manifests[source]
        records = RECORDS_BYTES + RECORD_BYTES * int(manifest.num_examples[shard])
        total += int(manifest.sizes[shard]) + records
    return total


def open_cache(
    folder: Path | None,
    size: str | None,
    manifests: Sequence[Manifest],
    *,
    needed: Iterable[SourceShard | tuple[int, int]],
    is_main: bool = True,
    remedy: str = ", or fewer lanes by --data.num_lanes",
) -> ShardCache:
    """Return the cache of this node; a line in the log says which size was chosen.

    Args:
        folder: That of the cache; None for the default.
        size: Most bytes, as the user gave them; None to choose.
        needed: Shards of the windows of all processes on this node.
        remedy: How the command that asks can need less, as the end of a sentence.

    Raises:
        ConfigError: The shards that are needed at once do not fit, or the folder cannot be used.
    """
    folder = (folder or default_folder()).absolute()
    cache = ShardCache(folder, 0)
    in_use = num_bytes(manifests, needed)
    everything = sum(
        num_bytes([one], ((0, index) for index in range(len(one)))) for one in manifests
    )
    room = _free_bytes(folder) + cache.num_bytes()
    if size is not None:
        cache.max_bytes = bytes_of(size)
        if cache.max_bytes < in_use:
            raise ConfigError(
                f"--data.cache_size {size} is too small: the shards that this node needs at once "
                f"have {in_use:,} bytes. Give at least {_gb(in_use)}{remedy}."
            )
        return cache
    if room < in_use:
        raise ConfigError(
            f"the disk of the cache {folder} has {room:,} bytes for it, and the shards that this "
            f"node needs at once have {in_use:,}. Choose a folder on a larger disk by "
            f"--data.cache_dir{remedy}."
        )
    cache.max_bytes = min(everything, in_use + (room - in_use) // 2)
    if is_main:
        log.info(
            "%-11s %s in %s, of which %s are needed at once (--data.cache_size, --data.cache_dir)",
            "cache", _gb(cache.max_bytes), folder, _gb(in_use),
        )  # fmt: skip
    return cache


def _free_bytes(folder: Path) -> int:
    """Return the free bytes of the disk that a folder is on, or will be."""
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise ConfigError(f"{folder} is a file. Name a folder by --data.cache_dir.")
    try:
        return shutil.disk_usage(folder).free
    except OSError as error:
        raise ConfigError(f"{folder} cannot be read: {error.strerror}.") from error


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f}GB" if size >= 1e8 else f"{-(-size // 1000):,}kB".replace(",", "")
