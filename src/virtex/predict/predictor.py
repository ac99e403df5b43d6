"""What a user holds: images in, captions and likelihoods out."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor

from virtex.data.captions import EncodeCaption, pad_tokens
from virtex.data.tokenizer import Tokenizer
from virtex.data.transforms import ImageConfig, ValidationTransform, normalize
from virtex.engine.run import Precision, autocast
from virtex.errors import ConfigError, DataError
from virtex.models.captioner import Captioner
from virtex.models.decoding import DecodingConfig
from virtex.models.textual_head import Direction
from virtex.predict.attention import (
    CaptionAttention,
    attention_of,
    check_direction,
    reading_row,
)
from virtex.predict.draws import draws_of
from virtex.predict.image_inputs import ImageInput, ImageInputs, as_example, as_list
from virtex.predict.matching import (
    DEFAULT_TEMPLATES,
    Likelihood,
    Match,
    MatchingConfig,
    Reading,
    check_texts,
    directions,
    match_names,
)
from virtex.predict.results import (
    Caption,
    Classification,
    Found,
    Gallery,
    Writing,
    captions_of,
    require_numbers,
    with_likelihood,
)

Item = TypeVar("Item")
SPECIALS = 2
"""Start and end token."""


class Predictor:
    """Writes captions of images, and says how likely texts are.

    Args:
        captioner: In evaluation mode from now on, and moved to `device`.
        image: How images become network inputs, as in validation.
        precision: Arithmetic of the model.
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
        self._encode = EncodeCaption(
            tokenizer, max_tokens=captioner.config.max_tokens, original=False
        )

    def caption(
        self,
        images: ImageInputs,
        decoding: DecodingConfig | None = None,
        *,
        prefix: str = "",
        batch_size: int = 32,
        seed: int = 0,
    ) -> list[Caption]:
        """A caption for each image.

        Args:
            decoding: How to search; if left out, beam search with five beams, over at most 30
                steps or what the model was built for.
            prefix: Words that every caption begins with; the model goes on from there.
            seed: Of sampling. An image's draws follow from it and from the image's place, so that
                its captions depend neither on `batch_size` nor on the other images.

        Raises:
            DataError: An image cannot be read, or is of no kind that we know.
        """
        written = self.captions(
            images, 1, decoding, prefix=prefix, batch_size=batch_size, seed=seed
        )
        return [captions[0] for captions in written]

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
        """Several captions for each image, the best first; fewer where the search finds fewer.

        Args and errors as of `caption`; beam search writes at most as many as it has beams.
        """
        writing = Writing(decoding or self.default_decoding, num_captions, prefix, seed)
        pictures = as_list(images)
        written: list[list[Caption]] = []
        for indices in _batches(range(len(pictures)), batch_size):
            pixels = self._pixels([pictures[i] for i in indices])
            written += with_likelihood(self.write_captions(pixels, indices, writing))
        return written

    def write_captions(
        self, images: Tensor, keys: Sequence[object], writing: Writing
    ) -> list[list[Caption]]:
        """Write captions of a batch of images, each image's by descending rank.

        Where the search found too few, a caption of likelihood -inf stands in.

        Args:
            images: (B, 3, H, W) uint8.
            keys: Names or indices of the B images; an image's random draws follow from its key
                and the seed, so that its captions do not depend on its batch.
        """
        return self._write(self._grid(images), keys, writing)

    @property
    def default_decoding(self) -> DecodingConfig:
        """Five beams, over as many steps as the model was built for, at most 30."""
        return DecodingConfig().within(self.captioner.config.max_tokens)

    def score(
        self,
        images: ImageInputs,
        texts: str | Sequence[str],
        *,
        direction: Reading = "forward",
        batch_size: int = 32,
    ) -> list[float]:
        """The log-likelihood of each image's text, its end token included.

        Texts are cut to the longest that training saw. An unknown character is a token that counts
        nothing itself, but a space before it is read.

        Args:
            direction: Which decoder reads it; both: the mean of the two.

        Raises:
            ConfigError: A direction in which the model does not read.
            DataError: Not as many texts as images, or an image that cannot be read.
        """
        pictures = as_list(images)
        texts = [texts] if isinstance(texts, str) else list(texts)
        if len(pictures) != len(texts):
            raise DataError(
                f"{len(pictures)} images and {len(texts)} texts: score takes one text an image"
            )
        readers = directions(self.captioner, direction)
        scores: list[float] = []
        pairs = list(zip(pictures, texts, strict=True))
        for batch in _batches(pairs, batch_size):
            tokens, lengths = pad_tokens([self._encode(text) for _, text in batch])
            tokens = tokens.to(self.device)
            grid = self._grid(self._pixels([picture for picture, _ in batch]))
            with self._computing():
                each = [
                    self.captioner.score_grid(grid, tokens, lengths, direction=reader)
                    for reader in readers
                ]
            mean = torch.stack(each).mean(0)  # (B,)
            require_numbers(mean)
            scores += mean.tolist()
        return scores

    def attend(
        self,
        images: ImageInputs,
        texts: str | Caption | Sequence[str | Caption] | None = None,
        *,
        decoding: DecodingConfig | None = None,
        prefix: str = "",
        direction: Direction = "forward",
        batch_size: int = 32,
        seed: int = 0,
    ) -> list[CaptionAttention]:
        """Where the decoder looked when it said each word of each image's caption.

        Args:
            texts: One an image: a text, or what `caption` said, whose tokens are taken as they
                are; if left out, those that `caption` writes with `decoding`, `prefix` and `seed`.
            direction: Which decoder reads them.

        Raises:
            ConfigError: A direction in which the model does not read, or texts beside `decoding` or
                `prefix`.
            DataError: Not as many texts as images, or an image that cannot be read.
        """
        check_direction(self.captioner, direction)
        if texts is not None and (decoding is not None or prefix):
            raise ConfigError("texts were given, and options for writing them: give one of the two")
        pictures = as_list(images)
        given = [texts] if isinstance(texts, str | Caption) else texts
        if given is not None and len(pictures) != len(given):
            raise DataError(
                f"{len(pictures)} images and {len(given)} texts: attend takes one text an image"
            )
        writing = Writing(decoding or self.default_decoding, prefix=prefix, seed=seed)
        attentions: list[CaptionAttention] = []
        for places in _batches(range(len(pictures)), batch_size):
            grid = self._grid(self._pixels([pictures[i] for i in places]))
            if given is None:
                written = with_likelihood(self._write(grid, places, writing))
                said: list[str | Caption] = [captions[0] for captions in written]
            else:
                said = [given[i] for i in places]
            rows = [self._row(one, direction) for one in said]
            with self._computing():
                attentions += attention_of(
                    self.captioner, self.tokenizer, grid, rows=rows, direction=direction
                )
        return attentions

    def _row(self, text: str | Caption, direction: Direction) -> Tensor:
        if isinstance(text, str):
            return self._encode(text)
        return reading_row(text.tokens, direction, max_tokens=self.captioner.config.max_tokens)

    def classify(
        self,
        images: ImageInputs,
        labels: Sequence[str],
        *,
        templates: str | Sequence[str] = DEFAULT_TEMPLATES,
        matching: MatchingConfig = MatchingConfig(),  # noqa: B008
        batch_size: int = 32,
    ) -> list[Classification]:
        """Each image's labels by the likelihood of the captions that say them.

        Args:
            templates: Captions with {} for the label; a label's score is the mean over them.

        Raises:
            ConfigError: No labels, some that the model cannot tell apart, a template without {},
                options that the model cannot meet.
            DataError: An image cannot be read, or is of no kind that we know.
        """
        if isinstance(labels, str):
            raise ConfigError(f"labels is one text, {labels!r}: give a list of labels")
        if not all(isinstance(label, str) for label in labels):
            raise ConfigError(f"labels {list(labels)} must be texts")
        templates = [templates] if isinstance(templates, str) else templates
        match = match_names(self, labels, templates, matching)
        self._check_texts(
            {label: [template.replace("{}", label) for template in templates] for label in labels}
        )
        results: list[Classification] = []
        for batch in _batches(as_list(images), batch_size):
            scores = match(self.inputs(batch)).tolist()  # (B, K)
            results += [Classification(tuple(labels), tuple(row)) for row in scores]
        return results

    def search(
        self,
        text: str,
        images: ImageInputs | Gallery,
        *,
        top: int = 5,
        matching: MatchingConfig = MatchingConfig(),  # noqa: B008
        batch_size: int = 32,
    ) -> list[Found]:
        """The images of which `text` is likeliest, the best first.

        Args:
            images: For several searches, `gallery` of them.

        Raises:
            ConfigError: No text or too long a one, `top` below 1, options that the model cannot
                meet.
            DataError: An image cannot be read, or is of no kind that we know.
        """
        if top < 1:
            raise ConfigError(f"top is {top}, must be at least 1")
        self._check_texts({text: [text]})
        if not isinstance(images, Gallery):
            images = self.gallery(images, batch_size=batch_size)
        likelihood = self._likelihood([text], matching)
        with self._computing():
            scores = likelihood.of_grid(images.grids)[:, 0]
        require_numbers(scores)
        best = scores.topk(min(top, len(scores)))
        return [
            Found(index, images.pictures[index], score)
            for score, index in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]

    def gallery(self, images: ImageInputs, *, batch_size: int = 32) -> Gallery:
        """Images that the backbone sees once, for `search` to be fast.

        Raises:
            DataError: No images, or one that cannot be read.
        """
        pictures = as_list(images)
        if not pictures:
            raise DataError("a gallery of no images: give at least one.")
        grids = [self._grid(self._pixels(batch)) for batch in _batches(pictures, batch_size)]
        return Gallery(tuple(pictures), torch.cat(grids))

    def match(self, texts: Sequence[str], config: MatchingConfig) -> Match:
        """Log-likelihoods (B, K) of K texts for normalised images (B, 3, H, W).

        The texts are laid out once: what they begin with alike is read once for an image.

        Raises:
            ConfigError: A direction in which the model does not read.
        """
        likelihood = self._likelihood(texts, config)

        def match(images: Tensor) -> Tensor:
            with self._computing():
                scores = likelihood(images)
            require_numbers(scores)
            return scores

        return match

    def _likelihood(self, texts: Sequence[str], config: MatchingConfig) -> Likelihood:
        tokens = [self._encode(text).tolist() for text in texts]
        with self._computing():
            return Likelihood(self.captioner, tokens, config, image_size=self.image.size)

    def _check_texts(self, texts: Mapping[str, Sequence[str]]) -> None:
        check_texts(
            texts, self.tokenizer.encode, max_tokens=self.captioner.config.max_tokens - SPECIALS
        )

    def _write(self, grid: Tensor, keys: Sequence[object], writing: Writing) -> list[list[Caption]]:
        """Write captions as `write_captions` does, given the feature grid (B, C, h, w)."""
        decoding = writing.decoding
        prefix = torch.tensor(self.tokenizer.encode(writing.prefix), dtype=torch.int64)
        with self._computing():
            generated = self.captioner.generate_grid(
                grid,
                decoding,
                num_captions=writing.num_captions,
                prefix=prefix,
                rng=draws_of(writing.seed, keys) if decoding.strategy == "nucleus" else None,
            )
        return captions_of(generated, self.tokenizer)

    def _grid(self, images: Tensor) -> Tensor:
        """Return the feature grid (B, C, h, w) of images (B, 3, H, W) uint8."""
        with self._computing():
            return self.captioner.backbone(normalize(images.to(self.device, non_blocking=True)))

    @contextmanager
    def _computing(self) -> Iterator[None]:
        with torch.inference_mode(), autocast(self.precision, self.device):
            yield

    def inputs(self, pictures: Sequence[ImageInput]) -> Tensor:
        """(B, 3, H, W), normalised, on the device."""
        return normalize(self._pixels(pictures).to(self.device))

    def _pixels(self, pictures: Sequence[ImageInput]) -> Tensor:
        """Return images as validation sees them, (B, 3, H, W) uint8."""
        return torch.stack([self._transform(as_example(picture)) for picture in pictures])


def _batches(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    if size < 1:
        raise ConfigError(f"batch_size is {size}, must be at least 1")
    for start in range(0, len(items), size):
        yield items[start : start + size]
