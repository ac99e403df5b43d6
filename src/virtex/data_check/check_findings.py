"""What a check found: how much of it, examples, and what to do."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from virtex.data.checks import quoted
from virtex.data.source import Split
from virtex.data.source_options import MISSING_CAPTION_LIMIT
from virtex.data_check.split_check import CAPTION_FAULTS, SplitCheck

MOST_EXAMPLES = 2
GRID = 32
"""Sides of images that suit every backbone are multiples of this."""
WHAT = {
    "near_empty": "captions of almost no letters",
    "file_name": "captions that are file names",
    "url": "captions that are URLs",
    "digits": "captions of mostly digits",
}
LOADER_LIMIT = 0.01
"""Fraction of bad images that training tolerates by default."""


@dataclass(frozen=True)
class Finding:
    """A kind of fault and its number."""

    name: str
    """Name in `--bad`."""
    split: Split
    what: str
    count: int
    total: int
    """Number of captions or images that were looked at."""
    remedy: str
    examples: tuple[str, ...] = ()

    @property
    def share(self) -> float:
        return self.count / max(1, self.total)


def findings_of(check: SplitCheck) -> list[Finding]:
    """Return what was found in a split, in the order of the page."""
    found = [*_of_images(check), *(_of_captions(check) if check.captions is not None else ())]
    return [one for one in found if one.count]


def _of_images(check: SplitCheck) -> Iterator[Finding]:
    images, num_read = check.images, len(check.images)
    broken = check.images_with("broken")
    share = len(broken) / max(1, num_read)
    remedy = "leave out"
    if share > LOADER_LIMIT:
        remedy += f", or --loader.bad_image_limit {_rounded_up(share)}"
    reasons = tuple(
        f"{name_of(check, index)}: {reason}"
        for index, reason in list(images.faults.items())[:MOST_EXAMPLES]
    )
    yield Finding(
        "broken", check.name, "images that cannot be read", len(broken), num_read, remedy, reasons
    )
    yield _missing(check)
    for name, what in (
        ("same_image", "images equal to an earlier one"),
        ("in_validation", "images that are in val too"),
    ):
        indices = check.images_with(name)
        examples = tuple(name_of(check, index) for index in indices[:MOST_EXAMPLES].tolist())
        yield Finding(name, check.name, what, len(indices), num_read, "leave out", examples)
    sides = images.short_sides
    usual = int(np.quantile(sides, 0.1)) // GRID * GRID if len(sides) else 0
    remedy = f"--image.size {usual}" if GRID <= usual < check.config.image_size else "enlarged"
    what = f"images smaller than {check.config.image_size}"
    yield Finding("small", check.name, what, check.num_small, num_read, remedy)


def _missing(check: SplitCheck) -> Finding:
    total = check.num_without + len(check)
    share = check.num_without / max(1, total)
    is_many = share > MISSING_CAPTION_LIMIT
    remedy = f"--data.missing_caption_limit {_rounded_up(share)}" if is_many else "skipped"
    skipped, examples = check.opened.without_captions, []
    if skipped is not None:
        examples = [skipped.image_id(index) for index in range(min(MOST_EXAMPLES, len(skipped)))]
    what = "images without a caption"
    return Finding("no_caption", check.name, what, check.num_without, total, remedy,
                   tuple(map(quoted, examples)))  # fmt: skip


def _of_captions(check: SplitCheck) -> Iterator[Finding]:
    assert check.captions is not None
    what = {**WHAT, "boilerplate": f"captions on {check.config.boilerplate} images or more"}
    for name in (*CAPTION_FAULTS, "boilerplate"):
        positions = np.flatnonzero(check.captions_with(name))
        examples: dict[str, None] = {}
        if name != "boilerplate":  # they are among the most frequent captions
            for position in positions[:MOST_EXAMPLES].tolist():
                examples[quoted(check.caption_at(position))] = None
        yield Finding(name, check.name, what[name], len(positions), len(check.captions),
                      "leave out", tuple(examples))  # fmt: skip
    number = check.captions.tokens.quantile(0.99)
    remedy = f"cut off; --task.head.max_tokens {number}" if check.num_long else ""
    if number <= check.config.max_tokens:
        remedy = "cut off"
    what_long = f"captions of more than {check.config.max_tokens} tokens"
    yield Finding("long", check.name, what_long, check.num_long, len(check.captions), remedy)


def name_of(check: SplitCheck, index: int) -> str:
    """Return the id of an image for a terminal."""
    return quoted(check.opened.source.image_id(index))


def _rounded_up(share: float) -> str:
    """Return a limit a little above a fraction."""
    return f"{min(0.999, np.ceil(share * 110) / 100):g}"
