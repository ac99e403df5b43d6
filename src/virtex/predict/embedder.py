"""A contrastively trained run in use: images and texts in, vectors of one space out."""

from collections.abc import Sequence

import torch
from torch import Tensor

from virtex.data.captions import NUM_ADDED, EncodeCaption, pad_tokens
from virtex.data.tokenizer import Tokenizer
from virtex.data.transforms import ImageConfig, ValidationTransform, normalize
from virtex.engine.run import Precision, autocast
from virtex.errors import ConfigError
from virtex.predict.image_inputs import ImageInputs, as_example, as_list, in_batches
from virtex.predict.matching import Match, MatchingConfig
from virtex.predict.results import check_finite
from virtex.tasks.contrastive import Contrastive


class Embedder:
    """A model that embeds images and texts in one space, where those that match lie close.

    Args:
        model: The model; it is put into evaluation mode and moved to `device`.
        image: How images become network inputs, as in validation.
        precision: Arithmetic of the model.
    """

    def __init__(
        self,
        model: Contrastive,
        tokenizer: Tokenizer,
        image: ImageConfig,
        *,
        device: torch.device | str = "cpu",
        precision: Precision = "fp32",
    ) -> None:
        self.model = model.eval().to(device)
        self.device, self.image, self.precision = torch.device(device), image, precision
        self._transform = ValidationTransform(image)
        self.tokenizer = tokenizer
        self._encode = EncodeCaption(tokenizer, max_tokens=model.text_encoder.config.max_tokens)

    def embed_images(self, images: ImageInputs, *, batch_size: int = 32) -> Tensor:
        """Return vectors (B, E) of length 1, float32, on the device.

        Raises:
            DataError: An image cannot be read, or has a type or shape that is not allowed.
            CheckpointError: A vector holds NaN or infinity.
        """
        vectors = [torch.zeros(0, self.embedding_size, device=self.device)]
        for batch in in_batches(as_list(images), batch_size):
            pixels = torch.stack([self._transform(as_example(image)) for image in batch])
            vectors.append(self._embed_normalized(normalize(pixels.to(self.device))))
        return torch.cat(vectors)

    def embed_texts(self, texts: str | Sequence[str], *, batch_size: int = 256) -> Tensor:
        """Return vectors (K, E) of length 1, float32, on the device.

        Texts that are too long are cut. The dot product with an image's vector is the cosine
        similarity.

        Raises:
            CheckpointError: A vector holds NaN or infinity.
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        vectors = [torch.zeros(0, self.embedding_size, device=self.device)]
        for batch in in_batches(texts, batch_size):
            tokens, lengths = pad_tokens([self._encode(text) for text in batch])
            with torch.inference_mode(), autocast(self.precision, self.device):
                vectors.append(self.model.embed_texts(tokens.to(self.device), lengths))
        check_finite(together := torch.cat(vectors))
        return together

    def match(self, texts: Sequence[str], config: MatchingConfig) -> Match:
        """Return a function from normalised images (B, 3, H, W) to cosine similarities (B, K).

        Raises:
            ConfigError: A direction or a prior is given, which this model does not have.
        """
        _refuse_options(config)
        vectors = self.embed_texts(texts)  # (K, E)

        def match(images: Tensor) -> Tensor:
            return self._embed_normalized(images) @ vectors.T

        return match

    @property
    def max_text_tokens(self) -> int:
        """Largest number of tokens of a text, without start and end; more are cut."""
        return self.model.text_encoder.config.max_tokens - NUM_ADDED

    @property
    def embedding_size(self) -> int:
        """Number of components E of a vector."""
        return self.model.image_projection.out_features

    def _embed_normalized(self, images: Tensor) -> Tensor:
        with torch.inference_mode(), autocast(self.precision, self.device):
            vectors = self.model.embed_images(images)
        check_finite(vectors)
        return vectors


def _refuse_options(config: MatchingConfig) -> None:
    problems = []
    if config.direction != "forward":
        problems.append(f"direction {config.direction!r} (its text encoder has one direction)")
    if config.prior:
        problems.append(f"prior {config.prior} (a text alone has no similarity)")
    if problems:
        raise ConfigError(
            f"{' and '.join(problems)} means nothing to a contrastively trained model, which ranks "
            "by cosine similarity. These options are for captioners: leave them out."
        )
