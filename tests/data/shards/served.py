"""Small shards with their manifest, for a store that tests serve."""

import hashlib
import random
from pathlib import Path

from tests.data.shards.ranged_server import RangedServer, etag_of
from tests.data.sources.layouts import jpeg, write_tar
from virtex.data.shards.manifest import Manifest, Shard

EXAMPLES = 3
"""Number of examples of each shard."""


def write_shards(folder: Path, count: int, *, num_bytes: int = 1000) -> list[Path]:
    """Write shards of at least `num_bytes`, each of other content."""
    paths = []
    for number in range(count):
        noise = random.Random(number).randbytes(num_bytes)
        files = {f"{n}.jpg": jpeg(number + n) for n in range(EXAMPLES)} | {"noise.bin": noise}
        paths.append(write_tar(folder / f"{number:03d}.tar", files))
    return paths


def shard_of(path: Path, *, etag: str | None = None) -> Shard:
    """Return what a manifest holds of a shard."""
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    own = etag_of(path) if etag is None else etag
    return Shard(path.name, path.stat().st_size, own, sha256, EXAMPLES, EXAMPLES)


def manifest_of(server: RangedServer) -> Manifest:
    """Return the manifest of the shards that a server has."""
    paths = sorted(server.folder.glob("*.tar"))
    return Manifest.of(server.url, [shard_of(path) for path in paths])


def digests(manifest: Manifest) -> list[str]:
    """Return the SHA-256 of each shard."""
    return [manifest.shard(index).sha256 for index in range(len(manifest))]
