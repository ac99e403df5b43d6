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
from virtex.sample_panels import MOST_PANELS, PanelWriter, attend

MOST_SAMPLES = 1000
PIECE = 64
"""Images to caption at once."""
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
        panels: PanelWriter | None = None,
    ) -> None:
        self.folder, self.tokenizer, self.panels = folder, tokenizer, panels
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
        decoding = DecodingConfig().within(captioner.config.max_tokens)
        captions: list[tuple[list[int], float]] = []
        paths: dict[str, str] = {}
        for images in self.images.split(PIECE):
            grid = captioner.backbone(normalize(images.to(device)))  # (B, C, h, w)
            generated = captioner.generate_grid(grid, decoding).best()
            if not captions:
                paths = self._write_panels(captioner, grid, generated.tokens, step=step)
            captions += zip(generated.tokens.tolist(), generated.log_probs.tolist(), strict=True)
        captioner.train(was_training)
        samples = [
            {
                "image": str(self._write_image(example).relative_to(self.folder)),
                "generated": self.tokenizer.decode(tokens),
                "log_likelihood": round(log_likelihood, 3),
                "captions": list(example.captions),
                **({"panel": paths[_name(example)]} if _name(example) in paths else {}),
            }
            for example, (tokens, log_likelihood) in zip(self.examples, captions, strict=True)
        ]
        content = json.dumps({"step": step, "samples": samples}, indent=1)
        files.write(self.folder / "samples.json", content)

    def _write_panels(
        self, captioner: Captioner, grid: Tensor, tokens: Tensor, *, step: int
    ) -> dict[str, str]:
        """Write the panels that are due at a step, and return their paths by name."""
        if self.panels is None or not self.panels.is_due(step):
            return {}
        examples = self.examples[:MOST_PANELS]
        attentions = attend(captioner, self.tokenizer, grid[:MOST_PANELS], tokens[:MOST_PANELS])
        return self.panels.write(list(map(_name, examples)), examples, attentions, step=step)

    def _write_image(self, example: Example) -> Path:
        path = self.folder / "samples" / f"{_name(example)}.jpg"
        if not path.exists():
            image = Image.fromarray(decode_image(example.image))
            image.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
            with files.replacing(path) as temporary:
                image.save(temporary, "JPEG", quality=90)
        return path


def _name(example: Example) -> str:
    """Return the name of an example's files."""
    return hashlib.sha256(example.image_id.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _readable(
    source: Source, transform: ValidationTransform, limit: int
) -> Iterator[tuple[Example, Tensor]]:
    """Yield the readable ones of at least `limit` examples, evenly spaced over a source."""
    for index in range(0, len(source), max(1, len(source) // limit)):
        try:
            yield source[index], transform(source[index])
        except BadImageError:
            continue
