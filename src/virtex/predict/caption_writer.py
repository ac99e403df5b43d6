"""A captioner that reads images and writes captions."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from virtex.data.captions import NUM_ADDED, EncodeCaption
from virtex.data.tokenizer import Tokenizer
from virtex.data.transforms import ImageConfig, ValidationTransform, normalize
from virtex.engine.run import Precision, autocast
from virtex.errors import ConfigError, DataError
from virtex.models.captioner import Captioner
from virtex.models.decoding import DecodingConfig
from virtex.models.packing import Direction
from virtex.predict.attention import caption_tokens
from virtex.predict.image_inputs import ImageInput, ImageInputs, as_example, as_list, in_batches
from virtex.predict.results import Caption, Writing, decode_captions, drop_impossible


class CaptionWriter:
    """A captioner with its tokenizer and image transform, which writes captions of images.

    Args: See `Predictor`.
    """

    def __init__(
        self,
        captioner: Captioner,
        tokenizer: Tokenizer,
        image: ImageConfig,
        *,
        device: torch.device | str = "cpu",
        precision: Precision = "fp32",
    ) -> None:
        self.captioner = captioner.eval().to(device)
        self.tokenizer, self.device = tokenizer, torch.device(device)
        self.image, self.precision = image, precision
        self._transform = ValidationTransform(image)
        self._encode = EncodeCaption(tokenizer, max_tokens=captioner.config.max_tokens)

    def caption(
        self,
        images: ImageInputs,
        decoding: DecodingConfig | None = None,
        *,
        prefix: str = "",
        batch_size: int = 32,
        seed: int = 0,
    ) -> list[Caption]:
        """Return the best caption of each image.

        Args:
            decoding: Options of the search; by default `default_decoding`.
            prefix: Words that every caption begins with.
            seed: Random seed of sampling. What is sampled for an image depends on the seed and the
                image's index, and neither on `batch_size` nor on the other images.

        Raises:
            DataError: An image cannot be read, or has a type or shape that is not allowed.
        """
        captions = self.captions(
            images, 1, decoding, prefix=prefix, batch_size=batch_size, seed=seed
        )
        return [of_image[0] for of_image in captions]

    def captions(
        self,
        images: ImageInputs,
        num_captions: int,
        decoding: DecodingConfig | None = None,
        *,
        prefix: str = "",
        batch_size: int = 32,
        seed: int = 0,
    ) -> list[list[Caption]]:
        """Return several captions of each image, the best first; fewer where fewer are found.

        Beam search returns at most as many captions as it has beams. Args and Raises: see
        `caption`.
        """
        writing = Writing(decoding or self.default_decoding, num_captions, prefix, seed)
        inputs = as_list(images)
        captions: list[list[Caption]] = []
        for indices in in_batches(range(len(inputs)), batch_size):
            pixels = self._pixels([inputs[index] for index in indices])
            captions += drop_impossible(self.write_captions(pixels, indices, writing))
        return captions

    def write_captions(
        self, images: Tensor, keys: Sequence[object], writing: Writing
    ) -> list[list[Caption]]:
        """Return `num_captions` captions of each image of a batch, by descending rank.

        Where the search finds fewer, captions of likelihood -inf fill up the list.

        Args:
            images: (B, 3, H, W) uint8.
            keys: Names or indices of the B images, which seed the sampling.
        """
        return self._write(self._grid(images), keys, writing)

    @property
    def max_text_tokens(self) -> int:
        """Largest number of tokens of a text, without start and end."""
        return self.captioner.config.max_tokens - NUM_ADDED

    @property
    def default_decoding(self) -> DecodingConfig:
        """Beam search with five beams, for at most 30 steps or as many as the model allows."""
        return DecodingConfig().within(self.captioner.config.max_tokens)

    def _read(
        self,
        images: ImageInputs,
        texts: str | Caption | Sequence[str | Caption] | None,
        decoding: DecodingConfig | None,
        prefix: str,
        batch_size: int,
        seed: int,
    ) -> Iterator[tuple[Tensor, list[str | Caption]]]:
        """Yield the grid of each batch of images, and their captions, written if none are given."""
        if texts is not None and (decoding is not None or prefix):
            raise ConfigError("texts were given, and options for writing them: give one of the two")
        inputs = as_list(images)
        given = [texts] if isinstance(texts, str | Caption) else texts
        if given is not None:
            check_pairs(inputs, given)
        writing = Writing(decoding or self.default_decoding, prefix=prefix, seed=seed)
        for indices in in_batches(range(len(inputs)), batch_size):
            grid = self._grid(self._pixels([inputs[index] for index in indices]))
            if given is None:
                found = drop_impossible(self._write(grid, indices, writing))
                yield grid, [of_image[0] for of_image in found]
            else:
                yield grid, [given[index] for index in indices]

    def _tokens(self, caption: str | Caption, direction: Direction) -> Tensor:
        if isinstance(caption, str):
            return self._encode(caption)
        max_tokens = self.captioner.config.max_tokens
        return caption_tokens(caption.tokens, direction, max_tokens=max_tokens)

    def _write(self, grid: Tensor, keys: Sequence[object], writing: Writing) -> list[list[Caption]]:
        """Return captions as `write_captions` does, given the feature grid (B, C, h, w)."""
        prefix = torch.tensor(self.tokenizer.encode(writing.prefix), dtype=torch.int64)
        with self._computing():
            generated = self.captioner.generate_grid(
                grid,
                writing.decoding,
                num_captions=writing.num_captions,
                prefix=prefix,
                rng=writing.generators(keys),
            )
        return decode_captions(generated, self.tokenizer)

    def _grid(self, images: Tensor) -> Tensor:
        """Return the feature grid (B, C, h, w) of images (B, 3, H, W) uint8."""
        with self._computing():
            return self.captioner.backbone(normalize(images.to(self.device, non_blocking=True)))

    @contextmanager
    def _computing(self) -> Iterator[None]:
        with torch.inference_mode(), autocast(self.precision, self.device):
            yield

    def inputs(self, images: Sequence[ImageInput]) -> Tensor:
        """Return images as network inputs: (B, 3, H, W), normalised, on the device."""
        return normalize(self._pixels(images).to(self.device))

    def _pixels(self, images: Sequence[ImageInput]) -> Tensor:
        """Return images resized and cropped as in validation, (B, 3, H, W) uint8."""
        return torch.stack([self._transform(as_example(image)) for image in images])


def check_pairs(images: Sequence[object], texts: Sequence[object]) -> None:
    """Raise DataError unless there are as many texts as images."""
    if len(images) != len(texts):
        raise DataError(
            f"{len(images)} images and {len(texts)} texts: give one text for each image"
        )
