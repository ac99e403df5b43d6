"""Captions of a few validation images, written during training for a person to look at."""

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
"""Longest side, in pixels, of the pictures kept beside the captions."""


class SampleWriter:
    """Keeps RUN/samples.json: a few images, their true captions, and the model's latest ones."""

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
        seen = list(islice(_readable(source, ValidationTransform(image), limit), limit))
        self.examples = [example for example, _ in seen]
        if not seen:
            raise DataError(f"none of the validation images can be read, of {len(source)}")
        self.images = torch.stack([image for _, image in seen])  # (B, 3, H, W)

    @torch.no_grad()
    def write(self, captioner: Captioner, *, step: int, device: torch.device) -> None:
        """Caption the images as the model stands, and write them with their log-likelihoods.

        Raises:
            DataError: The disk is full, or the folder cannot be written.
        """
        was_training = captioner.training
        captioner.eval()
        images = normalize(self.images.to(device))
        decoding = DecodingConfig().within(captioner.config.max_tokens)
        generated = captioner.generate(images, decoding).best()
        captioner.train(was_training)
        samples = [
            {
                "image": str(self._picture(example).relative_to(self.folder)),
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

    def _picture(self, example: Example) -> Path:
        name = hashlib.sha256(example.image_id.encode()).hexdigest()[:16]
        path = self.folder / "samples" / f"{name}.jpg"
        if not path.exists():
            picture = Image.fromarray(decode_image(example.image))
            picture.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
            with files.replacing(path) as temporary:
                picture.save(temporary, "JPEG", quality=90)
        return path


def _readable(
    source: Source, transform: ValidationTransform, limit: int
) -> Iterator[tuple[Example, Tensor]]:
    """About `limit` examples spread evenly over a source, less those that cannot be read."""
    for index in range(0, len(source), max(1, len(source) // limit)):
        try:
            yield source[index], transform(source[index])
        except BadImageError:
            continue
