"""Images that are the same wherever and whenever they are drawn."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

NUM_PHOTOS = 8
COLORS = {"blue": (30, 60, 220), "green": (40, 200, 60), "red": (220, 40, 40)}
SIZE = 40


def photo(number: int) -> NDArray[np.uint8]:
    """Return pixels (H, W, 3): three waves of colour, others for each number."""
    rows, columns = np.mgrid[0:SIZE, 0 : SIZE + 4 * number]
    waves = [(rows * (number + 2) + columns * (3 * channel + 1)) % 64 for channel in range(3)]
    return (np.stack(waves, -1) * 4).astype(np.uint8)


def write_photos(folder: Path) -> None:
    """Write photo0.png and so on."""
    folder.mkdir(parents=True)
    for number in range(NUM_PHOTOS):
        Image.fromarray(photo(number)).save(folder / f"photo{number}.png")


def write_classes(root: Path) -> None:
    """Write class folders train/COLOR/*.png and val/COLOR/*.png of noisy plain colors."""
    rng = np.random.default_rng(0)
    for split, num_images in (("train", 12), ("val", 5)):
        for name, color in COLORS.items():
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(num_images):
                pixels = np.array(color) + rng.normal(0, 25, (SIZE, SIZE, 3))
                image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
                image.save(folder / f"{number}.png")
