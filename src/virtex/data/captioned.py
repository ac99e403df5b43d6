"""An image and one of its captions as tensors, for tasks that read captions."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from virtex.data.captions import EncodeCaption, pad_tokens
from virtex.data.example import Example
from virtex.data.transforms import TrainTransform, ValidationTransform


@dataclass(frozen=True)
class CaptionedForTraining:
    """A function from an example to its augmented image and a random caption."""

    transform: TrainTransform
    encode_caption: EncodeCaption

    def __call__(self, example: Example, generator: np.random.Generator) -> dict[str, Tensor]:
        caption = example.captions[generator.integers(len(example.captions))]
        image, caption = self.transform(example, caption, generator)
        return {"image": image, "tokens": self.encode_caption(caption)}


@dataclass(frozen=True)
class CaptionedForValidation:
    """A function from an example to its center crop and first caption."""

    transform: ValidationTransform
    encode_caption: EncodeCaption

    def __call__(self, example: Example, generator: np.random.Generator) -> dict[str, Tensor]:
        del generator
        tokens = self.encode_caption(example.captions[0])
        return {"image": self.transform(example), "tokens": tokens}


def collate_captioned(encoded: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Stack images (B, 3, H, W) and pad tokens (B, T) on the right; `lengths` (B,)."""
    tokens, lengths = pad_tokens([item["tokens"] for item in encoded])
    images = torch.stack([item["image"] for item in encoded])
    return {"image": images, "tokens": tokens, "lengths": lengths}
