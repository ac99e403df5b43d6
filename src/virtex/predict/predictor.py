"""A captioner in use: images in, captions, likelihoods and attention out."""

from collections.abc import Sequence

import torch
from torch import Tensor

from virtex.data.captions import pad_tokens
from virtex.engine.run import autocast
from virtex.errors import ConfigError, DataError, is_integer, raise_all
from virtex.models.decoding import DecodingConfig
from virtex.models.packing import DIRECTIONS, Direction
from virtex.predict.attention import CaptionAttention, attend_to_captions
from virtex.predict.caption_writer import CaptionWriter, check_pairs
from virtex.predict.image_inputs import ImageInputs, as_list, in_batches
from virtex.predict.label_texts import LabelTexts, given_several_times
from virtex.predict.matching import (
    DEFAULT_TEMPLATES,
    Likelihood,
    Match,
    MatchingConfig,
    Reading,
    decoders_for,
    match_names,
)
from virtex.predict.relevance import CaptionRelevance, relevance_to_captions
from virtex.predict.results import (
    Caption,
    Classification,
    Found,
    Gallery,
    check_not_nan,
)


class Predictor(CaptionWriter):
    """A captioner that writes captions of images, scores texts, and shows what it reads where.

    Args:
        captioner: The model; it is put into evaluation mode and moved to `device`.
        image: How images become network inputs, as in validation.
        precision: Arithmetic of the model.
    """

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
        check_pairs(inputs, texts)
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
        attentions: list[CaptionAttention] = []
        for grid, captions in self._read(images, texts, decoding, prefix, batch_size, seed):
            rows = [self._tokens(caption, direction) for caption in captions]
            with self._computing():
                attentions += attend_to_captions(
                    self.captioner, self.tokenizer, grid, rows=rows, direction=direction
                )
        return attentions

    def relevance(
        self,
        images: ImageInputs,
        texts: str | Caption | Sequence[str | Caption] | None = None,
        *,
        decoding: DecodingConfig | None = None,
        prefix: str = "",
        direction: Reading | None = None,
        batch_size: int = 32,
        seed: int = 0,
    ) -> list[CaptionRelevance]:
        """Return the relevance of each image's cells to each word of the image's caption.

        Args:
            texts: See `attend`.
            direction: The decoder that reads the captions; both: the mean of the two; by default
                all that the model has.

        Raises:
            ConfigError, DataError: See `attend`.
        """
        directions = (
            decoders_for(self.captioner, direction) if direction else self.captioner.head.directions
        )
        found: list[CaptionRelevance] = []
        for grid, captions in self._read(images, texts, decoding, prefix, batch_size, seed):
            rows = [self._tokens(caption, directions[-1]) for caption in captions]
            with autocast(self.precision, self.device):
                found += relevance_to_captions(
                    self.captioner, self.tokenizer, grid, rows=rows, directions=directions
                )
        return found

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
            ConfigError: There are no labels; one is blank, too long, given several times, or has
                characters that the vocabulary lacks; the model cannot tell two of them apart; a
                template has no {}; or the model does not support the options.
            DataError: An image cannot be read, or has a type or shape that is not allowed.
        """
        if isinstance(labels, str):
            raise ConfigError(f"labels is one text, {labels!r}: give a list of labels")
        if not all(isinstance(label, str) for label in labels):
            raise ConfigError(f"labels {list(labels)} must be texts")
        templates = [templates] if isinstance(templates, str) else templates
        match = match_names(self, labels, templates, matching)
        texts = LabelTexts.of(labels, templates, self)
        problems = [
            *given_several_times(labels),
            *(texts.unreadable() or texts.alike()),
            *texts.too_long(),
        ]
        raise_all(ConfigError, f"{len(labels)} labels cannot be compared", problems)
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
