"""Transforms of an image and its caption: crop, flip (which swaps left and right), color jitter.

The augmentation of Desai and Johnson (CVPR 2021), section 3.3, with MoCo's gray images and blur. A
training crop is chosen before decoding, so that only the part of the file that it needs is decoded.
"""

import functools
import math
import re
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from virtex.data.blur import blur
from virtex.data.color_jitter import jitter_colors, to_gray
from virtex.data.example import Example
from virtex.data.images import Box, Pixels, open_image
from virtex.errors import ConfigError, out_of_range, raise_all
from virtex.imagenet import IMAGENET_MEAN, IMAGENET_STD

CROP_TRIES = 10
TRAINING_SURPLUS = 0.9
"""Least fraction of the output's size that decoding a JPEG at 1/2, 1/4 or 1/8 must leave. Such a
crop, enlarged by 1.1, differs from the full one by 2.4 levels on average (COCO)."""
VALIDATION_SURPLUS = 2
"""The same in validation, where differences should stay invisible."""
BLUR_SIGMAS = (0.1, 2.0)
"""Range of the blur's sigma in pixels at BLUR_SIZE, as in MoCo v2; it is scaled with the image, so
that a small one loses the same detail."""
BLUR_SIZE = 224
MARK = "[\u0300-\u036f\u200c\u200d]"
"""Accents and joiners, which are letters to no regular expression."""
LEFT_OR_RIGHT = re.compile(rf"\b(?<!{MARK})(left|right)\b(?!{MARK})", re.IGNORECASE)

MAX_SIDE = 8192
"""Longest side of network inputs, in pixels."""


@dataclass(frozen=True)
class ImageConfig:
    """Options that turn images into network inputs; the paper's values by default."""

    size: int = 224
    """Side of the square network input, in pixels."""
    scale: tuple[float, float] = (0.2, 1.0)
    """Range of the fraction of the image's area in a training crop."""
    ratio: tuple[float, float] = (0.75, 1.333)
    """Range of width / height of a training crop, before it is made square."""
    flip_prob: float = 0.5
    """Probability of a left-right flip, which swaps the words left and right in the caption."""
    brightness: float = 0.4
    """Largest change x of the brightness, which is multiplied by 1 - x to 1 + x."""
    contrast: float = 0.4
    """Largest change of the contrast, see `brightness`."""
    saturation: float = 0.4
    """Largest change of the color saturation, see `brightness`."""
    hue: float = 0.1
    """Largest shift of the hue, as a fraction of the color circle, up to 0.5."""
    jitter_prob: float = 0.8
    """Probability that brightness, contrast, saturation and hue are changed."""
    grayscale_prob: float = 0.0
    """Probability that the image becomes gray, after the jitter."""
    blur_prob: float = 0.0
    """Probability of a Gaussian blur, with a sigma of 0.1 to 2 pixels at size 224 and in proportion
    at others."""
    validation_resize: int | None = None
    """Short side before the center crop in validation; by default size * 256 / 224, or with
    `original` the size itself."""
    original: bool = False
    """Whether to keep quirks of the released code: left and right are swapped inside words too
    ("bright" becomes "bleft"), and validation images get a short side of `size`."""

    def __post_init__(self) -> None:
        problems = _problems(self)
        raise_all(ConfigError, "the image options cannot work", problems)

    @property
    def validation_short_side(self) -> int:
        """Short side of a validation image before its center crop, in pixels."""
        if self.validation_resize is not None:
            return self.validation_resize
        return self.size if self.original else round(self.size * 256 / 224)

    def with_size(self, size: int) -> "ImageConfig":
        """Return the options for another size, with as large a part of a validation image."""
        short_side = self.validation_resize and round(self.validation_resize * size / self.size)
        return replace(self, size=size, validation_resize=short_side)


@dataclass(frozen=True)
class TrainTransform:
    """Random crop, flip and color jitter, with left and right swapped in the caption of a flip."""

    config: ImageConfig

    def __call__(
        self, example: Example, caption: str, rng: np.random.Generator
    ) -> tuple[Tensor, str]:
        """Return the augmented image (3, size, size) uint8 and its caption."""
        image, is_flipped = self.augment(example, rng)
        return image, self.flip_caption(caption) if is_flipped else caption

    def augment(self, example: Example, rng: np.random.Generator) -> tuple[Tensor, bool]:
        """Return the augmented image (3, size, size) uint8, and whether it was flipped."""
        return flip_and_recolor(random_crop(example, self.config, rng), self.config, rng)

    def flip_caption(self, caption: str) -> str:
        """Return the caption of a flipped image, with left and right swapped."""
        return swap_left_and_right(caption, original=self.config.original)


@dataclass(frozen=True)
class ValidationTransform:
    """Resize of the short side, then a center crop."""

    config: ImageConfig

    def __call__(self, example: Example) -> Tensor:
        """Return the image (3, size, size) uint8."""
        file = open_image(example.image, name=example.location)
        short_side, size = self.config.validation_short_side, self.config.size
        whole = Box(0, 0, file.height, file.width)
        pixels = file.decode(whole, min_size=VALIDATION_SURPLUS * short_side)
        height, width, box = central_crop(file.height, file.width, self.config)
        image = resize(pixels, height=height, width=width)  # (3, height, width)
        rows, columns = slice(box.top, box.top + size), slice(box.left, box.left + size)
        return image[:, rows, columns].contiguous()


def central_crop(height: int, width: int, config: ImageConfig) -> tuple[int, int, Box]:
    """Return the height and width of a resized validation image, and its center crop."""
    shorter, short_side = min(height, width), config.validation_short_side
    height, width = int(short_side * height / shorter), int(short_side * width / shorter)
    top, left = round((height - config.size) / 2), round((width - config.size) / 2)
    return height, width, Box(top, left, config.size, config.size)


def random_crop(example: Example, config: ImageConfig, rng: np.random.Generator) -> Tensor:
    """Return a random crop of the image, resized to (3, size, size) uint8."""
    file = open_image(example.image, name=example.location)
    box = random_box(file.height, file.width, rng, scale=config.scale, ratio=config.ratio)
    crop = file.decode(box, min_size=math.ceil(TRAINING_SURPLUS * config.size))  # (h, w, 3)
    return resize(crop, height=config.size, width=config.size)


def flip_and_recolor(
    image: Tensor, config: ImageConfig, rng: np.random.Generator
) -> tuple[Tensor, bool]:
    """Flip, jitter, gray and blur an image (3, H, W) uint8, each with its probability.

    Returns:
        The image, and whether it was flipped.
    """
    flip, jitter = rng.random(2).tolist()
    is_flipped = flip < config.flip_prob
    pixels = (image.flip(2) if is_flipped else image).numpy()
    if jitter < config.jitter_prob:
        pixels = jitter_colors(
            pixels,
            rng,
            brightness=config.brightness,
            contrast=config.contrast,
            saturation=config.saturation,
            hue=config.hue,
        )
    if config.grayscale_prob and rng.random() < config.grayscale_prob:
        pixels = to_gray(pixels)
    if config.blur_prob and rng.random() < config.blur_prob:
        pixels = blur(pixels, sigma=rng.uniform(*BLUR_SIGMAS) * config.size / BLUR_SIZE)
    return torch.from_numpy(pixels), is_flipped


def normalize(images: Tensor) -> Tensor:
    """Return uint8 images ([B,] 3, H, W) normalized by ImageNet's mean and deviation, float32.

    One operation, which reads each byte once; their layout in memory stays.
    """
    # torch.compile would warn of the cache, and fuses what makes the constants.
    constants = _constants if torch.compiler.is_compiling() else _cached_constants
    scale, shift = constants(images.device)
    return torch.addcmul(shift, images, scale)


def swap_left_and_right(caption: str, *, original: bool = False) -> str:
    """Swap the words left and right, and keep their case; hyphens and apostrophes end a word.

    Args:
        original: Swap the letters inside other words too, but only in lower case.
    """
    if original:
        parts = caption.split("left")
        return "right".join(part.replace("right", "left") for part in parts)
    return LEFT_OR_RIGHT.sub(_opposite, caption)


def random_box(
    height: int,
    width: int,
    rng: np.random.Generator,
    *,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> Box:
    """Draw the box of torchvision's RandomResizedCrop for an image of `height` and `width`.

    Args:
        scale: Range of the crop's fraction of the image's area.
        ratio: Range of width / height, uniform in its logarithm.
    """
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for fraction, shape, down, right in rng.random((CROP_TRIES, 4)).tolist():
        area = height * width * (scale[0] + fraction * (scale[1] - scale[0]))
        aspect = math.exp(low + shape * (high - low))
        crop_height, crop_width = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
        if 0 < crop_height <= height and 0 < crop_width <= width:
            top = int(down * (height - crop_height + 1))
            return Box(top, int(right * (width - crop_width + 1)), crop_height, crop_width)
    return _central_box(height, width, ratio)


def _central_box(height: int, width: int, ratio: tuple[float, float]) -> Box:
    """Return the largest center crop whose aspect ratio is within `ratio`."""
    crop_height = min(height, max(1, round(width / ratio[0])))
    crop_width = min(width, max(1, round(height * ratio[1])))
    return Box((height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width)


def resize(pixels: Pixels, *, height: int, width: int) -> Tensor:
    """Resize (h, w, 3) pixels to an image (3, height, width), with antialiasing."""
    image = torch.from_numpy(pixels).permute(2, 0, 1)  # (3, h, w)
    if image.shape[1:] == (height, width):
        return image.contiguous()
    resized = functional.interpolate(
        image[None], size=(height, width), mode="bilinear", antialias=True
    )
    return resized[0].contiguous()


def _opposite(match: re.Match[str]) -> str:
    word = match.group()
    opposite = "right" if word.lower() == "left" else "left"
    if word.isupper():
        return opposite.upper()
    return opposite.capitalize() if word[0].isupper() else opposite


def _constants(device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the scale and shift (3, 1, 1) of bytes, filled in on the device: no copy waits."""
    scales = [1 / (255 * std) for std in IMAGENET_STD]
    shifts = [-mean / std for mean, std in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)]
    scale, shift = (
        torch.cat([torch.full((1, 1, 1), value, device=device) for value in values])
        for values in (scales, shifts)
    )
    return scale, shift


@functools.cache
@torch.inference_mode(False)
def _cached_constants(device: torch.device) -> tuple[Tensor, Tensor]:
    """Return `_constants`, made once for each device."""
    return _constants(device)


def _problems(config: ImageConfig) -> list[str]:
    """Return the problems of the options, each with the allowed values."""
    problems = out_of_range(config, {"size": (1, MAX_SIDE), "validation_resize": (1, 2 * MAX_SIDE)})
    if not 0 < config.scale[0] <= config.scale[1] <= 1:
        problems.append(f"scale {config.scale} must be two increasing numbers above 0, up to 1")
    if not 0 < config.ratio[0] <= config.ratio[1]:
        problems.append(f"ratio {config.ratio} must be two increasing numbers above 0")
    changes = ("brightness", "contrast", "saturation")
    for name in ("flip_prob", "jitter_prob", "grayscale_prob", "blur_prob", *changes):
        value = vars(config)[name]
        if not 0 <= value <= 1:
            problems.append(f"{name} {value} must be from 0 to 1")
    if not 0 <= config.hue <= 0.5:
        problems.append(f"hue {config.hue} must be from 0 to 0.5")
    if config.validation_resize is not None and config.validation_resize < config.size:
        problems.append(f"validation_resize {config.validation_resize} is below size {config.size}")
    return problems
