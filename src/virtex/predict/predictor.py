"""What a user holds: images in, captions and likelihoods out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from virtex.data.captions import EncodeCaption, pad_tokens
from virtex.data.tokenizer import Tokenizer
from virtex.data.transforms import ImageConfig, ValidationTransform, normalize
from virtex.engine.run import Precision, autocast
from virtex.errors import ConfigError, DataError
from virtex.models.captioner import Captioner
from virtex.models.decoding import DecodingConfig, Generated
from virtex.models.textual_head import Direction
from virtex.predict.attention import (
    CaptionAttention,
    attention_of,
    check_direction,
    reading_row,
)
from virtex.predict.matching import (
    DEFAULT_TEMPLATES,
    Likelihood,
    Match,
    MatchingConfig,
    Reading,
    directions,
    match_names,
)
from virtex.predict.pictures import Picture, Pictures, as_example, as_list

Item = TypeVar("Item")


@dataclass(frozen=True)
class Caption:
    """What the model says of an image."""

    text: str
    log_likelihood: float
    """Natural logarithm of the probability of `tokens`."""
    tokens: tuple[int, ...]
    """Ids without start token, with end token unless the caption was cut at its longest."""
    backward_log_likelihood: float | None = None
    """The same read right to left, where captions were ranked by it."""


@dataclass(frozen=True)
class Classification:
    """How well each label fits an image, without training."""

    labels: tuple[str, ...]
    """As they were given."""
    scores: tuple[float, ...]
    """Of each label: the mean over the templates of the text's log-likelihood, less the prior."""

    @property
    def ranked(self) -> list[tuple[str, float]]:
        """Labels and scores, the best first."""
        pairs = zip(self.labels, self.scores, strict=True)
        return sorted(pairs, key=lambda pair: pair[1], reverse=True)

    @property
    def best(self) -> str:
        """The label that fits best."""
        return self.ranked[0][0]

    @property
    def probabilities(self) -> tuple[float, ...]:
        """Softmax of the scores: what the labels share if one of them is right."""
        return tuple(torch.tensor(self.scores, dtype=torch.float64).softmax(0).tolist())


@dataclass(frozen=True)
class Found:
    """An image that a search found."""

    index: int
    """Its place among the images."""
    picture: Picture
    score: float
    """The text's log-likelihood, less the prior."""


@dataclass(frozen=True)
class Gallery:
    """Images to search more than once: the backbone has seen them already."""

    pictures: tuple[Picture, ...]
    grids: Tensor
    """(B, C, h, w) on the predictor's device."""


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
        images: Pictures,
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
            seed: Of sampling; the captions do not depend on `batch_size`.

        Raises:
            DataError: An image cannot be read, or is of no kind that we know.
        """
        written = self.captions(
            images, 1, decoding, prefix=prefix, batch_size=batch_size, seed=seed
        )
        return [captions[0] for captions in written]

    def captions(
        self,
        images: Pictures,
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
        decoding = decoding or self.default_decoding
        rng = torch.Generator().manual_seed(seed)
        start = torch.tensor(self.tokenizer.encode(prefix), dtype=torch.int64)
        written: list[list[Caption]] = []
        for batch in _batches(as_list(images), batch_size):
            with torch.inference_mode(), autocast(self.precision, self.device):
                generated = self.captioner.generate(
                    self.inputs(batch), decoding, num_captions=num_captions, prefix=start, rng=rng
                )
            written += captions_of(generated, self.tokenizer)
        return written

    @property
    def default_decoding(self) -> DecodingConfig:
        """Five beams, over as many steps as the model was built for, at most 30."""
        longest = min(DecodingConfig.max_steps, self.captioner.config.max_tokens)
        return DecodingConfig(max_steps=longest)

    def score(
        self,
        images: Pictures,
        texts: str | Sequence[str],
        *,
        direction: Reading = "forward",
        batch_size: int = 32,
    ) -> list[float]:
        """The log-likelihood of each image's text, its end token included.

        Texts longer than the model's longest caption are cut; unknown characters count nothing.

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
            with torch.inference_mode(), autocast(self.precision, self.device):
                grid = self.captioner.backbone(self.inputs([picture for picture, _ in batch]))
                each = [
                    self.captioner.score_grid(grid, tokens, lengths, direction=reader)
                    for reader in readers
                ]
            scores += torch.stack(each).mean(0).tolist()
        return scores

    def attend(
        self,
        images: Pictures,
        texts: str | Caption | Sequence[str | Caption] | None = None,
        *,
        decoding: DecodingConfig | None = None,
        direction: Direction = "forward",
        batch_size: int = 32,
    ) -> list[CaptionAttention]:
        """Where the decoder looked when it said each word of each image's caption.

        Args:
            texts: One an image: a text, or what `caption` said, whose tokens are taken as they
                are; if left out, `caption` is asked for them, with `decoding`.
            direction: Which decoder reads them.

        Raises:
            ConfigError: A direction in which the model does not read, or texts and `decoding` both.
            DataError: Not as many texts as images, or an image that cannot be read.
        """
        check_direction(self.captioner, direction)
        if texts is not None and decoding is not None:
            raise ConfigError("`decoding` writes the texts, and texts were given: give one of them")
        pictures = as_list(images)
        given = [texts] if isinstance(texts, str | Caption) else texts
        if given is not None and len(pictures) != len(given):
            raise DataError(
                f"{len(pictures)} images and {len(given)} texts: attend takes one text an image"
            )
        attentions: list[CaptionAttention] = []
        for places in _batches(range(len(pictures)), batch_size):
            with torch.inference_mode(), autocast(self.precision, self.device):
                grid = self.captioner.backbone(self.inputs([pictures[i] for i in places]))
                said = self._say(grid, decoding) if given is None else [given[i] for i in places]
                rows = [self._row(one, direction) for one in said]
                attentions += attention_of(
                    self.captioner, self.tokenizer, grid, rows=rows, direction=direction
                )
        return attentions

    def _say(self, grid: Tensor, decoding: DecodingConfig | None) -> list[Caption]:
        """A caption for each of B images, of which the backbone made `grid`."""
        decoding, rng = decoding or self.default_decoding, torch.Generator().manual_seed(0)
        generated = self.captioner.generate_grid(grid, decoding, rng=rng)
        return [captions[0] for captions in captions_of(generated, self.tokenizer)]

    def _row(self, text: str | Caption, direction: Direction) -> Tensor:
        if isinstance(text, str):
            return self._encode(text)
        return reading_row(text.tokens, direction, max_tokens=self.captioner.config.max_tokens)

    def classify(
        self,
        images: Pictures,
        labels: Sequence[str],
        *,
        templates: Sequence[str] = DEFAULT_TEMPLATES,
        matching: MatchingConfig = MatchingConfig(),  # noqa: B008
        batch_size: int = 32,
    ) -> list[Classification]:
        """Each image's labels by the likelihood of the captions that say them.

        Args:
            templates: Captions with {} for the label; a label's score is the mean over them.

        Raises:
            ConfigError: No labels, a template without {}, options that the model cannot meet.
            DataError: An image cannot be read, or is of no kind that we know.
        """
        match = match_names(self, labels, templates, matching)
        results: list[Classification] = []
        for batch in _batches(as_list(images), batch_size):
            scores = match(self.inputs(batch)).tolist()  # (B, K)
            results += [Classification(tuple(labels), tuple(row)) for row in scores]
        return results

    def search(
        self,
        text: str,
        images: Pictures | Gallery,
        *,
        top: int = 5,
        matching: MatchingConfig = MatchingConfig(),  # noqa: B008
        batch_size: int = 32,
    ) -> list[Found]:
        """The images of which `text` is likeliest, the best first.

        Args:
            images: For several searches, `gallery` of them.

        Raises:
            ConfigError: Options that the model cannot meet.
            DataError: An image cannot be read, or is of no kind that we know.
        """
        if not isinstance(images, Gallery):
            images = self.gallery(images, batch_size=batch_size)
        with torch.inference_mode(), autocast(self.precision, self.device):
            scores = self._likelihood([text], matching).of_grid(images.grids)[:, 0]
        best = scores.topk(min(top, len(scores)))
        return [
            Found(index, images.pictures[index], score)
            for score, index in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]

    def gallery(self, images: Pictures, *, batch_size: int = 32) -> Gallery:
        """Images that the backbone sees once, for `search` to be fast.

        Raises:
            DataError: No images, or one that cannot be read.
        """
        pictures = as_list(images)
        if not pictures:
            raise DataError("a gallery of no images: give at least one.")
        with torch.inference_mode(), autocast(self.precision, self.device):
            grids = [
                self.captioner.backbone(self.inputs(batch))
                for batch in _batches(pictures, batch_size)
            ]
        return Gallery(tuple(pictures), torch.cat(grids))

    def match(self, texts: Sequence[str], config: MatchingConfig) -> Match:
        """Log-likelihoods (B, K) of K texts for normalised images (B, 3, H, W).

        The texts are laid out once: what they begin with alike is read once for an image.

        Raises:
            ConfigError: A direction in which the model does not read.
        """
        likelihood = self._likelihood(texts, config)

        def match(images: Tensor) -> Tensor:
            with torch.inference_mode(), autocast(self.precision, self.device):
                return likelihood(images)

        return match

    def _likelihood(self, texts: Sequence[str], config: MatchingConfig) -> Likelihood:
        tokens = [self._encode(text).tolist() for text in texts]
        with torch.inference_mode(), autocast(self.precision, self.device):
            return Likelihood(self.captioner, tokens, config, image_size=self.image.size)

    def inputs(self, pictures: Sequence[Picture]) -> Tensor:
        """(B, 3, H, W), normalised, on the device."""
        images = torch.stack([self._transform(as_example(picture)) for picture in pictures])
        return normalize(images.to(self.device))


def captions_of(generated: Generated, tokenizer: Tokenizer) -> list[list[Caption]]:
    """What a search wrote, (B, n), as text; captions that it did not find are left out."""
    written: list[list[Caption]] = []
    size = generated.lengths.shape
    backward = generated.backward_log_probs
    rows = zip(
        generated.tokens.tolist(),
        generated.lengths.tolist(),
        generated.log_probs.tolist(),
        [[None] * size[1]] * size[0] if backward is None else backward.tolist(),
        strict=True,
    )
    for row in rows:
        captions = [
            Caption(tokenizer.decode(ids[:length]), log_prob, tuple(ids[:length]), reread)
            for ids, length, log_prob, reread in zip(*row, strict=True)
        ]
        written.append([one for one in captions if one.log_likelihood > float("-inf")])
    return written


def _batches(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
