"""Retrieval: ranking all captions for each image, and all images for each caption.

Recall at K as in Karpathy and Fei-Fei, "Deep Visual-Semantic Alignments", CVPR 2015, section 4.2:
an image counts if any of its captions is among the first K; each caption ranks all images. Equal
captions of several images tie, and a tie counts as ranked before the right one.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from virtex import distributed
from virtex.data.example import Source
from virtex.data.source import Needs, SourceConfig
from virtex.errors import DataError, listing
from virtex.predict.embedder import Embedder
from virtex.predict.predictor import Predictor
from virtex.tokens import UNK_ID
from virtex.transfer.matching import (
    MatchingProtocolConfig,
    drawn_images,
    open_matcher,
    scored_images,
    settings_of,
)
from virtex.transfer.metrics.retrieval import best_text_ranks, count_at_least, recall_at_k
from virtex.transfer.protocol import Result
from virtex.transfer.whole_model import Measured, open_val_images, run_whole_model

log = logging.getLogger("virtex")

NO_INDICES = np.zeros(0, np.int64)


@dataclass(frozen=True, kw_only=True)
class RetrievalConfig(MatchingProtocolConfig):
    """Options of `virtex transfer retrieval`."""

    usual_prior: ClassVar[float] = 1.0
    data: SourceConfig = field(default_factory=lambda: SourceConfig("coco"))
    """Images with captions; those of the val split are ranked."""
    captions_per_image: int = 0
    """Number of captions of each image, the first ones; 0 takes all."""

    def problems(self) -> list[str]:
        problems = super().problems()
        if self.captions_per_image < 0:
            problems.append(f"captions_per_image {self.captions_per_image} must be 0 or more")
        return problems


def run(config: RetrievalConfig) -> list[Result]:
    """Rank the val split both ways, and write the result; see `run_whole_model`."""
    return run_whole_model(config, partial(test_images, config), partial(_measure, config))


def test_images(config: RetrievalConfig) -> Source:
    """Open and check the images of `run`."""
    source = open_val_images(config.data, Needs(captions=True), purpose="rank")
    return drawn_images(source, config)


@dataclass(frozen=True)
class Texts:
    """K captions, and the image of each."""

    texts: tuple[str, ...]
    owners: NDArray[np.int64]
    """(K,) index of each caption's image in the source."""


def texts_of(source: Source, captions_per_image: int) -> Texts:
    """Return the first captions of each image, or all for 0.

    Raises:
        DataError: A single image, or images without a caption.
    """
    captions = [source.captions(i)[: captions_per_image or None] for i in range(len(source))]
    bare = [source[i].location for i, own in enumerate(captions) if not own]
    if bare:
        raise DataError(f"{len(bare)} images have no caption: {listing(bare)}. Remove them.")
    if len(captions) < 2:
        raise DataError("one image alone cannot be ranked: retrieval needs at least two.")
    owners = [image for image, own in enumerate(captions) for _ in own]
    return Texts(tuple(text for own in captions for text in own), np.array(owners))


def warn_of_partial(texts: Sequence[str], matcher: Predictor | Embedder) -> None:
    """Log how many captions a model reads in part; captions of other people are taken as they are.

    An unknown token adds nothing to a log-likelihood.
    """
    rows = [matcher.tokenizer.encode(text) for text in texts]
    num_unknown = sum(UNK_ID in row for row in rows)
    num_cut = sum(len(row) > matcher.max_text_tokens for row in rows)
    if num_unknown and distributed.is_main():
        log.warning(
            "%d of %d captions have characters that the vocabulary lacks, which count nothing",
            num_unknown, len(rows),
        )  # fmt: skip
    if num_cut and distributed.is_main():
        log.warning(
            "%d of %d captions are cut to the model's %d tokens",
            num_cut, len(rows), matcher.max_text_tokens,
        )  # fmt: skip


def _measure(config: RetrievalConfig, source: Source, device: torch.device) -> Measured:
    texts = texts_of(source, config.captions_per_image)
    matcher, initialisation = open_matcher(config, device)
    warn_of_partial(texts.texts, matcher)
    match = matcher.match(texts.texts, config.matching_of(matcher))
    ranks = rank(list(scored_images(source, match, matcher, config)), texts.owners)
    return Measured(
        protocol="retrieval",
        headline="text_to_image_R@1",
        numbers={
            **_named("text_to_image", ranks.of_texts),
            **_named("image_to_text", ranks.of_images),
            "num_images": float(len(ranks.of_images)),
            "num_texts": float(len(ranks.of_texts)),
            "num_bad": float(len(source) - len(ranks.of_images)),
        },
        settings={
            "captions_per_image": config.captions_per_image,
            **settings_of(config, matcher),
        },
        initialisation=initialisation,
    )


def _named(way: str, ranks: NDArray[np.int64]) -> dict[str, float]:
    """Return recall in percent and the median rank, under the direction of the search."""
    return {
        f"{way}_{name}": value * (100 if name.startswith("R@") else 1)
        for name, value in recall_at_k(ranks).items()
    }


@dataclass(frozen=True)
class Ranks:
    """Ranks of matching texts and images, from 1, without images that cannot be read."""

    of_images: NDArray[np.int64]
    """(I,) rank of each image's best own text among the texts of others."""
    of_texts: NDArray[np.int64]
    """(K,) rank of each text's own image."""


def rank(
    rows: Sequence[tuple[NDArray[np.int64], NDArray[np.float32]]], owners: NDArray[np.int64]
) -> Ranks:
    """Rank the images and texts of all processes, without exchanging scores.

    Args:
        rows: This process's batches: indices of its images (B,), and their scores (B, K).
        owners: (K,) index of each text's image.
    """
    indices = np.concatenate([NO_INDICES, *(indices for indices, _ in rows)])
    seen = np.concatenate(distributed.gather_objects(indices))
    is_seen = np.isin(owners, seen)  # (K,)
    own_scores = np.zeros(len(owners), np.float32)
    of_images = [NO_INDICES]
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
    return Ranks(np.concatenate(parts), counts[is_seen])
