"""Attention bias: the part of an attention map that depends on neither the image nor the word.

python -m benchmarks.attention_bias --init RUN --root COCO

Maps are means over layers and heads, for the first human caption of each image. Two KL divergences
are in nats: between an image's mean map and that of all images, and between a word's map and its
image's mean map. Training mirrors images at random, so a preference for one side that remains for
mirrored images comes from the network.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

import virtex
from virtex.data.images import decode_image
from virtex.data.source import SourceConfig, open_source
from virtex.errors import ConfigError
from virtex.models.packing import Direction
from virtex.predict.attention import Weights
from virtex.predict.predictor import Predictor


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--init", required=True, help="a run folder or a weights file")
    parser.add_argument("--root", type=Path, required=True, help="COCO layout, with captions")
    parser.add_argument(
        "--num_images", type=int, default=300, help="number of val images, evenly spaced"
    )
    options = parser.parse_args()
    predictor = virtex.load_captioner(options.init)
    source = open_source(SourceConfig(source="coco", root=options.root), split="val")
    if source is None:
        parser.error(f"{options.root} has no val split")
    indices = np.linspace(0, len(source) - 1, min(options.num_images, len(source))).astype(int)
    examples = [source[int(index)] for index in indices]
    images = [Image.fromarray(decode_image(one.image, name=one.location)) for one in examples]
    texts = [example.captions[0] for example in examples]
    for direction in predictor.captioner.head.directions:
        report(predictor, images, texts, direction)


def report(
    predictor: Predictor, images: Sequence[Image.Image], texts: Sequence[str], direction: Direction
) -> None:
    """Print the usual (mean) map, its bias, and the divergences of images and words."""
    maps = word_maps(predictor, images, texts, direction)
    image_maps = np.stack([one.mean(0) for one in maps])  # (B, h, w)
    usual = image_maps.mean(0)  # (h, w)
    width = usual.shape[1]
    if usual.size == 1:
        raise ConfigError(
            "the model's grid has one cell, whose attention is always 1: there is no map to "
            "describe. Take a model of larger images, or of a finer grid."
        )
    print(f"\n{direction}, {len(images)} images: the usual map, as multiples of a uniform one")
    print("\n".join("  " + " ".join(f"{cell:5.2f}" for cell in row) for row in usual * usual.size))
    halves = usual[:, : width // 2].sum(), usual[:, width - width // 2 :].sum()
    print(f"left half {halves[0]:.1%}, right half {halves[1]:.1%}")
    center = center_of(usual)
    print(f"central cells {center.sum():.1%} of attention, {center.size / usual.size:.1%} of cells")
    print(f"entropy of the usual map {entropy(usual) / np.log(usual.size):.3f} of a uniform one's")
    word_adds = np.mean([divergence(one, one.mean(0)).mean() for one in maps])
    print(f"KL: images {divergence(image_maps, usual).mean():.3f}, words {word_adds:.3f}")
    mirrored = word_maps(predictor, [ImageOps.mirror(image) for image in images], texts, direction)
    other = np.stack([one.mean(0) for one in mirrored]).mean(0)
    print(f"correlation with the usual map of mirrored images {correlation(usual, other):.3f}")
    print(f"correlation with its own mirror image {correlation(usual, usual[:, ::-1]):.3f}")


def center_of(usual: Weights) -> Weights:
    """Return a map (h, w) without a third of its rows and columns, rounded down, on each side."""
    height, width = usual.shape
    top, left = height // 3, width // 3
    return usual[top : height - top, left : width - left]


def word_maps(
    predictor: Predictor, images: Sequence[Image.Image], texts: Sequence[str], direction: Direction
) -> list[Weights]:
    """Return the maps (W, h, w) of each caption with words."""
    attentions = predictor.attend(list(images), texts, direction=direction)
    return [attention.maps() for attention in attentions if attention.words]


def divergence(maps: Weights, usual: Weights) -> Weights:
    """Return the KL divergence (B,) in nats of maps (B, h, w) from another one."""
    ratios = np.divide(maps, usual, out=np.ones_like(maps), where=maps > 0)
    return (maps * np.log(ratios)).sum((1, 2))


def entropy(one: Weights) -> float:
    return float(-(one * np.log(one, out=np.zeros_like(one), where=one > 0)).sum())


def correlation(one: Weights, other: Weights) -> float:
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


if __name__ == "__main__":
    main()
