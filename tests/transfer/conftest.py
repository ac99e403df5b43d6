"""A small backbone, sources of noise and of bad images, and the real data."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.real_data import real
from virtex.data.example import Example, Source
from virtex.models.backbone import Backbone, BackboneConfig

SLIM = BackboneConfig("resnet18", options={"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 32]})
COLORS = {"blue": (30, 60, 220), "green": (40, 200, 60), "red": (220, 40, 40)}


class Noise(Source):
    """Images of noise, `bad` ones of which are no images; labels as given, or none."""

    def __init__(
        self,
        num_images: int,
        *,
        labels: list[tuple[int, ...]] | None = None,
        ignored: dict[int, tuple[int, ...]] | None = None,
        bad: tuple[int, ...] = (),
        split: str = "train",
        categories: tuple[str, ...] = ("cat", "dog", "cow"),
    ) -> None:
        self.label_lists = labels or [()] * num_images
        self.ignored, self.bad = ignored or {}, bad
        self.split, self.categories = split, categories

    def __len__(self) -> int:
        return len(self.label_lists)

    def __getitem__(self, index: int) -> Example:  # type: ignore[override]
        pixels = np.random.default_rng(index).integers(0, 255, (40, 56, 3), np.uint8)
        return Example(
            f"noise-{index}",
            b"no image at all" if index in self.bad else pixels,
            labels=self.label_lists[index],
            ignored_labels=self.ignored.get(index, ()),
        )

    def identity(self) -> dict[str, str | int]:
        return {"source": "noise", "images": len(self), "split": self.split}


@pytest.fixture
def backbone() -> Backbone:
    """A slim residual network, 32 channels, random but always the same."""
    torch.manual_seed(0)
    return Backbone(SLIM)


@pytest.fixture
def voc_root() -> Path:
    """The real PASCAL VOC 2007 (train and val)."""
    return real("data/voc2007")


def write_colors(root: Path) -> None:
    """A class folder of noisy plain colors: train/<color>/*.png and val/<color>/*.png."""
    rng = np.random.default_rng(0)
    for split, num_images in (("train", 12), ("val", 5)):
        for name, color in COLORS.items():
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(num_images):
                pixels = np.array(color) + rng.normal(0, 25, (36, 40, 3))
                image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
                image.save(folder / f"{number}.png")


@pytest.fixture
def colors(tmp_path: Path) -> Path:
    """What `write_colors` writes."""
    write_colors(tmp_path / "colors")
    return tmp_path / "colors"
