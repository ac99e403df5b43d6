"""What packing saves: bytes, and the loader's images a second on shards against the files.

    python benchmarks/pack.py --root COCO [--short_side 256] [--num_images 1000]

The source is packed by one and by two processes. Then training batches of random crops are read
from the files and from the shards in alternation, by one thread of one process; processor time
counts.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from virtex.data.example import Example, Source
from virtex.data.loader import Encoded, LoaderConfig, training_batches
from virtex.data.source import SourceConfig, open_source
from virtex.data.transforms import ImageConfig, TrainTransform
from virtex.pack.pack import pack
from virtex.pack.pack_options import PackConfig

BATCH, ROUNDS = 50, 5


class Encode:
    """The image alone: captions cost the same in both."""

    def __init__(self, size: int) -> None:
        self.transform = TrainTransform(ImageConfig(size=size))

    def __call__(self, example: Example, rng: np.random.Generator) -> Encoded:
        return {"image": self.transform.augment(example, rng)[0]}


def collate(encoded: Sequence[Encoded]) -> Encoded:
    return {"image": torch.stack([item["image"] for item in encoded])}


def seconds_of(source: Source, *, num_images: int, size: int) -> float:
    """Return the processor time of reading some images in training batches."""
    batches = training_batches(
        source, Encode(size), collate, seed=0, batch_size=BATCH, config=LoaderConfig(num_workers=0)
    )
    next(batches)
    start = time.process_time()
    for _ in range(num_images // BATCH):
        next(batches)
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--short_side", type=int, default=256)
    parser.add_argument("--num_images", type=int, default=1000)
    parser.add_argument("--size", type=int, default=224)
    args = parser.parse_args()
    torch.set_num_threads(1)
    data = SourceConfig(source="coco", root=args.root)
    with tempfile.TemporaryDirectory() as folder:
        for number in (1, 2):
            out = Path(folder, str(number))
            config = PackConfig(out=out, data=data, split="train", short_side=args.short_side)
            print(f"{number} processes: {pack(config, processes=number)}", flush=True)
        files = open_source(data, split="train")
        shards = open_source(SourceConfig(source="webdataset", root=out), split="train")
        assert files is not None
        assert shards is not None
        times: dict[str, list[float]] = {"files": [], "shards": []}
        for _ in range(ROUNDS):
            for name, source in (("files", files), ("shards", shards)):
                seconds = seconds_of(source, num_images=args.num_images, size=args.size)
                times[name].append(seconds)
    for name, seconds in times.items():
        best, middle = (args.num_images / at for at in (min(seconds), float(np.median(seconds))))
        print(f"{name:7} {best:7.0f} images/s at best, {middle:.0f} in the median of {ROUNDS}")


if __name__ == "__main__":
    main()
