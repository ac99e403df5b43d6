"""Retrieval: which of all captions belongs to an image, and which of all images to a caption.

Recall at k as Karpathy and Fei-Fei, "Deep Visual-Semantic Alignments", CVPR 2015, section 4.2, take
it: an image is found right where any of its captions is among the first k; each caption ranks all
images. A caption that several images share counts as given: it cannot tell them apart, and what
scores alike counts against.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from virtex import distributed
from virtex.data.example import Source
from virtex.data.source import Needs, SourceConfig, open_source
from virtex.errors import ConfigError, DataError, listing
from virtex.transfer.matching import (
    MatchingProtocolConfig,
    drawn_images,
    open_matcher,
    result_of,
    scored_images,
)
from virtex.transfer.metrics.retrieval import best_text_ranks, count_at_least, recall_at_k
from virtex.transfer.protocol import Result

NAME = "retrieval"
HEADLINE = "text_to_image_R@1"
NO_PLACES = np.zeros(0, np.int64)


@dataclass(frozen=True, kw_only=True)
class RetrievalConfig(MatchingProtocolConfig):
    """Options of `virtex transfer retrieval`."""

    usual_prior: ClassVar[float] = 1.0
    data: SourceConfig = field(default_factory=lambda: SourceConfig("coco"))
    """Images with captions; those of the val split are ranked."""
    captions_per_image: int = 0
    """Take the first so many captions of each image; 0 takes all."""

    def problems(self) -> list[str]:
        """What is wrong with these options."""
        problems = super().problems()
        if self.captions_per_image < 0:
            problems.append(f"captions_per_image {self.captions_per_image} must be 0 or more")
        return problems


def run(config: RetrievalConfig) -> list[Result]:
    """Rank the val split both ways and write the result.

    Returns:
        The result on the main process, none on the others.

    Raises:
        ConfigError, DataError, CheckpointError: A mistake of the user's.
    """
    config.check()
    device = config.open_device()
    with distributed.process_group(device):
        source = drawn_images(_open_images(config.data), config)
        texts = texts_of(source, config.captions_per_image)
        result = _measure(config, source, texts, device)
        if not distributed.is_main():
            return []
        result.write(config.out)
    return [result]


def _open_images(data: SourceConfig) -> Source:
    source = open_source(data, split="val", needs=Needs(captions=True))
    if source is None:
        raise ConfigError(
            "there are no images to rank: name them with data.val_split, data.val_root or "
            f"data.val_share (source {data.source}, root {data.root})."
        )
    return source


@dataclass(frozen=True)
class Texts:
    """K captions, and whose they are."""

    texts: tuple[str, ...]
    owners: NDArray[np.int64]
    """(K,) place of each one's image in the source."""


def texts_of(source: Source, captions_per_image: int) -> Texts:
    """The first captions of each image, or all where 0 are asked for.

    Raises:
        DataError: A single image, or some without a caption.
    """
    captions = [source.captions(i)[: captions_per_image or None] for i in range(len(source))]
    bare = [source[i].location for i, own in enumerate(captions) if not own]
    if bare:
        raise DataError(f"{len(bare)} images have no caption: {listing(bare)}. Remove them.")
    if len(captions) < 2:
        raise DataError("one image alone cannot be ranked: retrieval needs at least two.")
    owners = [image for image, own in enumerate(captions) for _ in own]
    return Texts(tuple(text for own in captions for text in own), np.array(owners))


def _measure(config: RetrievalConfig, source: Source, texts: Texts, device: torch.device) -> Result:
    """The result; its numbers are the main process's, and the same on all."""
    opened = open_matcher(config, device)
    match = opened.matcher.match(texts.texts, config.matching_of(opened.matcher))
    rows = [
        (indices.numpy(), scores.numpy())
        for indices, scores in scored_images(source, match, opened.matcher, config)
    ]
    ranks = rank(rows, texts.owners)
    return result_of(
        opened,
        config,
        source,
        protocol=NAME,
        headline=HEADLINE,
        numbers={
            **_named("text_to_image", ranks.of_texts),
            **_named("image_to_text", ranks.of_images),
            "num_images": float(len(ranks.of_images)),
            "num_texts": float(len(ranks.of_texts)),
            "num_bad": float(len(source) - len(ranks.of_images)),
        },
        settings={"captions_per_image": config.captions_per_image},
    )


def _named(way: str, ranks: NDArray[np.int64]) -> dict[str, float]:
    """Recalls in percent and the median rank, after the way of the search."""
    return {
        f"{way}_{name}": value * (100 if name.startswith("R@") else 1)
        for name, value in recall_at_k(ranks).items()
    }


@dataclass(frozen=True)
class Ranks:
    """Of what belongs together, over all processes; images that cannot be read are left out."""

    of_images: NDArray[np.int64]
    """(I,) of each image's best own text among the texts of others."""
    of_texts: NDArray[np.int64]
    """(K,) of each text's own image."""


def rank(
    rows: Sequence[tuple[NDArray[np.int64], NDArray[np.floating]]], owners: NDArray[np.int64]
) -> Ranks:
    """Rank both ways; no process needs the scores of another's images.

    Args:
        rows: This process's batches: places of its images (B,), and their scores (B, K).
        owners: (K,) each text's image.
    """
    places = np.concatenate([NO_PLACES, *(places for places, _ in rows)])
    seen: NDArray[np.int64] = np.concatenate(distributed.gather_objects(places))  # type: ignore[arg-type]
    is_seen = np.isin(owners, seen)  # (K,)
    own_scores = np.zeros(len(owners), np.float32)
    of_images = [NO_PLACES]
    for images, scores in rows:
        is_own = images[:, None] == owners  # (B, K)
        own_scores += np.where(is_own, scores, 0).sum(0)
        of_images.append(best_text_ranks(scores, is_own, is_seen))
    own_scores = distributed.total(torch.from_numpy(own_scores)).numpy()
    counts = np.zeros(len(owners), np.int64)
    for _, scores in rows:
        counts += count_at_least(scores, own_scores)
    counts = distributed.total(torch.from_numpy(counts)).numpy()
    parts = distributed.gather_objects(np.concatenate(of_images))
    return Ranks(np.concatenate(parts), counts[is_seen])  # type: ignore[arg-type]
