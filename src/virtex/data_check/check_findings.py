"""What a check found: how much of it, examples, and what to do."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from virtex.data.checks import quoted
from virtex.data.source import Split
from virtex.data.source_options import MISSING_CAPTION_LIMIT
from virtex.data_check.split_check import CAPTION_FAULTS, SplitCheck
from virtex.errors import one_line

MOST_EXAMPLES = 2
MOST_SHOWN = 200
"""Most characters of a caption that is an example."""
GRID = 32
"""Sides of images that suit every backbone are multiples of this."""
WHAT = {
    "near_empty": "captions of almost no letters",
    "file_name": "captions that are file names",
    "url": "captions that are URLs",
    "digits": "captions of mostly digits",
}
LEAVE_OUT = "leave out"
MOST_TOKENS = 256
"""Most tokens that are proposed for a caption."""
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
    """What happens to them in training, or `leave out`."""
    examples: tuple[str, ...] = ()
    option: str = ""
    """Option that is another remedy."""

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
    option = f"--loader.bad_image_limit {_rounded_up(share)}" if share > LOADER_LIMIT else ""
    reasons = tuple(
        f"{name_of(check, index)}: {reason}"
        for index, reason in list(images.faults.items())[:MOST_EXAMPLES]
    )
    what = "images that cannot be read"
    yield Finding("broken", check.name, what, len(broken), num_read, LEAVE_OUT, reasons, option)
    yield _missing(check)
    for name, what in (
        ("same_image", "images equal to an earlier one"),
        ("in_validation", "images that are in val too"),
    ):
        indices = check.images_with(name)
        examples = tuple(name_of(check, index) for index in indices[:MOST_EXAMPLES].tolist())
        yield Finding(name, check.name, what, len(indices), num_read, LEAVE_OUT, examples)
    sides = images.short_sides
    usual = int(np.quantile(sides, 0.1)) // GRID * GRID if len(sides) else 0
    option = f"--image.size {usual}" if GRID <= usual < check.config.image_size else ""
    what = f"images smaller than {check.config.image_size}"
    yield Finding("small", check.name, what, check.num_small, num_read, "enlarged", (), option)


def _missing(check: SplitCheck) -> Finding:
    total = check.num_without + len(check)
    share = check.num_without / max(1, total)
    is_many = share > MISSING_CAPTION_LIMIT
    remedy = LEAVE_OUT if is_many else "skipped"
    option = f"--data.missing_caption_limit {_rounded_up(share)}" if is_many else ""
    skipped, examples = check.opened.without_captions, []
    if skipped is not None:
        examples = [skipped.image_id(index) for index in range(min(MOST_EXAMPLES, len(skipped)))]
    what = "images without a caption"
    return Finding("no_caption", check.name, what, check.num_without, total, remedy,
                   tuple(map(quoted, examples)), option)  # fmt: skip


def _of_captions(check: SplitCheck) -> Iterator[Finding]:
    assert check.captions is not None
    what = {**WHAT, "boilerplate": f"captions on {check.config.boilerplate} images or more"}
    for name in (*CAPTION_FAULTS, "boilerplate"):
        positions = np.flatnonzero(check.captions_with(name))
        examples: dict[str, None] = {}
        if name != "boilerplate":  # they are among the most frequent captions
            for position in positions[:MOST_EXAMPLES].tolist():
                examples[one_line(check.caption_at(position)[:MOST_SHOWN])] = None
        yield Finding(name, check.name, what[name], len(positions), len(check.captions),
                      LEAVE_OUT, tuple(examples))  # fmt: skip
    number, limit = check.captions.tokens.quantile(0.99), check.config.max_tokens
    option = f"--task.head.max_tokens {number}" if limit < number <= MOST_TOKENS else ""
    what_long = f"captions of more than {limit} tokens"
    yield Finding("long", check.name, what_long, check.num_long, len(check.captions), "cut off",
                  (), option)  # fmt: skip


def name_of(check: SplitCheck, index: int) -> str:
    """Return the id of an image for a terminal."""
    return quoted(check.opened.source.image_id(index))


def _rounded_up(share: float) -> str:
    """Return a limit a little above a fraction."""
    return f"{min(0.999, np.ceil(share * 110) / 100):g}"
