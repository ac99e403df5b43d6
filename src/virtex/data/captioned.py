"""An image and one or several of its captions as tensors, for tasks that read captions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from virtex.data.captions import EncodeCaption, pad_tokens
from virtex.data.example import Example
from virtex.data.transforms import TrainTransform, ValidationTransform


@dataclass(frozen=True)
class CaptionedForTraining:
    """A function from an example to its augmented image and captions in their `drawn_order`.

    Several captions are `tokens` one after another, with their `lengths`.
    """

    transform: TrainTransform
    encode_caption: EncodeCaption
    num_captions: int = 1
    encode_references: Callable[[Sequence[str]], Tensor] | None = None
    """Function from all captions of an image, flipped with it, to its `references`."""

    def __call__(self, example: Example, generator: np.random.Generator) -> dict[str, Tensor]:
        order = drawn_order(example, generator)
        captions = [example.captions[order[k % len(order)]] for k in range(self.num_captions)]
        image, is_flipped = self.transform.augment(example, generator)
        encoded = {"image": image, **self._tokens(self._like_image(captions, is_flipped))}
        if self.encode_references is not None:
            references = self._like_image(example.captions, is_flipped)
            encoded["references"] = self.encode_references(references)
        return encoded

    def _like_image(self, captions: Sequence[str], is_flipped: bool) -> Sequence[str]:
        """Return captions of an image, flipped if it is."""
        if not is_flipped:
            return captions
        return [self.transform.flip_caption(caption) for caption in captions]

    def _tokens(self, captions: Sequence[str]) -> dict[str, Tensor]:
        tokens = [self.encode_caption(caption) for caption in captions]
        if self.num_captions == 1:
            return {"tokens": tokens[0]}
        lengths = torch.tensor([len(sequence) for sequence in tokens])
        return {"tokens": torch.cat(tokens), "lengths": lengths}


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
    """Stack images (B, 3, H, W) and pad tokens (B, T) on the right; `lengths` (B,).

    With K captions of each image there are B * K of both, those of an image side by side.
    """
    tokens, lengths = pad_tokens([caption for item in encoded for caption in _captions(item)])
    images = torch.stack([item["image"] for item in encoded])
    return {"image": images, "tokens": tokens, "lengths": lengths}


def drawn_order(example: Example, generator: np.random.Generator) -> list[int]:
    """Return the indices of an image's captions in the order in which a step takes them.

    Without weights, the first is drawn, and the captions that follow it come next, cyclically: of
    four captions, the first and the third are never a pair. With weights, the first is drawn by
    them, and each next one so from those that are left, which is the order of exponential times
    whose rates are the weights.
    """
    number = len(example.captions)
    if not example.caption_weights:
        first = int(generator.integers(number))
        return [(first + k) % number for k in range(number)]
    times = generator.exponential(size=number) / np.asarray(example.caption_weights)
    order: list[int] = np.argsort(times, kind="stable").tolist()
    return order


def _captions(item: dict[str, Tensor]) -> Sequence[Tensor]:
    """Return the token ids of each caption of an encoded example."""
    tokens, lengths = item["tokens"], item.get("lengths")
    return (tokens,) if lengths is None else tokens.split(lengths.tolist())
