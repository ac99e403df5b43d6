"""What packing at a short side costs in detail, and saves in bytes.

    python -m benchmarks.short_sides --root COCO [--num_images 60] [--size 224]

The same random crops are cut from an image and from its packed copy. Detail is the contrast between
neighboring pixels, of the second in relation to the first. A crop is enlarged if its box in the
packed image has fewer pixels than the network's input.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import Tensor

from virtex.data.example import Example
from virtex.data.images import open_image
from virtex.data.source import SourceConfig, open_source
from virtex.data.transforms import ImageConfig, random_box, random_crop
from virtex.pack.packed_image import pack_image

SHORT_SIDES = (224, 256, 288, 320, 384)
NUM_CROPS = 3
QUALITY = 90


def contrast(image: Tensor) -> float:
    """Return the mean absolute difference between neighboring pixels of an image (3, H, W)."""
    pixels = image.float()
    return sum(float(pixels.diff(dim=dim).abs().mean()) for dim in (1, 2))


def is_enlarged(example: Example, config: ImageConfig, seed: int) -> bool:
    """Return whether the box of a random crop has fewer pixels than the crop."""
    file = open_image(example.image, name=example.location)
    rng = np.random.default_rng(seed)
    box = random_box(file.height, file.width, rng, scale=config.scale, ratio=config.ratio)
    return box.height * box.width < config.size**2


def crop(example: Example, config: ImageConfig, seed: int) -> Tensor:
    return random_crop(example, config, np.random.default_rng(seed))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--num_images", type=int, default=60)
    parser.add_argument("--size", type=int, default=224)
    args = parser.parse_args()
    config = ImageConfig(size=args.size)
    source = open_source(SourceConfig(source="coco", root=args.root), split="train")
    assert source is not None
    examples = [source[index] for index in range(min(args.num_images, len(source)))]
    seeds = [
        (index, NUM_CROPS * index + number)
        for index in range(len(examples))
        for number in range(NUM_CROPS)
    ]
    originals = [contrast(crop(examples[index], config, seed)) for index, seed in seeds]
    print(f"{len(examples)} images, {NUM_CROPS} crops of {args.size} pixels each")
    print("| short side | detail of crops | bytes | crops enlarged |\n|---|---|---|---|")
    for short_side in SHORT_SIDES:
        packed = [pack_image(each, short_side=short_side, quality=QUALITY) for each in examples]
        copies = [replace(each, image=of.data) for each, of in zip(examples, packed, strict=True)]
        found = [contrast(crop(copies[index], config, seed)) for index, seed in seeds]
        enlarged = np.mean([is_enlarged(copies[index], config, seed) for index, seed in seeds])
        num_bytes = sum(len(of.data) for of in packed) / sum(of.num_source_bytes for of in packed)
        detail = np.mean(found) / np.mean(originals)
        print(f"| {short_side} | {detail:.2f} | {num_bytes:.2f} | {enlarged:.0%} |", flush=True)


if __name__ == "__main__":
    main()
