"""The blind control: captions and likelihoods with each image replaced by another of the split.

What a captioner scores when it looks at the wrong image is what its language alone is worth: the
difference bounds how much it uses the image. A decoder that ignores images scores alike on both.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from virtex import distributed
from virtex.data.captions import EncodeCaption, pad_tokens
from virtex.data.example import Example, Source
from virtex.data.loader import LoaderConfig
from virtex.data.transforms import normalize
from virtex.engine.run import autocast
from virtex.errors import DataError
from virtex.predict.predictor import Predictor
from virtex.predict.results import check_not_nan
from virtex.progress import tracked
from virtex.tokens import PAD_ID
from virtex.transfer.caption_generation import Generation
from virtex.transfer.image_batches import image_batches

Value = TypeVar("Value")


class OtherImages(Source):
    """The examples of a source, each with the image of another one: seeded, none keeps its own."""

    def __init__(self, source: Source, *, seed: int) -> None:
        """Draw the other image of each example.

        Raises:
            DataError: There is one example alone.
        """
        if len(source) < 2:
            raise DataError("one image alone has no other to be replaced by: blind needs two.")
        self.source = source
        self.others = cyclic_permutation(len(source), seed=seed)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Example:
        return self.source[int(self.others[index])]

    def captions(self, index: int) -> tuple[str, ...]:
        return self.source.captions(index)

    def identity(self) -> dict[str, Any]:
        return {**self.source.identity(), "images": "others"}

    def replaced(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """Return values by image id, each image with that of its other, where both are known."""
        ids = [self.source.image_id(index) for index in range(len(self.source))]
        pairs = ((name, ids[other]) for name, other in zip(ids, self.others.tolist(), strict=True))
        return {own: values[other] for own, other in pairs if own in values and other in values}


def cyclic_permutation(number: int, *, seed: int) -> NDArray[np.int64]:
    """Return a random permutation of one cycle, so that no index stays where it is."""
    order = np.random.default_rng(seed).permutation(number)
    others = np.empty(number, np.int64)
    others[order] = np.roll(order, 1)
    return others


class Losses(NamedTuple):
    """Losses of an image's captions."""

    total: float
    """Sum over all tokens of all captions, and over the model's directions, in nats."""
    num_tokens: int
    """Number of predicted tokens of one direction."""


def mean_losses(
    source: Source, others: OtherImages, predictor: Predictor, generation: Generation
) -> dict[str, float]:
    """Return the loss of all captions per token with their own images, and with other images.

    A loss is that of pretraining's validation: summed over the model's directions, here of every
    caption. Both are over the images of which own and other can be read.

    Returns:
        loss, blind_loss and image_gain, their difference.
    """
    own = losses_of(source, predictor, generation)
    blind = losses_of(others, predictor, generation)
    both = sorted(own.keys() & blind.keys())
    num_tokens = sum(own[index].num_tokens for index in both)
    if not num_tokens:
        raise DataError("no image and its other can both be read, or none has a caption.")
    seen, unseen = (
        sum(losses[index].total for index in both) / num_tokens for losses in (own, blind)
    )
    return {"loss": seen, "blind_loss": unseen, "image_gain": unseen - seen}


def losses_of(source: Source, predictor: Predictor, generation: Generation) -> dict[int, Losses]:
    """Return the losses of each readable image's captions, by its index, on every process.

    Raises:
        CheckpointError: A likelihood is NaN.
    """
    own: dict[int, Losses] = {}
    batches = image_batches(
        source,
        generation.image,
        batch_size=generation.batch_size,
        loader=LoaderConfig(num_workers=generation.num_workers),
    )
    encode = EncodeCaption(predictor.tokenizer, max_tokens=predictor.captioner.config.max_tokens)
    for batch in tracked(batches, "likelihoods", len(source), each=generation.batch_size):
        indices = batch["index"].tolist()
        captions = [[encode(text) for text in source.captions(index)] for index in indices]
        owners = [row for row, of_image in enumerate(captions) for _ in of_image]
        if not owners:
            continue
        tokens, lengths = pad_tokens([one for of_image in captions for one in of_image])
        images = batch["image"].to(predictor.device)
        with torch.inference_mode(), autocast(generation.precision, predictor.device):
            scores = _scores(predictor, images, owners, tokens, lengths)  # (C,)
        check_not_nan(scores)
        counts = (tokens[:, 1:] != PAD_ID).sum(1)  # (C,)
        rows = torch.tensor(owners)
        totals = torch.zeros(len(indices)).index_add(0, rows, -scores).tolist()
        numbers = torch.zeros(len(indices), dtype=torch.int64).index_add(0, rows, counts).tolist()
        own |= zip(indices, map(Losses, totals, numbers), strict=True)
    return {k: one for part in distributed.gather_objects(own) for k, one in part.items()}


def _scores(
    predictor: Predictor, images: Tensor, owners: list[int], tokens: Tensor, lengths: Tensor
) -> Tensor:
    """Return the log-likelihood of each caption (C,), summed over directions, on the CPU."""
    captioner = predictor.captioner
    grid = captioner.backbone(normalize(images))[owners]  # (C, D, h, w)
    tokens = tokens.to(predictor.device)
    each = [
        captioner.score_grid(grid, tokens, lengths, direction=direction)
        for direction in captioner.head.directions
    ]
    return torch.stack(each).sum(0).float().cpu()
