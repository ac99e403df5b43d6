"""A folder of captioned photographs: the one that is given, or drawn files of their size."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu.settings import Settings
from benchmarks.loader import draw_files
from benchmarks.step import LENGTHS, PER_MILLE

NUM_WORDS = 7_000
SYLLABLES = [c + v for c in "bdfgklmnprstvz" for v in ("a", "e", "i", "o", "u", "an", "er")]
NUM_CAPTIONS = 5
WIDTH, HEIGHT = 640, 480


def captions_folder(settings: Settings) -> Path:
    """Return the folder in COCO's layout; what is drawn is drawn once for all sections."""
    if settings.captions is not None:
        return settings.captions
    folder = settings.work / "photographs"
    if not folder.exists():
        unfinished = settings.work / "unfinished"
        if settings.is_toy:
            draw_folder(unfinished, num_drawn=4, num_images=48)
        else:
            draw_folder(unfinished, num_drawn=64, num_images=8192)
        unfinished.rename(folder)
    return folder


def draw_folder(folder: Path, *, num_drawn: int, num_images: int) -> None:
    """Write images with captions; only `num_drawn` of them differ, as all are decoded alike."""
    generator = np.random.default_rng(0)
    (folder / "train2017").mkdir(parents=True, exist_ok=True)
    (folder / "annotations").mkdir(exist_ok=True)
    drawn = draw_files(folder, num_drawn)
    words = made_up_words(generator)
    images: list[dict[str, Any]] = []
    captions: list[dict[str, Any]] = []
    for number in range(num_images):
        name = f"{number:012}.jpg"
        os.link(drawn[number % num_drawn], folder / "train2017" / name)
        images.append({"id": number, "file_name": name, "width": WIDTH, "height": HEIGHT})
        for text in made_up_captions(words, generator):
            captions.append({"id": len(captions), "image_id": number, "caption": text})
    annotations = {"images": images, "annotations": captions}
    (folder / "annotations" / "captions_train2017.json").write_text(json.dumps(annotations))


def made_up_words(generator: np.random.Generator) -> list[str]:
    """Return words of one to four syllables, the frequent ones short."""
    numbers = np.minimum(1 + np.arange(NUM_WORDS) // 800, 4)
    return ["".join(generator.choice(SYLLABLES, count)) for count in numbers]


def made_up_captions(words: list[str], generator: np.random.Generator) -> list[str]:
    """Return an image's captions, of COCO's lengths and with frequent and rare words."""
    shares = np.array(PER_MILLE) / sum(PER_MILLE)
    lengths = generator.choice(np.array(LENGTHS), NUM_CAPTIONS, p=shares) - 2
    ranks = (len(words) ** generator.random((NUM_CAPTIONS, max(LENGTHS)))).astype(int) - 1
    return [" ".join(words[r] for r in row[:n]) for row, n in zip(ranks, lengths, strict=True)]
