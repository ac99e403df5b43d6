"""A model with the options that it captions many images with."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from virtex.models.decoding import DecodingConfig
from virtex.predict.caption_files.settings import model_digest
from virtex.predict.predictor import Caption, Predictor
from virtex.predict.results import Writing, with_likelihood


@dataclass(frozen=True)
class Captioning:
    """What is asked of a model for each image.

    What an image is given depends on no other image: where captions are drawn at random, the draws
    come from `seed` and the image's name.
    """

    predictor: Predictor
    decoding: DecodingConfig
    num_captions: int = 1
    prefix: str = ""
    seed: int = 0

    def check(self) -> None:
        """Try it on a blank image: what the model cannot do is told before any work.

        Raises:
            ConfigError: Options that do not go together, or that the model cannot meet.
        """
        size = self.predictor.image.size
        self.write([""], torch.zeros(1, 3, size, size, dtype=torch.uint8))

    def write(self, names: Sequence[str], images: Tensor) -> list[list[Caption]]:
        """The captions of images (B, 3, H, W) uint8, of each the best first."""
        writing = Writing(self.decoding, self.num_captions, self.prefix, self.seed)
        images = images.contiguous(memory_format=torch.channels_last)
        return with_likelihood(self.predictor.write_captions(images, names, writing))

    def settings(self) -> dict[str, Any]:
        """What may change the captions, as plain values."""
        is_random = self.decoding.strategy == "nucleus"
        return {
            "model": model_digest(self.predictor),
            "decoding": asdict(self.decoding),
            "num_captions": self.num_captions,
            "prefix": self.prefix,
            "precision": self.predictor.precision,
            **({"seed": self.seed} if is_random else {}),
        }


def decoding_for(
    predictor: Predictor, decoding: DecodingConfig, max_steps: int | None
) -> DecodingConfig:
    """With `max_steps`, or else as many as `decoding` has and the model was built for."""
    if max_steps is None:
        return decoding.within(predictor.captioner.config.max_tokens)
    return replace(decoding, max_steps=max_steps)
