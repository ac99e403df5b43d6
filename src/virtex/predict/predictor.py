"""A captioner in use: images in, captions, likelihoods and attention out."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from virtex.data.captions import NUM_ADDED, EncodeCaption, pad_tokens
from virtex.data.tokenizer import Tokenizer
from virtex.data.transforms import ImageConfig, ValidationTransform, normalize
from virtex.engine.run import Precision, autocast
from virtex.errors import ConfigError, DataError, is_integer, raise_all
from virtex.models.captioner import Captioner
from virtex.models.decoding import DecodingConfig
from virtex.models.packing import DIRECTIONS, Direction
from virtex.predict.attention import CaptionAttention, attend_to_captions, caption_tokens
from virtex.predict.image_inputs import ImageInput, ImageInputs, as_example, as_list, in_batches
from virtex.predict.label_texts import LabelTexts
from virtex.predict.matching import (
    DEFAULT_TEMPLATES,
    Likelihood,
    Match,
    MatchingConfig,
    Reading,
    decoders_for,
    match_names,
)
from virtex.predict.results import (
    Caption,
    Classification,
    Found,
    Gallery,
    Writing,
    check_not_nan,
    decode_captions,
    drop_impossible,
)


class Predictor:
    """A captioner that writes captions of images, scores texts, and shows its attention.

    Args:
        captioner: The model; it is put into evaluation mode and moved to `device`.
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

    def score(
        self,
        images: ImageInputs,
        texts: str | Sequence[str],
        *,
        direction: Reading = "forward",
        batch_size: int = 32,
    ) -> list[float]:
        """Return the log-likelihood of each image's text, its end token included.

        A text is cut to the model's maximum length. An unknown character adds nothing to the
        log-likelihood, but a space before it does.

        Args:
            direction: The decoder to score with; both: the mean of the two.

        Raises:
            ConfigError: The model has no decoder of that direction.
            DataError: The numbers of texts and images differ, or an image cannot be read.
        """
        inputs = as_list(images)
        texts = [texts] if isinstance(texts, str) else list(texts)
        _check_pairs(inputs, texts, "score")
        directions = decoders_for(self.captioner, direction)
        scores: list[float] = []
        for indices in in_batches(range(len(inputs)), batch_size):
            tokens, lengths = pad_tokens([self._encode(texts[index]) for index in indices])
            tokens = tokens.to(self.device)
            grid = self._grid(self._pixels([inputs[index] for index in indices]))
            with self._computing():
                each = [
                    self.captioner.score_grid(grid, tokens, lengths, direction=one)
                    for one in directions
                ]
            mean = torch.stack(each).mean(0)  # (B,)
            check_not_nan(mean)
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
        """Return the decoder's attention over each image, for each word of the image's caption.

        Args:
            texts: One for each image: a text, or a result of `caption`, whose tokens are read as
                they are. By default `caption` writes them with `decoding`, `prefix` and `seed`.
            direction: The decoder that reads the captions.

        Raises:
            ConfigError: The model has no decoder of that direction, or `texts` is given together
                with `decoding` or `prefix`.
            DataError: The numbers of texts and images differ, or an image cannot be read.
        """
        if direction not in DIRECTIONS:
            raise ConfigError(f"direction {direction!r} is none of {', '.join(DIRECTIONS)}")
        decoders_for(self.captioner, direction)
        if texts is not None and (decoding is not None or prefix):
            raise ConfigError("texts were given, and options for writing them: give one of the two")
        inputs = as_list(images)
        given = [texts] if isinstance(texts, str | Caption) else texts
        if given is not None:
            _check_pairs(inputs, given, "attend")
        writing = Writing(decoding or self.default_decoding, prefix=prefix, seed=seed)
        attentions: list[CaptionAttention] = []
        for indices in in_batches(range(len(inputs)), batch_size):
            grid = self._grid(self._pixels([inputs[index] for index in indices]))
            captions: list[str | Caption]
            if given is None:
                found = drop_impossible(self._write(grid, indices, writing))
                captions = [of_image[0] for of_image in found]
            else:
                captions = [given[index] for index in indices]
            rows = [self._tokens(caption, direction) for caption in captions]
            with self._computing():
                attentions += attend_to_captions(
                    self.captioner, self.tokenizer, grid, rows=rows, direction=direction
                )
        return attentions

    def _tokens(self, caption: str | Caption, direction: Direction) -> Tensor:
        if isinstance(caption, str):
            return self._encode(caption)
        max_tokens = self.captioner.config.max_tokens
        return caption_tokens(caption.tokens, direction, max_tokens=max_tokens)

    def classify(
        self,
        images: ImageInputs,
        labels: Sequence[str],
        *,
        templates: str | Sequence[str] = DEFAULT_TEMPLATES,
        matching: MatchingConfig = MatchingConfig(),  # noqa: B008
        batch_size: int = 32,
    ) -> list[Classification]:
        """Score labels for each image by the likelihood of captions that contain them.

        Args:
            templates: Captions with {} for the label; a label's score is the mean over them.

        Raises:
            ConfigError: There are no labels; one is blank, too long, or has characters that the
                vocabulary lacks; the model cannot tell two of them apart; a template has no {}; or
                the model does not support the options.
            DataError: An image cannot be read, or has a type or shape that is not allowed.
        """
        if isinstance(labels, str):
            raise ConfigError(f"labels is one text, {labels!r}: give a list of labels")
        if not all(isinstance(label, str) for label in labels):
            raise ConfigError(f"labels {list(labels)} must be texts")
        templates = [templates] if isinstance(templates, str) else templates
        match = match_names(self, labels, templates, matching)
        texts = LabelTexts.of(labels, templates, self)
        problems = [*(texts.unreadable() or texts.alike()), *texts.too_long()]
        raise_all(ConfigError, f"{len(texts.tokens)} labels cannot be compared", problems)
        results: list[Classification] = []
        for batch in in_batches(as_list(images), batch_size):
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
        """Return the `top` images under which `text` is most likely, by descending score.

        Args:
            images: Images; or, for several searches of the same ones, their `gallery`.

        Raises:
            ConfigError: The text is empty, too long, or has characters that the vocabulary lacks;
                `top` is no number from 1; or the model does not support the options.
            DataError: An image cannot be read, or has a type or shape that is not allowed.
        """
        if not is_integer(top) or top < 1:
            raise ConfigError(f"top is {top!r}, must be a whole number of at least 1")
        if not isinstance(text, str):
            raise ConfigError(f"text is {text!r}, must be one text")
        texts = LabelTexts.of([text], ["{}"], self)
        problems = [*texts.unreadable(), *texts.too_long()]
        raise_all(ConfigError, "the text cannot be searched for", problems)
        if not isinstance(images, Gallery):
            images = self.gallery(images, batch_size=batch_size)
        likelihood = self._likelihood([text], matching)
        with self._computing():
            scores = likelihood.of_grid(images.grids)[:, 0]
        check_not_nan(scores)
        best = scores.topk(min(top, len(scores)))
        return [
            Found(index, images.images[index], score)
            for score, index in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]

    def gallery(self, images: ImageInputs, *, batch_size: int = 32) -> Gallery:
        """Return images with their features, so that many searches compute these once.

        Raises:
            DataError: There are no images, or one cannot be read.
        """
        inputs = as_list(images)
        if not inputs:
            raise DataError("a gallery of no images: give at least one.")
        grids = [self._grid(self._pixels(batch)) for batch in in_batches(inputs, batch_size)]
        return Gallery(tuple(inputs), torch.cat(grids))

    def match(self, texts: Sequence[str], config: MatchingConfig) -> Match:
        """Return a function from normalised images (B, 3, H, W) to log-likelihoods (B, K) of texts.

        Texts that share a prefix share its computation.

        Raises:
            ConfigError: The model has no decoder of the direction.
        """
        likelihood = self._likelihood(texts, config)

        def match(images: Tensor) -> Tensor:
            with self._computing():
                scores = likelihood(images)
            check_not_nan(scores)
            return scores

        return match

    def _likelihood(self, texts: Sequence[str], config: MatchingConfig) -> Likelihood:
        tokens = [self._encode(text).tolist() for text in texts]
        with self._computing():
            return Likelihood(self.captioner, tokens, config, image_size=self.image.size)

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


def _check_pairs(images: Sequence[object], texts: Sequence[object], method: str) -> None:
    if len(images) != len(texts):
        raise DataError(
            f"{len(images)} images and {len(texts)} texts: {method} takes one text an image"
        )
