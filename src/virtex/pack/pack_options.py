"""The options of `virtex pack`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from virtex.data.source import Needs, SourceConfig, Split
from virtex.data.source_options import WITH_CAPTIONS, WITH_LABELS
from virtex.errors import ConfigError, out_of_range, raise_all
from virtex.options.sizes import bytes_of

SHARD_SIZE = 10_000
RANGES = {
    "short_side": (0, 8192),
    "quality": (1, 100),
    "shard_size": (1, 10**7),
    "seed": (0, 2**63),
}


@dataclass(frozen=True)
class PackConfig:
    """Options of `virtex pack`."""

    out: Path
    """Folder to write: train/00000.tar ..., and val. The same command resumes there."""
    data: SourceConfig = field(default_factory=SourceConfig)
    split: Literal["train", "val", "both"] = "both"
    """Which images to pack; both: also the validation images, where the options name any."""
    annotations: Literal["auto", "captions", "labels", "none"] = "auto"
    """What each image must come with, which is packed with it. auto: captions, or labels from a
    named layout without captions."""
    short_side: int = 256
    """Short side to which larger images are reduced, in pixels. None is enlarged, and a JPEG file
    that needs no reduction stays as it is. 0 keeps all JPEG, PNG and WebP files as they are."""
    quality: int = 90
    """Quality of the JPEG files that are written, 1 to 100."""
    shard_size: int | None = None
    """Largest number of examples in a shard; 10,000 by default."""
    shard_bytes: str | None = None
    """Or about how large a shard should be: 500MB, 1GiB. A sample of images says how many fit."""
    seed: int = 0
    """Random seed of the order of the examples."""
    bad_image_limit: float = 0.01
    """Largest fraction of a split's images that may be unreadable; they are left out and listed in
    left_out.jsonl."""

    def __post_init__(self) -> None:
        problems = out_of_range(self, RANGES)
        if not 0 <= self.bad_image_limit <= 1:
            problems.append(f"bad_image_limit {self.bad_image_limit} must be from 0 to 1")
        if self.shard_bytes is not None:
            if self.shard_size is not None:
                problems.append(
                    "shard_size and shard_bytes both say how large a shard is: give one"
                )
            if not bytes_of(self.shard_bytes):
                problems.append(
                    f"shard_bytes {self.shard_bytes!r} must be a number of bytes, such as 500MB or "
                    "1GiB"
                )
        raise_all(ConfigError, "the options of the shards cannot work", problems)

    @property
    def splits(self) -> tuple[Split, ...]:
        """The splits to pack."""
        return ("train", "val") if self.split == "both" else (self.split,)

    @property
    def needs(self) -> Needs:
        """The annotations that each image must have."""
        kind, source = self.annotations, self.data.source
        if kind == "auto":
            kind = "labels" if source in WITH_LABELS - WITH_CAPTIONS else "captions"
        return Needs(captions=kind == "captions", labels=kind == "labels")

    def settings(self) -> dict[str, Any]:
        """Return the options on which the shards depend, beside the data themselves."""
        size = self.shard_bytes or self.shard_size or SHARD_SIZE
        return {
            "annotations": self.needs.annotations,
            "short_side": self.short_side,
            "quality": self.quality,
            "shard_bytes" if self.shard_bytes else "shard_size": size,
            "seed": self.seed,
        }
