"""Brightness, contrast, saturation and hue, as torchvision's ColorJitter changes them.

Integer arithmetic on planes of 16 bits (SIMD): several times faster than float, and within two
levels of `torchvision.transforms.v2.functional`, which truncates where we round. Levels are uint16
(3, N) from 0 to 255: the red, green and blue planes of N pixels.
"""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Levels = NDArray[np.uint16]
Plane = NDArray[np.int16]
Scaled = TypeVar("Scaled", Levels, Plane)


def jitter_colors(
    pixels: NDArray[np.uint8],
    rng: np.random.Generator,
    *,
    brightness: float,
    contrast: float,
    saturation: float,
    hue: float,
) -> NDArray[np.uint8]:
    """Change (3, H, W) RGB by random amounts of each, in random order.

    Factors of brightness, contrast and saturation lie from 1 - x to 1 + x, where x is the argument;
    `hue` is the largest shift, as a fraction of the color circle.
    """
    draws = rng.random(8).tolist()
    amounts = [2 * draw - 1 for draw in draws[:4]]
    levels = pixels.reshape(3, -1).astype(np.uint16)
    changes = (
        (adjust_brightness, 1 + brightness * amounts[0]),
        (adjust_contrast, 1 + contrast * amounts[1]),
        (adjust_saturation, 1 + saturation * amounts[2]),
        (adjust_hue, hue * amounts[3]),
    )
    for index in sorted(range(4), key=draws[4:].__getitem__):
        adjust, amount = changes[index]
        levels = adjust(levels, amount)
    return levels.astype(np.uint8).reshape(pixels.shape)


def to_gray(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return (3, H, W) RGB with all three planes at the pixel's luma."""
    levels = pixels.reshape(3, -1).astype(np.uint16)
    return adjust_saturation(levels, 0).astype(np.uint8).reshape(pixels.shape)


def adjust_brightness(levels: Levels, factor: float) -> Levels:
    """Multiply all levels by a factor from 0 (black) to 2."""
    if factor <= 1:
        return _rounded(levels * np.uint16(round(256 * factor)), bits=8)
    return _clipped(_rounded(levels * np.uint16(round(128 * factor)), bits=7))


def adjust_contrast(levels: Levels, factor: float) -> Levels:
    """Multiply distances from the image's mean luma by a factor from 0 (gray) to 2."""
    gray = _gray(levels)
    mean = round(gray.sum(dtype=np.uint64) / gray.size)
    # A whole plane, since numpy's maximum is many times slower on a scalar.
    return _blend(levels, np.full_like(gray, mean), factor)


def adjust_saturation(levels: Levels, factor: float) -> Levels:
    """Multiply distances from each pixel's luma by a factor from 0 (gray) to 2."""
    return _blend(levels, _gray(levels), factor)


def adjust_hue(levels: Levels, shift: float) -> Levels:
    """Shift the hue by -0.5 to 0.5 of the color circle, and keep value and saturation.

    With chroma C and hue h in sixths of the circle, red is min + clip(C|h - 3| - C, 0, C), and so
    on around the HSV hexagon. C * h is a sum of levels, so no pixel needs a division.
    """
    # Exchanging green and blue reverses the circle, so one direction is enough.
    order = (0, 1, 2) if shift <= 0 else (0, 2, 1)
    planes = levels.view(np.int16)
    red, green, blue = (planes[plane] for plane in order)
    value = np.maximum(np.maximum(red, green), blue)
    least = np.minimum(np.minimum(red, green), blue)
    chroma = value - least
    twice, four_times = chroma + chroma, 4 * chroma

    red_leads = _mask(red == value)
    green_leads = _mask(green == value) & ~red_leads
    angle = red_leads & (green - blue)  # C * h, from -C to 5C
    angle |= green_leads & (blue - red + twice)
    angle |= ~(red_leads | green_leads) & (red - green + four_times)
    angle += _times(chroma, -6 * abs(shift))
    angle += (twice + four_times) & (angle >> 15)  # add a full circle where negative

    turned = np.empty_like(planes)
    nothing = np.zeros_like(chroma)
    ramps = (
        np.abs(angle - twice - chroma) - chroma,
        twice - np.abs(angle - twice),
        twice - np.abs(angle - four_times),
    )
    for plane, ramp in zip(order, ramps, strict=True):
        np.minimum(np.maximum(ramp, nothing, out=ramp), chroma, out=ramp)
        np.add(ramp, least, out=turned[plane])
    return turned.view(np.uint16)


def _mask(chosen: NDArray[np.bool_]) -> Plane:
    """Return all bits set where chosen and none elsewhere, many times faster than branches."""
    return -chosen.astype(np.int16)


def _times(plane: Plane, factor: float) -> Plane:
    """Return plane * factor, rounded, for factors from -3 to 3, within 16 bits."""
    whole = round(factor)
    weight = min(round(256 * (factor - whole)), 127)  # 255 * 128 would overflow when rounded
    product = _rounded(plane * np.int16(weight), bits=8)
    if whole:
        product += whole * plane
    return product


def _blend(levels: Levels, other: Levels, factor: float) -> Levels:
    """Return factor * levels + (1 - factor) * other, rounded and clipped to 0..255; factor <= 2."""
    if factor <= 1:
        weight = round(256 * factor)
        blended = levels * np.uint16(weight)
        blended += other * np.uint16(256 - weight)
        return _rounded(blended, bits=8)
    weight = round(128 * factor)
    surplus = other * np.uint16(weight - 128)
    blended = levels * np.uint16(weight)
    np.maximum(blended, surplus, out=blended)
    blended -= surplus
    return _clipped(_rounded(blended, bits=7))


def _gray(levels: Levels) -> Levels:
    """Return the luma (N,) of levels (3, N), with the weights of ITU-R 601 in 1/256."""
    red, green, blue = levels
    gray = red * np.uint16(77)
    gray += green * np.uint16(150)
    gray += blue * np.uint16(29)
    gray >>= 8
    return gray


def _rounded(scaled: Scaled, *, bits: int) -> Scaled:
    """Divide by 2**bits in place, rounding to the nearest."""
    scaled += scaled.dtype.type(1 << (bits - 1))
    scaled >>= bits
    return scaled


def _clipped(levels: Levels) -> Levels:
    """Clip levels at 255 in place."""
    return np.minimum(levels, np.full_like(levels[0], 255), out=levels)
