"""What the shard cache costs: loading through it from a local store, and from disk; evictions.

    python benchmarks/web_scale_cache.py                                  # all parts
    python benchmarks/web_scale_cache.py --parts load --photos FOLDER     # *.jpg of the folder

load: images per second of the loader on shards of tiny JPEGs (64 px) and of photos, read from disk,
    through a cache that is filled meanwhile from a store on this machine (cold), and through the
    full cache (warm). They alternate; the best round of each counts, in wall time, or without
    workers (--workers 0) in processor time, which depends less on other work on the machine.
eviction: part of an epoch's shards that a cache has, by what it evicts.
"""

import argparse
import hashlib
import io
import random
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import count, islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from virtex.data.example import Example, Source
from virtex.data.loader import Batch, Encoded, LoaderConfig, validation_batches
from virtex.data.shards.cache import Entry, ShardCache, eviction_order
from virtex.data.shards.filler import Filler
from virtex.data.shards.manifest import Manifest, Shard
from virtex.data.shards.records import SUFFIX, Records, write_records
from virtex.data.transforms import ImageConfig, TrainTransform

PER_SHARD = 500
BATCH_SIZE = 64
BUCKET = "bucket"


def main() -> None:
    """Measure the parts and print one table."""
    options = parse_options()
    torch.set_num_threads(1)
    print("| measured | result |\n|---|---|")
    for name in options.parts.split(","):
        for what, result in {"load": load, "eviction": eviction}[name](options):
            print(f"| {what} | {result} |", flush=True)


def parse_options() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", default="load,eviction", help="names, with commas between")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of load")
    parser.add_argument("--shards", type=int, default=8, help="shards of load, 500 images each")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--photos", type=Path, help="folder of photos as *.jpg, at any depth")
    return parser.parse_args()


class Shards(Source):
    """Examples of shards by offset, as in training from a manifest."""

    def __init__(self, manifest: Manifest, locate: Callable[[int], Path]) -> None:
        self.manifest, self.locate = manifest, locate

    def __len__(self) -> int:
        return int(self.manifest.kept_starts[-1])

    def __getitem__(self, index: int) -> Example:  # type: ignore[override]
        shard = int(np.searchsorted(self.manifest.kept_starts, index, side="right")) - 1
        path = self.locate(shard)
        records = Records(path.with_name(path.name + SUFFIX))
        image = records.extents(index - int(self.manifest.kept_starts[shard])).image
        with path.open("rb", buffering=0) as file:
            file.seek(image.offset)
            return Example(str(index), file.read(image.size), captions=("a photo",))

    def identity(self) -> dict[str, str | int]:
        return {"source": "shards", "images": len(self)}


class ShardAfterShard:
    """The order in which the shards are read here."""

    def __init__(self, num_shards: int) -> None:
        self.num_shards = num_shards

    def shards_needed(self, first_step: int, num_steps: int) -> Sequence[tuple[int, int]]:
        """Return the shards of some steps."""
        first, last = (
            step * BATCH_SIZE // PER_SHARD for step in (first_step, first_step + num_steps)
        )
        return [(0, shard) for shard in range(first, min(last + 1, self.num_shards))]


class Encode:
    """Encoder of an example: the image of the network's size."""

    def __init__(self, size: int) -> None:
        self.transform = TrainTransform(ImageConfig(size=size))

    def __call__(self, example: Example, rng: np.random.Generator) -> Encoded:
        return {"image": self.transform(example, "", rng)[0]}


def collate(encoded: Sequence[Encoded]) -> Batch:
    """Return images (B, 3, H, W)."""
    return {"image": torch.stack([item["image"] for item in encoded])}


def load(options: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """Compare the loader on a cache with that on the same shards on disk."""
    sets = {"JPEGs of 64 px": (partial(tiny_jpegs, options.shards * PER_SHARD), 64)}
    if options.photos:
        sets["photos"] = (partial(photos, options.photos, options.shards * PER_SHARD), 224)
    for name, (images, size) in sets.items():
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            write_shards(root / "store", images())
            with served(root / "store") as url:
                rates = measure(root, url, size=size, options=options)
        disk = max(rates["disk"])
        for kind in ("cold", "warm"):
            best = max(rates[kind])
            yield (
                f"{name}, {kind} cache",
                f"{best:,.0f}/s, from disk {disk:,.0f}/s: {best / disk:.2f}",
            )


def measure(
    root: Path, url: str, *, size: int, options: argparse.Namespace
) -> dict[str, list[float]]:
    """Return images per second of each round from disk, and through a cold and a warm cache."""
    local, remote = (
        manifest_of(root / "store", str(root / "store")),
        manifest_of(root / "store", url),
    )
    on_disk = Shards(local, lambda shard: root / "store" / local.names[shard])
    rates: dict[str, list[float]] = {"disk": [], "cold": [], "warm": []}
    for number in range(options.rounds):
        cache = ShardCache(root / f"cache{number}", 10**12)
        rates["disk"].append(images_per_second(on_disk, size=size, options=options))
        for kind in ("cold", "warm"):
            with Filler(cache, [remote], margin=8) as filler:
                filler.follow(ShardAfterShard(len(remote)), 0)
                source = Shards(remote, filler.locate())
                source[0]  # the start of the filler, once a run
                rates[kind].append(
                    images_per_second(source, size=size, options=options, advance=filler.advance)
                )
    return rates


def images_per_second(
    source: Source,
    *,
    size: int,
    options: argparse.Namespace,
    advance: Callable[[int], None] = lambda step: None,
) -> float:
    """Load all examples, shard after shard."""
    config = LoaderConfig(num_workers=options.workers)
    encode = Encode(size)
    clock = time.perf_counter if options.workers else time.process_time
    start = clock()
    batches = validation_batches(source, encode, collate, batch_size=BATCH_SIZE, config=config)
    for step, _ in enumerate(batches):
        advance(step)
    return len(source) / (clock() - start)


def tiny_jpegs(count: int) -> Iterator[bytes]:
    """Yield drawn JPEGs of 64 px."""
    rng = np.random.default_rng(0)
    kinds = []
    for _ in range(50):
        coarse = Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8))
        content = io.BytesIO()
        coarse.resize((64, 64), Image.Resampling.BICUBIC).save(content, "JPEG", quality=90)
        kinds.append(content.getvalue())
    for number in range(count):
        yield kinds[number % len(kinds)]


def photos(folder: Path, count: int) -> Iterator[bytes]:
    """Yield the JPEG files of a folder, again from the first after the last."""
    paths = sorted(folder.rglob("*.jpg"))
    for number in range(count):
        yield paths[number % len(paths)].read_bytes()


def write_shards(folder: Path, images: Iterator[bytes]) -> None:
    """Write shards of PER_SHARD images, each with its records beside it."""
    folder.mkdir()
    for number in count():
        chosen = list(islice(images, PER_SHARD))
        if not chosen:
            return
        path = folder / f"{number:05}.tar"
        with tarfile.open(path, "w") as tar:
            for index, image in enumerate(chosen):
                key = number * PER_SHARD + index  # so that no two shards are the same
                for suffix, content in (("jpg", image), ("txt", f"image {key}".encode())):
                    member = tarfile.TarInfo(f"{key:09}.{suffix}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
        write_records(path, path.with_name(path.name + SUFFIX))


def manifest_of(folder: Path, root: str) -> Manifest:
    """Return the manifest of shards in a folder, as found at a root."""
    rows = []
    for path in sorted(folder.glob("*.tar")):
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        num_examples = len(Records(path.with_name(path.name + SUFFIX)))
        rows.append(Shard(path.name, path.stat().st_size, "", sha256, num_examples, num_examples))
    return Manifest.of(root, rows)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder by http from another process; yield its URL."""
    command = [sys.executable, "-m", "tests.data.shards.ranged_server", str(folder)]
    root = Path(__file__).parents[1]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield f"{server.stdout.readline().strip()}/{BUCKET}"
        finally:
            server.kill()


def eviction(options: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """Simulate epochs of 400 shards, 16 of which are in use."""
    del options
    for part in (0.25, 0.5, 0.75, 0.9):
        by_use = {
            what: hits(int(400 * part), order)
            for what, order in (("most", most_recent_first), ("least", least_recent_first))
        }
        yield (
            f"shards of an epoch in a cache of {part:.0%}",
            ", ".join(f"{found:.0%} by {what} recent use" for what, found in by_use.items()),
        )


Choice = Callable[[list[Entry], frozenset[str]], list[Entry]]


def most_recent_first(entries: list[Entry], own: frozenset[str]) -> list[Entry]:
    """Return shards as the cache evicts them."""
    return eviction_order(entries, own)


def least_recent_first(entries: list[Entry], own: frozenset[str]) -> list[Entry]:
    """Return shards as they were least recently used."""
    del own
    return sorted(entries, key=lambda entry: entry.used)


def hits(capacity: int, choice: Choice, *, num_shards: int = 400, num_in_use: int = 16) -> float:
    """Return the part of an epoch's shards that are in the cache, from the fourth epoch on."""
    generator = random.Random(0)
    epochs = [generator.sample(range(num_shards), num_shards) for _ in range(8)]
    row = [str(shard) for epoch in epochs for shard in epoch]
    own, used, found = frozenset(row), dict[str, int](), 0
    for at, shard in enumerate(row):
        found += at >= 4 * num_shards and shard in used
        if shard not in used and len(used) >= capacity:
            in_use = set(row[max(0, at - num_in_use) : at])
            free = [Entry(one, 1, False, when) for one, when in used.items() if one not in in_use]
            del used[choice(free, own)[0].digest]
        used[shard] = at
    return found / (4 * num_shards)


if __name__ == "__main__":
    main()
