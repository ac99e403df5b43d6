"""The numbers of a check for machines."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from virtex.data_check.caption_measures import CAPITALS, CONTROLS
from virtex.data_check.caption_statistics import CaptionStatistics, Histogram
from virtex.data_check.check_config import CheckConfig
from virtex.data_check.check_findings import Finding
from virtex.data_check.image_statistics import ImageStatistics
from virtex.data_check.letters import SCRIPTS
from virtex.data_check.split_check import SplitCheck

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


def summary(
    config: CheckConfig, checks: Sequence[SplitCheck], findings: Sequence[Finding]
) -> dict[str, Any]:
    """Return the content of the JSON file."""
    data = config.data
    return {
        "source": data.source,
        "root": None if data.root is None else str(data.root),
        "splits": {check.name: _of_split(check) for check in checks},
        "findings": [{**asdict(one), "share": one.share} for one in findings],
    }


def _of_split(check: SplitCheck) -> dict[str, Any]:
    own: dict[str, Any] = {
        "images": len(check),
        "without_caption": check.num_without,
        "ids_in_val": check.num_same_ids,
        "notes": check.opened.notes,
        "decoded": _of_images(check.images),
    }
    if check.captions is None or check.shared is None:
        return own
    shared = {
        "different": check.shared.num_different,
        "on_several_images": check.shared.num_shared,
        "most_frequent": [
            {"images": count, "caption": check.caption_at(position)}
            for count, position in check.shared.most_frequent
        ],
    }
    return {**own, "captions": {**_of_captions(check.captions), **shared}}


def _of_images(images: ImageStatistics) -> dict[str, Any]:
    good = images.is_good
    return {
        "images": len(images),
        "broken": len(images.faults),
        "formats": dict(images.formats.most_common()),
        "height": _quantiles(images.heights[good]),
        "width": _quantiles(images.widths[good]),
        "short_side": _quantiles(images.short_sides),
        "bytes": _quantiles(images.num_bytes),
    }


def _of_captions(captions: CaptionStatistics) -> dict[str, Any]:
    scripts = zip(SCRIPTS, captions.scripts.tolist(), strict=True)
    return {
        "captions": len(captions),
        "per_image": _of_histogram(captions.per_image),
        "words": _of_histogram(captions.words),
        "tokens": _of_histogram(captions.tokens),
        "scripts": {name: count for name, count in scripts if count},
        "in_capitals": captions.num_with(CAPITALS),
        "with_control_characters": captions.num_with(CONTROLS),
    }


def _quantiles(numbers: NDArray[np.int64]) -> dict[str, float]:
    """Return quantiles by their fractions, 0 the smallest and 1 the largest."""
    if not len(numbers):
        return {}
    fractions = (0, *QUANTILES, 1)
    values = np.quantile(numbers, fractions)
    return {
        f"{one:g}": round(float(value), 1) for one, value in zip(fractions, values, strict=True)
    }


def _of_histogram(histogram: Histogram) -> dict[str, int]:
    if not histogram.counts.any():
        return {}
    values = {f"{fraction:g}": histogram.quantile(fraction) for fraction in QUANTILES}
    return {**values, "1": histogram.largest}
