"""The pointing game: whether a word's attention, or relevance, has its maximum on its object.

python -m benchmarks.pointing --init RUN --root VOCdevkit

Zhang et al., "Top-down Neural Attention by Excitation Backprop", ECCV 2016, section 4.1, without
their tolerance of 15 pixels. A hit: the cell with a map's maximum has its center in a box of the
class within the central crop. Mass: the fraction of the map in such cells. Classes whose boxes
contain no cell center are left out.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import virtex
from virtex.data.example import Example
from virtex.data.images import open_image
from virtex.data.source import Needs, SourceConfig, open_source
from virtex.models.packing import Direction
from virtex.predict.attention import CaptionAttention, Weights, attention_bias
from virtex.predict.attention_figures import seen_part
from virtex.predict.predictor import Predictor

PEOPLE = "person people man men woman women boy boys girl girls child children lady player"
WORDS = {
    "aeroplane": "airplane plane jet",
    "bicycle": "bicycle bike",
    "bird": "bird birds",
    "boat": "boat boats",
    "bottle": "bottle",
    "bus": "bus",
    "car": "car cars",
    "cat": "cat",
    "chair": "chair chairs",
    "cow": "cow cows",
    "diningtable": "table",
    "dog": "dog dogs puppy",
    "horse": "horse horses",
    "motorbike": "motorcycle motorbike",
    "person": PEOPLE,
    "pottedplant": "plant",
    "sheep": "sheep",
    "sofa": "couch sofa",
    "train": "train",
    "tvmonitor": "television tv",
}
"""Words for VOC's classes in captions; given texts use the first."""
RELEVANCE = "relevance, both decoders"
SMALL = 0.25
"""Fraction of the image below which a class's boxes are small."""


@dataclass(frozen=True)
class Case:
    """A class in an image, and the maps that are tested on it."""

    inside: NDArray[np.bool_]
    """Mask (h, w) of the cells with their center in a box."""
    maps: dict[str, Weights]
    """Map (h, w) of each kind."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--init", required=True, help="a run folder or a weights file")
    parser.add_argument("--root", type=Path, required=True, help="VOCdevkit")
    parser.add_argument("--split", default="val")
    parser.add_argument(
        "--num_images", type=int, default=300, help="number of images, evenly spaced"
    )
    parser.add_argument(
        "--image_size", type=int, help="side of the network's input, by default that of training"
    )
    options = parser.parse_args()
    predictor = with_image_size(virtex.load_captioner(options.init), options.image_size)
    data = SourceConfig(source="voc", root=options.root, val_split=options.split)
    source = open_source(data, split="val", needs=Needs(objects=True))
    assert source is not None
    indices = np.linspace(0, len(source) - 1, min(options.num_images, len(source))).astype(int)
    examples = [source[int(index)] for index in indices]
    for direction in predictor.captioner.head.directions:
        report(
            f"{direction}: words of the model's own captions",
            list(captioned(predictor, examples, source.categories, direction)),
        )
        report(
            f"{direction}: a text that names the class",
            list(named(predictor, examples, source.categories, direction)),
        )


def with_image_size(predictor: Predictor, size: int | None) -> Predictor:
    """Return a predictor of images of another size, and so with maps of more or fewer cells."""
    image = predictor.image.with_size(size or predictor.image.size)
    return Predictor(predictor.captioner, predictor.tokenizer, image, device=predictor.device)


def captioned(
    predictor: Predictor,
    examples: Sequence[Example],
    categories: Sequence[str],
    direction: Direction,
) -> Iterator[Case]:
    """Yield each class that an image's generated caption names, with its first word."""
    images = [Path(one.location) for one in examples]
    captions = predictor.caption(images)
    attentions = predictor.attend(images, captions, direction=direction)
    relevances = predictor.relevance(images, captions)
    bias = attention_bias(attentions)
    for example, attention, relevance in zip(examples, attentions, relevances, strict=True):
        for label in sorted(set(example.box_labels)):
            called = WORDS[categories[label]].split()
            word = next((i for i, said in enumerate(attention.words) if said in called), None)
            if word is not None:
                inside = cells_inside(example, label, predictor, attention)
                maps = {**controls(bias), **views(attention, word, bias, "its word")}
                yield Case(inside, {**maps, RELEVANCE: relevance.maps[word]})


def named(
    predictor: Predictor,
    examples: Sequence[Example],
    categories: Sequence[str],
    direction: Direction,
) -> Iterator[Case]:
    """Yield each class in an image, with the maps of its name and of the next word of a text."""
    pairs = [(one, label) for one in examples for label in sorted(set(one.box_labels))]
    names = [WORDS[categories[label]].split()[0] for _, label in pairs]
    texts = [f"a {name} is" if direction == "forward" else f"a {name}" for name in names]
    after = 2 if direction == "forward" else 0
    images = [Path(example.location) for example, _ in pairs]
    attentions = predictor.attend(images, texts, direction=direction)
    relevances = predictor.relevance(images, [f"a {name}" for name in names])
    bias = attention_bias(attentions)
    for (example, label), attention, relevance in zip(pairs, attentions, relevances, strict=True):
        maps = controls(bias)
        maps |= views(attention, 1, bias, "its word")
        maps |= views(attention, after, bias, "the next word")
        maps[RELEVANCE] = relevance.maps[1]
        yield Case(cells_inside(example, label, predictor, attention), maps)


def controls(bias: Weights) -> dict[str, Weights]:
    """Return maps that do not depend on the image."""
    height, width = bias.shape[2:]
    center = np.zeros((height, width), np.float32)
    center[height // 2, width // 2] = 1
    usual = bias.mean((0, 1))
    return {"any cell": np.full_like(usual, 1 / usual.size), "center": center, "usual map": usual}


def views(attention: CaptionAttention, word: int, bias: Weights, name: str) -> dict[str, Weights]:
    """Return a word's map, and its ratio to the usual map."""
    ratio = attention.maps(bias=bias)[word]
    return {name: attention.maps()[word], f"{name}, by usual": ratio / ratio.sum()}


def cells_inside(
    example: Example, label: int, predictor: Predictor, attention: CaptionAttention
) -> NDArray[np.bool_]:
    """Return the mask (h, w) of the cells with their center in a box of a class."""
    file = open_image(example.image)
    left, top, right, bottom = seen_part(file.height, file.width, predictor.image)
    height, width = attention.weights.shape[3:]
    x = left + (np.arange(width) + 0.5) / width * (right - left)  # (w,)
    y = top + (np.arange(height) + 0.5) / height * (bottom - top)  # (h,)
    assert example.boxes is not None
    boxes = example.boxes[np.array(example.box_labels) == label]  # (M, 4)
    columns = (boxes[:, :1] <= x) & (x <= boxes[:, 2:3])  # (M, w)
    rows = (boxes[:, 1:2] <= y) & (y <= boxes[:, 3:])  # (M, h)
    return (rows[:, :, None] & columns[:, None]).any(0)


def report(title: str, cases: Sequence[Case]) -> None:
    """Print hits and mass of each map, over all cases and over those with small boxes."""
    parts = {
        "all": [case for case in cases if case.inside.any()],
        f"under {SMALL:.0%}": [case for case in cases if 0 < case.inside.mean() < SMALL],
    }
    print(f"\n{title}")
    for part, chosen in parts.items():
        print(f"  {part}: {len(chosen)} classes in images")
        for name in chosen[0].maps if chosen else ():
            maps = [case.maps[name] for case in chosen]
            masks = [case.inside for case in chosen]
            mass = [(one * mask).sum() for one, mask in zip(maps, masks, strict=True)]
            hits = [mask.flat[one.argmax()] for one, mask in zip(maps, masks, strict=True)]
            hit = np.mean(mass if name == "any cell" else hits)
            error = (hit * (1 - hit) / len(chosen)) ** 0.5
            print(f"    {name:28} hits {hit:6.1%} ± {error:.1%}   mass {np.mean(mass):6.1%}")


if __name__ == "__main__":
    main()
