"""Image and caption changed together: crop, flip (which swaps left and right), colour jitter.

The augmentation of Desai and Johnson (CVPR 2021), section 3.3, and what MoCo's has beside it. A
training crop is taken from the file before anything is resized, so that no more of it is decoded
than the crop needs.
"""

import functools
import math
import re
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from virtex.data.blur import blur
from virtex.data.color_jitter import jitter_colors, to_gray
from virtex.data.example import Example
from virtex.data.images import BadImageError, Box, Pixels, decode_image, open_image
from virtex.errors import ConfigError, out_of_range, raise_all

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "BadImageError",
    "ImageConfig",
    "TrainTransform",
    "ValidationTransform",
    "central_crop",
    "decode_image",
    "flip_and_recolor",
    "normalize",
    "random_crop",
    "swap_left_and_right",
]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CROP_TRIES = 10
TRAINING_SURPLUS = 0.9
"""A JPEG is decoded at 1/2, 1/4 or 1/8 where that leaves this much of the output's size: such a
crop, enlarged by 1.1, differs from the full one by 2.4 grey levels in the mean (COCO)."""
VALIDATION_SURPLUS = 2
"""The same in validation, where differences are to stay invisible."""
BLUR_SIGMAS = (0.1, 2.0)
"""Range of a blur's sigma in pixels of an image of BLUR_SIZE, as in MoCo v2; it shrinks with the
image, so that a small one loses the same detail and not all of it."""
BLUR_SIZE = 224
LEFT_OR_RIGHT = re.compile(r"\b(left|right)\b", re.IGNORECASE)

MAX_SIDE = 8192
"""Longest side of network inputs, in pixels."""


@dataclass(frozen=True)
class ImageConfig:
    """How images become network inputs; the paper's values by default."""

    size: int = 224
    """Side of the square network input, in pixels."""
    scale: tuple[float, float] = (0.2, 1.0)
    """Smallest and largest share of the image's area that a training crop may take."""
    ratio: tuple[float, float] = (0.75, 1.333)
    """Smallest and largest width / height of a training crop, before it is made square."""
    flip_prob: float = 0.5
    """Probability of a left-right flip, which swaps the words left and right in the caption."""
    brightness: float = 0.4
    """Brightness is multiplied by a factor from 1 - this to 1 + this."""
    contrast: float = 0.4
    """As brightness, for the contrast."""
    saturation: float = 0.4
    """As brightness, for the colour saturation."""
    hue: float = 0.1
    """Hue is turned by at most this share of the colour circle, at most 0.5."""
    jitter_prob: float = 0.8
    """Probability that brightness, contrast, saturation and hue are changed at all."""
    grayscale_prob: float = 0.0
    """Probability that all colour is dropped, after the jitter."""
    blur_prob: float = 0.0
    """Probability of a Gaussian blur, its sigma uniform from 0.1 to 2 pixels of a 224-pixel image;
    for other sizes in proportion."""
    validation_resize: int | None = None
    """Short side before the centre crop in validation; null: size * 256 / 224, or `size` itself
    where `original` is set."""
    original: bool = False
    """Bring back quirks of the released code: left/right swapped inside words too ("bright" becomes
    "bleft"), and validation images resized to a short side of `size` itself."""

    def __post_init__(self) -> None:
        problems = _problems(self)
        raise_all(ConfigError, "the image options cannot work", problems)

    @property
    def validation_short_side(self) -> int:
        """Short side of a validation image before its centre crop, in pixels."""
        if self.validation_resize is not None:
            return self.validation_resize
        return self.size if self.original else round(self.size * 256 / 224)


@dataclass(frozen=True)
class TrainTransform:
    """Random crop, flip and change of colours; the caption follows the flip."""

    config: ImageConfig

    def __call__(
        self, example: Example, caption: str, rng: np.random.Generator
    ) -> tuple[Tensor, str]:
        """The changed image (3, size, size) uint8 and its caption.

        Raises:
            BadImageError: The image is missing, corrupt, truncated or too large.
        """
        image = random_crop(example, self.config, rng)
        image, is_flipped = flip_and_recolor(image, self.config, rng)
        if is_flipped:
            caption = swap_left_and_right(caption, original=self.config.original)
        return image, caption


@dataclass(frozen=True)
class ValidationTransform:
    """Short side resized, then the centre cropped."""

    config: ImageConfig

    def __call__(self, example: Example) -> Tensor:
        """The image (3, size, size) uint8.

        Raises:
            BadImageError: The image is missing, corrupt, truncated or too large.
        """
        file = open_image(example.image, name=example.location)
        short_side, size = self.config.validation_short_side, self.config.size
        whole = Box(0, 0, file.height, file.width)
        pixels = file.decode(whole, min_size=VALIDATION_SURPLUS * short_side)
        height, width, box = central_crop(file.height, file.width, self.config)
        image = resize(pixels, height=height, width=width)  # (3, height, width)
        rows, columns = slice(box.top, box.top + size), slice(box.left, box.left + size)
        return image[:, rows, columns].contiguous()


def central_crop(height: int, width: int, config: ImageConfig) -> tuple[int, int, Box]:
    """To which height and width validation resizes an image, and what it then keeps of it."""
    shorter, short_side = min(height, width), config.validation_short_side
    height, width = int(short_side * height / shorter), int(short_side * width / shorter)
    top, left = round((height - config.size) / 2), round((width - config.size) / 2)
    return height, width, Box(top, left, config.size, config.size)


def random_crop(example: Example, config: ImageConfig, rng: np.random.Generator) -> Tensor:
    """A random part of the image, made square: (3, size, size) uint8.

    Raises:
        BadImageError: The image is missing, corrupt, truncated or too large.
    """
    file = open_image(example.image, name=example.location)
    box = random_box(file.height, file.width, rng, scale=config.scale, ratio=config.ratio)
    crop = file.decode(box, min_size=math.ceil(TRAINING_SURPLUS * config.size))  # (h, w, 3)
    return resize(crop, height=config.size, width=config.size)


def flip_and_recolor(
    image: Tensor, config: ImageConfig, rng: np.random.Generator
) -> tuple[Tensor, bool]:
    """An image (3, H, W) uint8 flipped, jittered, greyed and blurred, each with its probability.

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
    """Float images with ImageNet's mean and deviation, on the device where the images are.

    Args:
        images: (B, 3, H, W) or (3, H, W), uint8.

    Returns:
        The same shape in float32.
    """
    mean, std = _mean_and_std(images.device)
    return (images.float() - mean) / std


def swap_left_and_right(caption: str, *, original: bool = False) -> str:
    """The caption of the mirrored image: the words left and right exchanged, in their case.

    Args:
        caption: Words joined by hyphens or followed by 's count as words of their own.
        original: Exchange the letters inside other words as well, and lower-case ones alone.
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
    """A crop of random area and shape (RandomResizedCrop, as torchvision defines it).

    Args:
        height: Of the image.
        width: Of the image.
        rng: Draws area, shape and place.
        scale: Range of the crop's share of the image's area.
        ratio: Range of width / height, uniform in its logarithm.
    """
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for share, shape, down, right in rng.random((CROP_TRIES, 4)).tolist():
        area = height * width * (scale[0] + share * (scale[1] - scale[0]))
        aspect = math.exp(low + shape * (high - low))
        crop_height, crop_width = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
        if 0 < crop_height <= height and 0 < crop_width <= width:
            top, left = (
                int(down * (height - crop_height + 1)),
                int(right * (width - crop_width + 1)),
            )
            return Box(top, left, crop_height, crop_width)
    return _central_box(height, width, ratio)


def _central_box(height: int, width: int, ratio: tuple[float, float]) -> Box:
    """The largest central crop whose shape is within `ratio`."""
    crop_height = min(height, max(1, round(width / ratio[0])))
    crop_width = min(width, max(1, round(height * ratio[1])))
    return Box((height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width)


def resize(pixels: Pixels, *, height: int, width: int) -> Tensor:
    """(h, w, 3) pixels as an image (3, height, width), without aliasing."""
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


@functools.cache
@torch.inference_mode(False)
def _mean_and_std(device: torch.device) -> tuple[Tensor, Tensor]:
    """In grey levels, (3, 1, 1); kept, since a copy to the device would wait for it."""
    mean = 255 * torch.tensor(IMAGENET_MEAN).view(3, 1, 1)
    std = 255 * torch.tensor(IMAGENET_STD).view(3, 1, 1)
    return mean.to(device), std.to(device)


def _problems(config: ImageConfig) -> list[str]:
    """Everything that is wrong with the options, each with what is allowed."""
    problems = out_of_range(config, {"size": (1, MAX_SIDE), "validation_resize": (1, 2 * MAX_SIDE)})
    if not 0 < config.scale[0] <= config.scale[1] <= 1:
        problems.append(f"scale {config.scale} must be two rising numbers above 0, up to 1")
    if not 0 < config.ratio[0] <= config.ratio[1]:
        problems.append(f"ratio {config.ratio} must be two rising numbers above 0")
    shares = ("brightness", "contrast", "saturation")
    for name in ("flip_prob", "jitter_prob", "grayscale_prob", "blur_prob", *shares):
        value = vars(config)[name]
        if not 0 <= value <= 1:
            problems.append(f"{name} {value} must be from 0 to 1")
    if not 0 <= config.hue <= 0.5:
        problems.append(f"hue {config.hue} must be from 0 to 0.5")
    if config.validation_resize is not None and config.validation_resize < config.size:
        problems.append(f"validation_resize {config.validation_resize} is below size {config.size}")
    return problems
