"""Options of `virtex data check`."""

from dataclasses import dataclass, field
from pathlib import Path

from virtex.data.source_options import SourceConfig
from virtex.errors import ConfigError, did_you_mean, out_of_range, raise_all

NUM_DECODED = 10_000
"""Images of each split that are decoded by default."""
BAD = ("broken", "no_caption", "near_empty", "file_name", "url", "digits", "boilerplate",
       "same_image", "in_validation")  # fmt: skip
"""Findings whose images are left out by default."""
KINDS = (*BAD, "small", "long")
RANGES = {
    "decode": (0, 1), "image_size": (1, 8192), "max_tokens": (3, 1000), "boilerplate": (2, 2**40),
    "num_threads": (1, 1024), "seed": (0, 2**63 - 1),
}  # fmt: skip


@dataclass(frozen=True)
class CheckConfig:
    """Options of `virtex data check`."""

    data: SourceConfig = field(default_factory=SourceConfig)
    out: Path | None = None
    """JSON file to write all numbers to."""
    write_bad: Path | None = None
    """File to write the images to leave out to, one a line: paths, or ids where images have none
    of their own (webdataset), or where a table lists them."""
    write_good: Path | None = None
    """File to write the ids of the other training images to, one a line."""
    bad: tuple[str, ...] = BAD
    """Findings whose images are left out: broken, no_caption, near_empty, file_name, url, digits,
    boilerplate, same_image, in_validation, small, long. An image with a good caption beside bad
    ones stays."""
    all: bool = False
    """Decode all images, not a sample."""
    decode: float | None = None
    """Fraction of the images to decode; by default 10,000 of each split, chosen by a hash of their
    ids and the seed."""
    seed: int = 0
    """Random seed of the choice."""
    tokenizer_path: Path | None = None
    """Vocabulary to count tokens with; by default they are estimated from words and marks."""
    max_tokens: int = 30
    """Tokens of a caption, with start and end, above which it counts as long."""
    image_size: int = 224
    """Side in pixels; an image whose shorter side is smaller counts as small."""
    boilerplate: int = 100
    """Images with the same caption from which it counts as boilerplate."""
    num_threads: int = 2
    """Threads that read and decode images."""

    def __post_init__(self) -> None:
        problems = out_of_range(self, RANGES)
        problems += [
            f"unknown finding {name!r}. {did_you_mean(name, KINDS)}"
            for name in self.bad
            if name not in KINDS
        ]
        if self.all and self.decode is not None:
            problems.append("--all decodes all images, --decode a fraction: give one of them")
        if self.data.mix and (self.write_bad or self.write_good):
            problems.append(
                "the ids of a mix belong to several manifests: write the list of each by itself, "
                "with --data.root MANIFEST"
            )
        paths = [path for path in (self.out, self.write_bad, self.write_good) if path is not None]
        if len({path.absolute() for path in paths}) < len(paths):
            problems.append("out, write_bad and write_good name the same file: give one for each")
        raise_all(ConfigError, "the check cannot work", problems)
