"""Everything that is counted of one split."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from virtex.data.source import Split
from virtex.data.tokenizer import Tokenizer
from virtex.data_check import caption_measures as measures
from virtex.data_check.caption_measures import SPECIAL_TOKENS
from virtex.data_check.caption_statistics import CaptionStatistics, count_captions, hash_of
from virtex.data_check.check_config import NUM_DECODED, CheckConfig
from virtex.data_check.duplicates import Hashes, Shared, copies, hash_ids, shared_captions
from virtex.data_check.image_statistics import ImageReader, ImageStatistics
from virtex.data_check.lenient_source import OpenedSplit

MOST_FREQUENT = 10
"""How many of the most frequent captions are shown."""
CAPTION_FAULTS = {
    "near_empty": measures.NEAR_EMPTY,
    "file_name": measures.FILE_NAME,
    "url": measures.URL,
    "digits": measures.DIGITS,
}
"""Findings that are faults of captions."""


@dataclass
class SplitCheck:
    """The counts of one split of N images with P captions, of which R images were read."""

    name: Split
    opened: OpenedSplit
    config: CheckConfig
    ids: Hashes
    """Hashes of the images' ids, (N,)."""
    images: ImageStatistics
    captions: CaptionStatistics | None = None
    shared: Shared | None = None
    copied: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """Indices of the images whose file is that of an earlier one of those read."""
    in_validation: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """Indices of the images whose file is also one of validation's."""
    num_same_ids: int | None = None
    """Number of images whose id is also one of validation's; None where that tells nothing."""

    def __len__(self) -> int:
        return len(self.opened.source)

    @property
    def num_without(self) -> int:
        """Number of images that were skipped for want of a caption."""
        skipped = self.opened.without_captions
        return 0 if skipped is None else len(skipped)

    @property
    def num_small(self) -> int:
        """Number of the images read whose shorter side is smaller than requested."""
        return int(np.count_nonzero(self.images.short_sides < self.config.image_size))

    @property
    def num_long(self) -> int:
        """Number of captions of more tokens than requested."""
        return 0 if self.captions is None else self.captions.tokens.above(self.config.max_tokens)

    def captions_with(self, name: str) -> NDArray[np.bool_]:
        """Return which of the P captions have the fault of a finding."""
        assert self.captions is not None
        assert self.shared is not None
        if name == "boilerplate":
            return self.shared.num_images >= self.config.boilerplate
        if name == "long":
            return self.captions.is_long
        return (self.captions.faults & CAPTION_FAULTS[name]) > 0

    def images_with(self, name: str) -> NDArray[np.int64]:
        """Return the indices of the images that have the fault of a finding of images."""
        if name == "broken":
            return np.asarray(list(self.images.faults), np.int64)
        if name == "same_image":
            return self.copied
        if name == "in_validation":
            return self.in_validation
        sides = np.minimum(self.images.heights, self.images.widths)
        is_small = self.images.is_good & (sides < self.config.image_size)
        return self.images.indices[is_small]

    def caption_at(self, position: int) -> str:
        """Return a caption by its position among all P."""
        assert self.captions is not None
        texts = self.opened.source.captions(int(self.captions.images[position]))
        wanted = int(self.captions.hashes[position])
        return next((text for text in texts if hash_of(text) == wanted), texts[0])

    def is_bad(self, names: Sequence[str]) -> NDArray[np.bool_]:
        """Return which of the N images have one of these findings, or no caption without one."""
        is_bad = np.zeros(len(self), np.bool_)
        of_captions = [name for name in names if name in (*CAPTION_FAULTS, "boilerplate", "long")]
        for name in {*names} - {*of_captions, "no_caption"}:
            is_bad[self.images_with(name)] = True
        if self.captions is not None and of_captions:
            bad = np.zeros(len(self.captions), np.bool_)
            for name in of_captions:
                bad |= self.captions_with(name)
            has_good = np.zeros(len(self), np.bool_)
            has_good[self.captions.images[~bad]] = True
            has_bad = np.zeros(len(self), np.bool_)
            has_bad[self.captions.images[bad]] = True
            is_bad |= has_bad & ~has_good
        return is_bad


def check_split(name: Split, opened: OpenedSplit, config: CheckConfig) -> SplitCheck:
    """Count captions and images of a split, and what is in it twice.

    Images in shards are read while their captions are, so that a shard is visited once.
    """
    source = opened.source
    ids = hash_ids(source, seed=config.seed, title=f"{name} ids")
    chosen = sample(ids, size=_num_decoded(len(ids), config))
    reader = ImageReader(source, chosen, num_threads=config.num_threads)
    captions = shared = None
    if opened.has_captions:
        captions = count_captions(
            source,
            title=f"{name} captions",
            max_tokens=config.max_tokens,
            num_tokens=_token_counter(config),
            on_read=(lambda stop: None) if source.shard_counts is None else reader.read_before,
        )
        shared = shared_captions(captions.hashes, captions.images, most=MOST_FREQUENT)
    images = reader.read_rest(f"{name} images")
    check = SplitCheck(name, opened, config, ids, images, captions, shared)
    good = images.is_good
    check.copied = images.indices[good][copies(images.digests[good])]
    return check


def sample(ids: Hashes, *, size: int) -> NDArray[np.int64]:
    """Return the indices of the images with the lowest hashes, ascending.

    So an image that is in two splits under one id is chosen in both, or in none, if they are of the
    same size.
    """
    if size >= len(ids):
        return np.arange(len(ids))
    return np.sort(np.argpartition(ids, size)[:size])


def _num_decoded(num_images: int, config: CheckConfig) -> int:
    if config.all:
        return num_images
    return NUM_DECODED if config.decode is None else round(config.decode * num_images)


def _token_counter(config: CheckConfig) -> Callable[[str], int] | None:
    """Return a function that counts a caption's tokens; None where they are estimated."""
    if config.tokenizer_path is None:
        return None
    tokenizer = Tokenizer.load(config.tokenizer_path)
    return lambda caption: len(tokenizer.encode(caption)) + SPECIAL_TOKENS
