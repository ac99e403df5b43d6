"""What web scale costs: the order of a step, and reading shards by a manifest.

    python benchmarks/web_scale.py                         # all parts
    python benchmarks/web_scale.py --parts order,read

start: a process from a manifest of 12 M made-up pairs (1,200 shards, every hundredth example left
    out) to the order of its first batch: seconds and memory, beside those of importing the package.
order: the lane order of one step for 400 M examples, from counts alone (40,000 shards of 10,000).
read: images per second of the loader on local shards, from a manifest and from their folder, which
    alternate in one process with one thread; the best round of each counts, in processor time.
index: examples per second of `virtex index` on a folder of small examples, by one process and by
    two in turn (wall time of the command), and the cost of a vocabulary of 10,000 on its sample.
"""

import argparse
import hashlib
import io
import json
import subprocess
import sys
import tarfile
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from virtex.data.example import Example, Source
from virtex.data.lanes import LaneOrder
from virtex.data.loader import Batch, Encoded, LoaderConfig, training_batches
from virtex.data.shard_files import sample_files
from virtex.data.shards.manifest import Manifest, Shard
from virtex.data.shards.records import Records, write_records
from virtex.data.sources.shards import ShardedSource
from virtex.data.sources.webdataset import WebdatasetSource
from virtex.data.transforms import ImageConfig, TrainTransform
from virtex.distributed import Share

Row = tuple[str, str]
Part = Callable[[argparse.Namespace], Iterator[Row]]


def main() -> None:
    """Measure the parts and print one table."""
    options = parse_options()
    torch.set_num_threads(1)
    print("| measured | result |\n|---|---|")
    for name in options.parts.split(","):
        for what, result in PARTS[name](options):
            print(f"| {what} | {result} |", flush=True)


def parse_options() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", default=",".join(PARTS), help="names, with commas between")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of read and index")
    parser.add_argument("--images", type=int, default=2000, help="images of read")
    parser.add_argument("--examples", type=int, default=20_000, help="examples of index")
    return parser.parse_args()


def start(options: argparse.Namespace) -> Iterator[Row]:
    """Measure the start of a process on a manifest of 12 M pairs."""
    del options
    with tempfile.TemporaryDirectory() as folder:
        write_large_manifest(Path(folder))
        found = json.loads(_python("-c", START, folder))
    yield "start on 12 M pairs", f"{found['seconds']:.2f} s and {found['bytes'] / 1e6:.0f} MB"
    yield (
        "the same, with importing the package",
        f"{found['whole_seconds']:.1f} s and {found['peak_bytes'] / 1e6:.0f} MB at most",
    )


START = """
import json, resource, sys, time
begin = time.perf_counter()
from pathlib import Path
import virtex.pretrain
from virtex.data.lanes import LaneOrder
from virtex.data.shards.manifest import Manifest
from virtex.data.sources.shards import ShardedSource

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

before, middle = resident(), time.perf_counter()
source = ShardedSource(Manifest.read(Path(sys.argv[1])), locate=lambda shard: Path())
order = LaneOrder(source.shard_counts.counts, seed=0, batch_size=4096)
assert len(order.samples(0)) == 4096
end = time.perf_counter()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"seconds": end - middle, "bytes": resident() - before,
                  "whole_seconds": end - begin, "peak_bytes": peak}))
"""
"""What a process does before its first batch, and what that takes."""


def write_large_manifest(folder: Path) -> None:
    """Write the manifest of 1,200 made-up shards of 10,000 examples at a URL."""
    kept = np.arange(10_000) % 100 > 0
    shards = [
        Shard(f"{number:05}.tar", 340_000_000, f'"{number:032x}"', f"{number:064x}", 10_000, 9900)
        for number in range(1200)
    ]
    Manifest.of("s3://bucket/made-up", shards, kept=[kept] * len(shards)).write(folder)


def order(options: argparse.Namespace) -> Iterator[Row]:
    """Measure the order of a step of 400 M examples."""
    del options
    counts = np.full(40_000, 10_000)
    for batch_size, world_size in ((256, 1), (1024, 1), (4096, 1), (4096, 64)):
        made = LaneOrder(counts, seed=0, batch_size=batch_size, share=Share(0, world_size))
        steps = np.random.default_rng(0).integers(0, 400_000_000 // batch_size, 50).tolist()
        warm, cold = [], []
        for epoch, step in enumerate(steps):
            first = (epoch % 5) * 400_000_000 // batch_size + step
            cold.append(_seconds(partial(made.samples, first)))
            warm.append(_seconds(partial(made.samples, first + 1)))
        what = f"order of a step, batch {batch_size:,} on {world_size} processes"
        yield what, f"{np.median(warm) * 1e3:.2f} ms, {np.median(cold) * 1e3:.2f} ms in a new epoch"
    tracemalloc.start()
    LaneOrder(np.full(40_000, 10_000), seed=0, batch_size=4096).samples(10**6)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    yield "memory of the order of 400 M examples", f"{peak / 1e6:.1f} MB"
    made = LaneOrder(counts, seed=0, batch_size=4096, share=Share(0, 8))
    seconds = _seconds(lambda: made.shards_needed(12_345, 1000))
    yield "shards that 1,000 steps of an eighth need", f"{seconds * 1e3:.2f} ms"


def read(options: argparse.Namespace) -> Iterator[Row]:
    """Compare the loader on a manifest with that on a folder of the same shards."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_shards(root, num_images=options.images)
        sources = {"folder": WebdatasetSource(root), "manifest": open_manifest(root)}
        for what, encode, num_images in (
            ("bytes and captions alone", read_only, 40 * options.images),
            ("images of 224, decoded and augmented", Augmented(), options.images),
        ):
            rates: dict[str, list[float]] = {name: [] for name in sources}
            for _ in range(options.rounds):
                for name, source in sources.items():
                    seconds = _loading_seconds(source, encode, num_images)
                    rates[name].append(num_images / seconds)
            best = {name: max(found) for name, found in rates.items()}
            yield (
                f"local shards, {what}",
                f"folder {best['folder']:,.0f}/s, manifest {best['manifest']:,.0f}/s: "
                f"{best['manifest'] / best['folder']:.2f}",
            )


def index(options: argparse.Namespace) -> Iterator[Row]:
    """Compare indexing by one and by two processes, and measure the vocabulary of the result."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_small_shards(root / "shards", num_examples=options.examples)
        seconds: dict[int, list[float]] = {1: [], 2: []}
        for number in range(options.rounds):
            for processes, found in seconds.items():
                command = ["-m", "virtex.cli", "index", root / "shards"]
                command += ["--out", root / f"{processes}-{number}", "--processes", processes]
                found.append(_seconds(partial(_python, *command)))
        for processes, found in seconds.items():
            rates = [options.examples / each for each in (np.median(found), min(found))]
            yield (
                f"index of {options.examples:,} small examples, {processes} processes",
                f"{rates[0]:,.0f}/s in the median, {rates[1]:,.0f}/s at best",
            )
        command = ["-m", "virtex.cli", "index", root / "shards", "--out", root / "1-0"]
        again = _seconds(partial(_python, *command))
        yield "the same again, which reads no shard", f"{again:.1f} s"
        cost = json.loads(_python("-c", VOCABULARY, root / "1-0", root / "a.model"))
    yield (
        f"vocabulary of 10,000 on {options.examples:,} captions",
        f"{cost['seconds']:.1f} s and {cost['bytes'] / 1e6:.0f} MB at most, "
        f"{cost['before'] / 1e6:.0f} MB of them before",
    )


def _python(*arguments: object) -> str:
    """Run Python, and return what it prints."""
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


VOCABULARY = """
import json, resource, sys, time
from pathlib import Path
from virtex.data.source import SourceConfig
from virtex.vocabulary import TrainTokenizerConfig, write_tokenizer

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

before, begin = peak(), time.perf_counter()
data = SourceConfig(source="webdataset", root=Path(sys.argv[1]))
write_tokenizer(TrainTokenizerConfig(out=Path(sys.argv[2]), data=data))
print(json.dumps({"seconds": time.perf_counter() - begin, "bytes": peak(), "before": before}))
"""
"""Trains the vocabulary of a manifest."""


PARTS: dict[str, Part] = {"start": start, "order": order, "read": read, "index": index}


def write_small_shards(root: Path, *, num_examples: int, per_shard: int = 2500) -> None:
    """Write shards of 4 kB images with captions of made-up words of Zipf's frequencies."""
    rng = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = ["".join(rng.choice(letters, rng.integers(2, 10))) for _ in range(20_000)]
    image = b"\xff\xd8\xff" + rng.bytes(4000)
    root.mkdir()
    for first in range(0, num_examples, per_shard):
        with (root / f"{first // per_shard:05}.tar").open("wb") as file:
            for key in range(first, min(first + per_shard, num_examples)):
                places = np.exp(rng.random(11) * np.log(len(words))).astype(int)
                captions = [" ".join(words[place] for place in places)]
                file.write(
                    sample_files(
                        f"{key:09}", image, suffix=".jpg", captions=captions, metadata={"width": 64}
                    )
                )
            file.write(bytes(1024))


def write_shards(root: Path, *, num_images: int, per_shard: int = 250) -> None:
    """Write shards of drawn images as img2dataset does: JPEG, captions and metadata."""
    rng = np.random.default_rng(0)
    images = [_jpeg(rng) for _ in range(50)]
    for first in range(0, num_images, per_shard):
        with tarfile.open(root / f"{first // per_shard:05}.tar", "w") as tar:
            for key in range(first, first + per_shard):
                caption = f"a drawn image, the number {key} of many"
                files = {"jpg": images[key % 50], "txt": caption.encode()}
                files["json"] = f'{{"caption": "{caption}", "width": 384}}'.encode()
                for suffix, content in files.items():
                    member = tarfile.TarInfo(f"{key:09}.{suffix}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))


def open_manifest(root: Path) -> ShardedSource:
    """Write the manifest of a folder of shards and open it."""
    shards, out = [], root / ".virtex-manifest"
    for path in sorted(root.glob("*.tar")):
        records = out / "records" / f"{path.name}.safetensors"
        write_records(path, records)
        count = len(Records(records))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        shards.append(Shard(path.name, path.stat().st_size, "", digest, count, count))
    Manifest.of(root, shards, records_place="records").write(out)
    return ShardedSource(Manifest.read(out))


def _jpeg(rng: np.random.Generator) -> bytes:
    coarse = rng.integers(0, 255, (24, 32, 3), np.uint8)
    image = Image.fromarray(coarse).resize((512, 384), Image.Resampling.BICUBIC)
    content = io.BytesIO()
    image.save(content, "JPEG", quality=90)
    return content.getvalue()


def read_only(example: Example, rng: np.random.Generator) -> Encoded:
    """Return the size of an example, without decoding it."""
    del rng
    assert isinstance(example.image, bytes)
    return {"size": torch.tensor(len(example.image) + len(example.captions[0]))}


class Augmented:
    """Encoder of an example as in pretraining, without its tokens."""

    def __init__(self) -> None:
        self.transform = TrainTransform(ImageConfig())

    def __call__(self, example: Example, rng: np.random.Generator) -> Encoded:
        return {"image": self.transform(example, example.captions[0], rng)[0]}


def collate(encoded: Sequence[Encoded]) -> Batch:
    """Stack what the encoders return."""
    return {name: torch.stack([item[name] for item in encoded]) for name in encoded[0]}


def _loading_seconds(
    source: Source, encode: Callable[[Example, np.random.Generator], Encoded], num_images: int
) -> float:
    config = LoaderConfig(num_workers=0)
    batches = training_batches(source, encode, collate, seed=0, batch_size=64, config=config)
    next(batches)
    start = time.process_time()
    for _ in islice(batches, num_images // 64):
        pass
    return time.process_time() - start


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
