"""What a user holds: images in, captions and likelihoods out."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from virtex.config import from_dict
from virtex.data.captions import EncodeCaption, pad_tokens
from virtex.data.example import Example
from virtex.data.tokenizer import Tokenizer
from virtex.data.transforms import ImageConfig, ValidationTransform, normalize
from virtex.errors import CheckpointError, ConfigError, DataError
from virtex.models.backbone import Backbone, BackboneConfig
from virtex.models.captioner import Captioner
from virtex.models.decoding import DecodingConfig
from virtex.tasks import registry  # noqa: F401 (a config names its task's class)
from virtex.tasks.base import TaskConfig, TaskData
from virtex.zoo import registry as published_models
from virtex.zoo.legacy import load_released
from virtex.zoo.published import read_torch_file
from virtex.zoo.weights import (
    Weights,
    is_trained_file,
    load_strictly,
    read_trained,
    stored_backbone,
    trained_file,
)

Item = TypeVar("Item")
Picture = str | Path | Image.Image | Tensor | NDArray[np.uint8]
"""A path, a PIL image, or uint8 pixels: a tensor (3, H, W) or an array (H, W, 3)."""
Pictures = Picture | Sequence[Picture]
"""One, several, or several stacked: a tensor (B, 3, H, W) or an array (B, H, W, 3)."""

NO_TOKENIZER = (
    "{what} holds no tokenizer: give the SentencePiece model that it was trained with as "
    "`tokenizer`, on the command line --tokenizer FILE. None is published: see docs/zoo.md."
)


@dataclass(frozen=True)
class Caption:
    """What the model says of an image."""

    text: str
    log_likelihood: float
    """Natural logarithm of the probability of `tokens`."""
    tokens: tuple[int, ...]
    """Ids without start token, with end token unless the caption was cut at its longest."""


class Predictor:
    """Writes captions of images, and says how likely a given caption is.

    Args:
        captioner: In evaluation mode from now on, and moved to `device`.
        image: How images become network inputs, as in validation.
    """

    def __init__(
        self,
        captioner: Captioner,
        tokenizer: Tokenizer,
        image: ImageConfig,
        *,
        device: torch.device | str = "cpu",
    ) -> None:
        self.captioner = captioner.eval().to(device)
        self.tokenizer, self.device = tokenizer, torch.device(device)
        self.image, self._transform = image, ValidationTransform(image)
        self._encode = EncodeCaption(
            tokenizer, max_tokens=captioner.config.max_tokens, original=False
        )

    def caption(
        self,
        images: Pictures,
        decoding: DecodingConfig | None = None,
        *,
        batch_size: int = 32,
        seed: int = 0,
    ) -> list[Caption]:
        """A caption for each image.

        Args:
            decoding: How to search; if left out, beam search with five beams, over at most 30
                steps or what the model was built for.
            seed: Of nucleus sampling; the captions do not depend on `batch_size`.

        Raises:
            DataError: An image cannot be read, or is of no kind that we know.
        """
        if decoding is None:
            longest = min(DecodingConfig.max_steps, self.captioner.config.max_tokens)
            decoding = DecodingConfig(max_steps=longest)
        rng = torch.Generator().manual_seed(seed)
        captions: list[Caption] = []
        for batch in _batches(as_list(images), batch_size):
            generated = self.captioner.generate(self._inputs(batch), decoding, rng=rng)
            rows = zip(
                generated.tokens.tolist(),
                generated.lengths.tolist(),
                generated.log_probs.tolist(),
                strict=True,
            )
            for tokens, length, log_prob in rows:
                text = self.tokenizer.decode(tokens[:length])
                captions.append(Caption(text, log_prob, tuple(tokens[:length])))
        return captions

    def score(
        self, images: Pictures, texts: str | Sequence[str], *, batch_size: int = 32
    ) -> list[float]:
        """The log-likelihood of each image's text, read left to right, its end token included.

        Texts longer than the model's longest caption are cut; unknown characters count nothing.

        Raises:
            DataError: Not as many texts as images, or an image that cannot be read.
        """
        pictures = as_list(images)
        texts = [texts] if isinstance(texts, str) else list(texts)
        if len(pictures) != len(texts):
            raise DataError(
                f"{len(pictures)} images and {len(texts)} texts: score takes one text an image"
            )
        scores: list[float] = []
        pairs = list(zip(pictures, texts, strict=True))
        for batch in _batches(pairs, batch_size):
            tokens, lengths = pad_tokens([self._encode(text) for _, text in batch])
            inputs = self._inputs([picture for picture, _ in batch])
            scores += self.captioner.score(inputs, tokens.to(self.device), lengths).tolist()
        return scores

    def _inputs(self, pictures: Sequence[Picture]) -> Tensor:
        """(B, 3, H, W), normalised, on the device."""
        images = torch.stack([self._transform(_example(picture)) for picture in pictures])
        return normalize(images.to(self.device))


def load_captioner(
    init: str | Path,
    *,
    tokenizer: Tokenizer | str | Path | None = None,
    device: torch.device | str = "cpu",
) -> Predictor:
    """The captioner in a run folder, a weights file, a checkpoint, or a released VirTex file.

    Args:
        init: Where that is, or a published name.
        tokenizer: The vocabulary of a released file, which holds none; ours bring their own.

    Raises:
        CheckpointError: Nothing there that captions images.
        ConfigError: A tokenizer is missing, or given where there is one already.
    """
    published = _published_writer(init)
    if published is not None and tokenizer is None:
        raise ConfigError(NO_TOKENIZER.format(what=published.name))
    path = trained_file(init)
    if is_trained_file(path):
        if tokenizer is not None:
            raise ConfigError(f"{path} brings its own tokenizer: leave `tokenizer` out.")
        weights = read_trained(path)
        captioner, data = _rebuild(weights, path)
        return Predictor(captioner, data.vocabulary, data.image, device=device)
    if published is None:
        captioner = load_released(read_torch_file(path), path)
    else:
        captioner = load_released(published_models.read_fetched(path), path)
        published_models.check_captioner(captioner, published, path)
    if tokenizer is None:
        raise ConfigError(NO_TOKENIZER.format(what=path))
    if not isinstance(tokenizer, Tokenizer):
        tokenizer = Tokenizer.load(tokenizer)
    if len(tokenizer) != captioner.vocab_size:
        raise ConfigError(
            f"the tokenizer has {len(tokenizer)} pieces, {path} was trained with "
            f"{captioner.vocab_size}: give the one it was trained with."
        )
    return Predictor(captioner, tokenizer, ImageConfig(), device=device)


def _published_writer(init: str | Path) -> published_models.Published | None:
    """The published model that INIT names, if it names one.

    Raises:
        CheckpointError: What INIT names, or a published file is called, writes no captions.
    """
    if str(init) in ("random", "imagenet"):
        raise CheckpointError(
            f"{init} is a backbone alone, which writes no captions; load_backbone takes it."
        )
    published = published_models.named(init)
    model = published or published_models.of_file(Path(init))
    if model is not None and not model.writes_captions:
        raise CheckpointError(
            f"{init} is a {model.kind} model, which writes no captions; load_backbone takes its "
            "backbone."
        )
    return published


@dataclass(frozen=True)
class _Trained:
    """The part of a run's config that says what was trained."""

    backbone: BackboneConfig
    image: ImageConfig
    task: TaskConfig


def _rebuild(weights: Weights, path: Path) -> tuple[Captioner, TaskData]:
    """The trained captioner and the data it was trained on."""
    names = ("backbone", "image", "task")
    try:
        config = from_dict(_Trained, {name: weights.config[name] for name in names})
    except (ConfigError, KeyError) as error:
        raise CheckpointError(f"{path}: its config is not readable: {error}") from error
    if not config.task.writes_captions:
        raise CheckpointError(
            f"{path} was trained by {type(config.task).__name__}, which writes no captions; "
            "load_backbone takes its backbone."
        )
    if weights.tokenizer is None:
        raise CheckpointError(f"{path} has no tokenizer.model in the run folder above it.")
    data = TaskData(config.image, weights.tokenizer, weights.categories)
    with torch.random.fork_rng(devices=[]):  # what is drawn here is overwritten
        task = config.task.build(Backbone(stored_backbone(weights.config, path)), data)
    load_strictly(task, weights.state, path)
    assert task.writer is not None
    return task.writer, data


def as_list(images: Pictures) -> list[Picture]:
    """One picture, several, or a stack of them, as a list."""
    if isinstance(images, Tensor | np.ndarray):
        return [images] if images.ndim == 3 else list(images)
    return [images] if isinstance(images, str | Path | Image.Image) else list(images)


def _batches(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _example(picture: Picture) -> Example:
    """A picture as what the transforms take.

    Raises:
        DataError: It is none that we know.
    """
    if isinstance(picture, str | Path):
        return Example(str(picture), Path(picture))
    if isinstance(picture, Image.Image):
        return Example("a PIL image", _pixels(picture))
    if isinstance(picture, Tensor) and picture.ndim == 3:
        pixels = picture.movedim(0, 2).cpu().numpy()
    else:
        pixels = np.asarray(picture)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise DataError(
            f"an image is a {type(picture).__name__} of {pixels.dtype} and shape "
            f"{tuple(np.shape(picture))}. Allowed are paths, PIL images, uint8 tensors (3, H, W) "
            "and uint8 arrays (H, W, 3), not normalised."
        )
    return Example(f"a {type(picture).__name__}", pixels)


def _pixels(image: Image.Image) -> bytes | NDArray[np.uint8]:
    """A PIL image as the file that it came from would be read: upright, transparency on white."""
    upright = ImageOps.exif_transpose(image)
    if upright.has_transparency_data or upright.mode.startswith("I"):
        file = io.BytesIO()
        upright.save(file, "PNG", compress_level=1)
        return file.getvalue()
    return np.asarray(upright.convert("RGB"))
