"""What zero-shot classification and retrieval share: texts matched with all images of a source.

Nothing is trained, so there is no train split, and INIT is a whole model rather than a backbone: a
captioner, which ranks by likelihood, or a contrastively trained run, which ranks by cosine
similarity. Images are seen as in all of transfer, the short side at size * 256 / 224 before a crop
of the size that the model was trained at.
"""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from virtex.data.example import Source
from virtex.data.loader import LoaderConfig
from virtex.data.transforms import ImageConfig, normalize
from virtex.engine.inference import InferenceConfig
from virtex.errors import ConfigError, raise_all
from virtex.predict.embedder import Embedder
from virtex.predict.loading import build_matcher, open_whole_model
from virtex.predict.matching import Match, MatchingConfig, Reading
from virtex.predict.predictor import Predictor
from virtex.transfer.command import DrawnImages, MeasurementConfig, record_of
from virtex.transfer.image_batches import image_batches
from virtex.transfer.protocol import Result, device_name, versions


@dataclass(frozen=True, kw_only=True)
class MatchingProtocolConfig(InferenceConfig, MeasurementConfig):
    """Options of every protocol that ranks texts or images by how well they fit."""

    usual_prior: ClassVar[float]
    """Where the command names none."""
    init: str
    """Whose scores: a run folder, a weights file, a released VirTex .pth, or a published name; of a
    captioner, or of a contrastively trained run."""
    tokenizer: Path | None = None
    """The vocabulary of a released .pth, which holds none."""
    direction: Reading = MatchingConfig.direction
    """For captioners: which decoder reads the texts: forward, backward, or both (the mean of their
    log-likelihoods)."""
    prior: float | None = None
    """For captioners: how much of a text's log-likelihood under a blank image is subtracted: 0
    nothing, 1 all; null: 0 for zero-shot, 1 for retrieval."""
    num_images: int = 0
    """Take so many images, drawn by the seed; 0 takes all."""
    bad_image_limit: float = 0.01
    """Stop when more than this share of the images (of 1,000 at least) cannot be read."""
    seed: int = 0
    """Of the images that num_images draws."""

    def problems(self) -> list[str]:
        """What is wrong with these options."""
        problems = [*super().problems(), *self.inference_problems()]
        if self.num_images < 0:
            problems.append(f"num_images {self.num_images} must be 0 or more")
        if not 0 <= self.bad_image_limit <= 1:
            problems.append(f"bad_image_limit {self.bad_image_limit} must be from 0 to 1")
        try:
            self.matching  # noqa: B018
        except ConfigError as error:
            problems.append(str(error))
        return problems

    def check(self) -> None:
        """Find the mistakes in the options, before anything is loaded.

        Raises:
            ConfigError: All of them.
        """
        problems = self.problems()
        raise_all(ConfigError, "the options cannot work", problems)

    @property
    def matching(self) -> MatchingConfig:
        """How a captioner's likelihood becomes a score."""
        prior = self.usual_prior if self.prior is None else self.prior
        return MatchingConfig(direction=self.direction, prior=prior)

    def matching_of(self, matcher: Predictor | Embedder) -> MatchingConfig:
        """What is asked of a model: of a similarity nothing that the command does not name."""
        if isinstance(matcher, Embedder) and self.prior is None:
            return MatchingConfig(direction=self.direction)
        return self.matching


def drawn_images(source: Source, config: MatchingProtocolConfig) -> Source:
    """As many images as the command wants.

    Raises:
        ConfigError: There are not so many.
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


class OpenedMatcher(NamedTuple):
    """A model that scores images, and the record of where it came from."""

    matcher: Predictor | Embedder
    initialisation: dict[str, Any]
    start: float
    """When it began to be loaded."""


def open_matcher(config: MatchingProtocolConfig, device: torch.device) -> OpenedMatcher:
    """The model that the command names.

    Raises:
        CheckpointError: It neither writes captions nor compares texts with images.
        ConfigError: A tokenizer is missing, or given where there is one.
    """
    start = time.perf_counter()
    opened = open_whole_model(config.init, has_tokenizer=config.tokenizer is not None)
    matcher = build_matcher(
        opened,
        tokenizer=config.tokenizer,
        device=device,
        precision=config.resolved_precision(device),
    )
    return OpenedMatcher(matcher, record_of(opened, config.tokenizer), start)


def result_of(
    opened: OpenedMatcher,
    config: MatchingProtocolConfig,
    source: Source,
    *,
    protocol: str,
    headline: str,
    numbers: dict[str, float],
    settings: dict[str, Any],
) -> Result:
    """The record of a measurement that began when the model was opened.

    Args:
        settings: The protocol's own.
    """
    image = ImageConfig(size=opened.matcher.image.size)
    seen = {
        "image_size": image.size,
        "validation_short_side": image.validation_short_side,
        "precision": config.resolved_precision(config.open_device()),
    }
    return Result(
        protocol=protocol,
        headline=headline,
        numbers=numbers,
        # The prior is a captioner's, whatever the model: both kinds stand in one table.
        settings={**settings, **asdict(config.matching), **seen},
        initialisation=opened.initialisation,
        data={"test": source.identity()},
        seed=config.seed,
        versions=versions(),
        device=device_name(opened.matcher.device),
        seconds=round(time.perf_counter() - opened.start, 2),
    )


def scored_images(
    source: Source,
    match: Match,
    matcher: Predictor | Embedder,
    config: MatchingProtocolConfig,
) -> Iterator[tuple[Tensor, Tensor]]:
    """This process's part of the images, batch by batch, with a progress bar on a terminal.

    Yields:
        Places in the source (B,), and scores (B, K) float32, on the CPU. Images that cannot be read
        are left out.

    Raises:
        DataError: Too many of them.
    """
    batches = image_batches(
        source,
        ImageConfig(size=matcher.image.size),
        batch_size=config.batch_size,
        loader=LoaderConfig(num_workers=config.num_workers, bad_image_limit=config.bad_image_limit),
        title="images",
    )
    for batch in batches:
        images = normalize(batch["image"].to(matcher.device, non_blocking=True))
        yield batch["index"], match(images).float().cpu()
