"""The rows of a check's table: a label, and a text for each split."""

import unicodedata
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from virtex.data_check.caption_measures import CAPITALS
from virtex.data_check.caption_statistics import Histogram
from virtex.data_check.image_statistics import DRAWN
from virtex.data_check.letters import SCRIPTS
from virtex.data_check.split_check import SplitCheck

LOW, HIGH = 0.01, 0.99
"""Fractions that a range leaves out below and above."""
COLUMN = 29
"""Width of a split's column."""
NONE = "-"
"""Text of a row that a split does not have."""

Row = tuple[str, Callable[[SplitCheck], str]]


def shortened(text: str, width: int) -> str:
    """Return the start of a text that fills at most `width` columns of a terminal."""
    columns = [2 if unicodedata.east_asian_width(one) in "WF" else 1 for one in text]
    if sum(columns) <= width:
        return text
    kept = int(np.searchsorted(np.cumsum(columns), width - 3, side="right"))
    return f"{text[:kept]}..."


def percent(count: int, total: int) -> str:
    """Return a share, with as many digits as a small one needs."""
    share = 100 * count / max(1, total)
    if count and share < 0.1:
        return f"{max(share, 0.001):.1g} %" if share >= 0.001 else "< 0.001 %"
    return f"{share:.1f} %" if 0 < share < 99.95 and share != round(share) else f"{share:.0f} %"


def _read(check: SplitCheck) -> str:
    if len(check.images) == len(check):
        return "all"
    return f"{len(check.images):,} chosen at random"


def _formats(check: SplitCheck) -> str:
    return _shares(check.images.formats.most_common(), len(check.images))


def _short_sides(check: SplitCheck) -> str:
    return _range(check.images.short_sides)


def _extreme(largest: bool) -> Callable[[SplitCheck], str]:
    def cell(check: SplitCheck) -> str:
        images = check.images
        areas = (images.widths * images.heights)[images.is_good]
        if not len(areas):
            return NONE
        index = areas.argmax() if largest else areas.argmin()
        width, height = (side[images.is_good][index] for side in (images.widths, images.heights))
        return f"{width} x {height}"

    return cell


def _file_sizes(check: SplitCheck) -> str:
    if set(check.images.formats) == {DRAWN}:
        return NONE
    return _range(check.images.num_bytes[check.images.num_bytes > 0] / 1000)


def _range(numbers: NDArray[np.int64] | NDArray[np.float64]) -> str:
    if not len(numbers):
        return NONE
    low, middle, high = np.quantile(numbers, (LOW, 0.5, HIGH))
    return f"{_short(middle)} ({_short(low)} - {_short(high)})"


def _short(number: float) -> str:
    return f"{number:.1f}" if number < 9.95 and number != round(number) else f"{number:,.0f}"


def _counted(histogram: Histogram) -> str:
    if not histogram.counts.any():
        return NONE
    low, middle, high = (histogram.quantile(fraction) for fraction in (LOW, 0.5, HIGH))
    return f"{middle} ({low} - {high})"


def _shares(counts: Sequence[tuple[str, int]], total: int) -> str:
    """Return as many kinds with their shares as fit, the most frequent first: `a 90, b 9 % + 2`."""
    shown = [(name, count) for name, count in counts if count]
    if len(shown) < 2:
        return shown[0][0] if shown else NONE
    text = ""
    for number, (name, count) in enumerate(shown, start=1):
        longer = f"{text}, " * bool(text) + f"{name} {_whole(count, total)}"
        rest = f" + {len(shown) - number}" * (number < len(shown))
        if text and len(f"{longer} %{rest}") > COLUMN - 1:
            return f"{text} % + {len(shown) - number + 1}"
        text = longer
    return f"{text} %"


def _whole(count: int, total: int) -> str:
    share = round(100 * count / max(1, total))
    return "< 1" if not share else f"{share}"


def _per_image(check: SplitCheck) -> str:
    return NONE if check.captions is None else _counted(check.captions.per_image)


def _words(check: SplitCheck) -> str:
    return NONE if check.captions is None else _counted(check.captions.words)


def _most_words(check: SplitCheck) -> str:
    return NONE if check.captions is None else f"{check.captions.words.largest:,}"


def _tokens(check: SplitCheck) -> str:
    return NONE if check.captions is None else _counted(check.captions.tokens)


def _scripts(check: SplitCheck) -> str:
    if check.captions is None:
        return NONE
    counts = zip(SCRIPTS, check.captions.scripts.tolist(), strict=True)
    return _shares(sorted(counts, key=lambda one: -one[1]), len(check.captions))


def _capitals(check: SplitCheck) -> str:
    if check.captions is None or not (count := check.captions.num_with(CAPITALS)):
        return NONE
    return f"{count:,} ({percent(count, len(check.captions))})"


def _different(check: SplitCheck) -> str:
    if check.captions is None or check.shared is None:
        return NONE
    different, total = check.shared.num_different, len(check.captions)
    return f"{different:,} ({percent(different, total)})"


def _shared(check: SplitCheck) -> str:
    if check.captions is None or check.shared is None or not check.shared.num_shared:
        return NONE
    return f"{check.shared.num_shared:,} ({percent(check.shared.num_shared, len(check.captions))})"


IMAGES: tuple[Row, ...] = (
    ("images", lambda check: f"{len(check):,}"),
    ("  ids that val has", lambda check: f"{check.num_same_ids:,}" if check.num_same_ids else NONE),
    ("  read and decoded", _read),
    ("  format", _formats),
    ("  shorter side, pixels", _short_sides),
    ("  smallest", _extreme(largest=False)),
    ("  largest", _extreme(largest=True)),
    ("  file size, kB", _file_sizes),
)
CAPTIONS: tuple[Row, ...] = (
    ("captions", lambda check: NONE if check.captions is None else f"{len(check.captions):,}"),
    ("  of an image", _per_image),
    ("  different", _different),
    ("  on several images", _shared),
    ("  words", _words),
    ("  words of longest", _most_words),
    ("  tokens", _tokens),
    ("  script", _scripts),
    ("  in capitals", _capitals),
)
