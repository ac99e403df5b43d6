"""Scores of texts for all images of a source, for zero-shot classification and retrieval.

Nothing is trained, so there is no train split, and INIT is a whole model rather than a backbone: a
captioner, which ranks by likelihood, or a contrastively trained run, which ranks by cosine
similarity. Images are preprocessed as in all of transfer: the short side is resized to
size * 256 / 224 before a crop of the size that the model was trained at.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from virtex.data.example import Source
from virtex.data.loader import LoaderConfig
from virtex.data.transforms import ImageConfig, normalize
from virtex.errors import ConfigError
from virtex.predict.embedder import Embedder
from virtex.predict.loading import load_matcher, open_whole_model
from virtex.predict.matching import Match, MatchingConfig, Reading
from virtex.predict.predictor import Predictor
from virtex.progress import tracked
from virtex.transfer.command import DrawnImages
from virtex.transfer.image_batches import image_batches
from virtex.transfer.whole_model import WholeModelConfig, record_of


@dataclass(frozen=True, kw_only=True)
class MatchingProtocolConfig(WholeModelConfig):
    """Options of every protocol that ranks texts or images by how well they match."""

    usual_prior: ClassVar[float]
    """Default of `prior`."""
    init: str
    """Captioner or contrastively trained run: a run folder, a weights file, a released VirTex .pth,
    or a published name."""
    direction: Reading = MatchingConfig.direction
    """Decoder of a captioner that reads the texts: forward, backward, or both (the mean of their
    log-likelihoods)."""
    prior: float | None = None
    """Weight, from 0 to 1, of a text's log-likelihood under a blank image, which is subtracted from
    a captioner's score; null: 0 for zero-shot, 1 for retrieval."""
    num_images: int = 0
    """Number of images, drawn by the seed; 0 takes all."""
    bad_image_limit: float = 0.01
    """Largest fraction of the images (of 1,000 at least) that may be unreadable."""
    seed: int = 0
    """Random seed of the images that num_images draws."""

    def problems(self) -> list[str]:
        problems = super().problems()
        if self.num_images < 0:
            problems.append(f"num_images {self.num_images} must be 0 or more")
        if not 0 <= self.bad_image_limit <= 1:
            problems.append(f"bad_image_limit {self.bad_image_limit} must be from 0 to 1")
        try:
            self.matching  # noqa: B018
        except ConfigError as error:
            problems.append(str(error))
        return problems

    @property
    def matching(self) -> MatchingConfig:
        """How a captioner's likelihood becomes a score."""
        prior = self.usual_prior if self.prior is None else self.prior
        return MatchingConfig(direction=self.direction, prior=prior)

    def matching_of(self, matcher: Predictor | Embedder) -> MatchingConfig:
        """Return the options of a model's scores; the default prior is for captioners alone."""
        if isinstance(matcher, Embedder) and self.prior is None:
            return MatchingConfig(direction=self.direction)
        return self.matching


def drawn_images(source: Source, config: MatchingProtocolConfig) -> Source:
    """Return the images that `num_images` draws; all where it is 0.

    Raises:
        ConfigError: There are too few.
    """
    if not config.num_images:
        return source
    if config.num_images > len(source):
        raise ConfigError(
            f"num_images {config.num_images} of {len(source)} images: give fewer, or 0 for all"
        )
    rng = np.random.default_rng(config.seed)
    indices = np.sort(rng.choice(len(source), config.num_images, replace=False))
    return DrawnImages(source, indices.tolist(), rule=f"num_images {config.num_images}")


def open_matcher(
    config: MatchingProtocolConfig, device: torch.device
) -> tuple[Predictor | Embedder, dict[str, Any]]:
    """Return the model of INIT, and the record of its origin.

    Raises:
        CheckpointError: It neither writes captions nor compares texts with images.
        ConfigError: A tokenizer is missing, or given where there is one.
    """
    opened = open_whole_model(config.init, has_tokenizer=config.tokenizer is not None)
    matcher = load_matcher(
        opened,
        tokenizer=config.tokenizer,
        device=device,
        precision=config.resolved_precision(device),
    )
    return matcher, record_of(opened, config.tokenizer)


def settings_of(config: MatchingProtocolConfig, matcher: Predictor | Embedder) -> dict[str, Any]:
    """Return the settings that both protocols have; they hold the prior for any kind of model."""
    image = ImageConfig(size=matcher.image.size)
    return {
        **asdict(config.matching),
        "image_size": image.size,
        "validation_short_side": image.validation_short_side,
        "precision": config.resolved_precision(matcher.device),
    }


def scored_images(
    source: Source, match: Match, matcher: Predictor | Embedder, config: MatchingProtocolConfig
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Yield the scores of this process's share of the images, batch by batch.

    Images that cannot be read are left out.

    Yields:
        Indices into the source (B,), and scores (B, K).

    Raises:
        DataError: Too many bad images.
    """
    batches = image_batches(
        source,
        ImageConfig(size=matcher.image.size),
        batch_size=config.batch_size,
        loader=LoaderConfig(num_workers=config.num_workers, bad_image_limit=config.bad_image_limit),
    )
    for batch in tracked(batches, "images", len(source), each=config.batch_size):
        images = normalize(batch["image"].to(matcher.device, non_blocking=True))
        yield batch["index"].numpy(), match(images).float().cpu().numpy()
