"""The shards that the nodes train on, and how their store is served and reached."""

import os
import subprocess
import sys
from pathlib import Path

from tests.data.shards.ranged_server import BUCKET, RangedServer
from tests.data.sources.manifests import write_shards

ROOT = Path(__file__).parents[2]
NUM_SHARDS, SHARD_SIZE = 640, 10
AHEAD = 170
"""Steps for which two nodes have shards when their store goes away, at most: the 64 next ones, as
many again, and the shards that these end in."""
PORT = 9000


def make_shards(folder: Path) -> tuple[Path, Path]:
    """Write shards, index them over http, and return the store's folder and the manifest."""
    store, manifest = folder / "store", folder / "manifest"
    write_shards(store, [SHARD_SIZE] * NUM_SHARDS)
    command = [sys.executable, "-m", "virtex.cli", "index", f"s3://{BUCKET}"]
    with RangedServer(store) as server:
        environment = {**os.environ, **server.environment, "PYTHONPATH": str(ROOT / "src")}
        subprocess.run(
            [*command, "--out", str(manifest)], check=True, env=environment,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
    return store, manifest


def serve_command(store: Path, host: str) -> list[str]:
    """Return the command that serves a store, and prints its endpoint once it is ready."""
    return [
        sys.executable, "-m", "tests.data.shards.ranged_server", str(store), str(PORT), host,
    ]  # fmt: skip
