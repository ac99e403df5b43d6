"""Sample captions of a few validation images, written during training."""

import hashlib
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from virtex import files
from virtex.data.example import Example, Source
from virtex.data.images import BadImageError, decode_image
from virtex.data.tokenizer import Tokenizer
from virtex.data.transforms import ImageConfig, ValidationTransform, normalize
from virtex.errors import DataError
from virtex.models.captioner import Captioner
from virtex.models.decoding import DecodingConfig

SHOWN_SIDE = 384
"""Longest side, in pixels, of the images stored with the captions."""


class SampleWriter:
    """Writer of RUN/samples.json: images with reference and latest generated captions."""

    def __init__(
        self,
        folder: Path,
        source: Source,
        tokenizer: Tokenizer,
        image: ImageConfig,
        *,
        limit: int,
    ) -> None:
        self.folder, self.tokenizer = folder, tokenizer
        readable = list(islice(_readable(source, ValidationTransform(image), limit), limit))
        self.examples = [example for example, _ in readable]
        if not readable:
            raise DataError(f"none of the {len(source)} validation images can be read")
        self.images = torch.stack([image for _, image in readable])  # (B, 3, H, W)

    @torch.no_grad()
    def write(self, captioner: Captioner, *, step: int, device: torch.device) -> None:
        """Caption the images and write the captions with their log-likelihoods.

        Raises:
            DataError: The captions cannot be written.
        """
        was_training = captioner.training
        captioner.eval()
        images = normalize(self.images.to(device))
        decoding = DecodingConfig().within(captioner.config.max_tokens)
        generated = captioner.generate(images, decoding).best()
        captioner.train(was_training)
        samples = [
            {
                "image": str(self._write_image(example).relative_to(self.folder)),
                "generated": self.tokenizer.decode(tokens.tolist()),
                "log_likelihood": round(float(log_prob), 3),
                "captions": list(example.captions),
            }
            for example, tokens, log_prob in zip(
                self.examples, generated.tokens, generated.log_probs, strict=True
            )
        ]
        content = json.dumps({"step": step, "samples": samples}, indent=1)
        files.write(self.folder / "samples.json", content)

    def _write_image(self, example: Example) -> Path:
        name = hashlib.sha256(example.image_id.encode()).hexdigest()[:16]
        path = self.folder / "samples" / f"{name}.jpg"
        if not path.exists():
            image = Image.fromarray(decode_image(example.image))
            image.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
            with files.replacing(path) as temporary:
                image.save(temporary, "JPEG", quality=90)
        return path


def _readable(
    source: Source, transform: ValidationTransform, limit: int
) -> Iterator[tuple[Example, Tensor]]:
    """Yield the readable ones of at least `limit` examples, evenly spaced over a source."""
    for index in range(0, len(source), max(1, len(source) // limit)):
        try:
            yield source[index], transform(source[index])
        except BadImageError:
            continue
