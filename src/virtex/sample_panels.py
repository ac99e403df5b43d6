"""Panels of sample captions: an image, its captions, and the attention over it for each word.

They go to RUN/panels, to TensorBoard and to the dashboard of the run. Number, size and time are
bounded, as training waits while they are drawn.
"""

import io
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw
from torch import Tensor

from virtex import files
from virtex.data.example import Example
from virtex.data.tokenizer import Tokenizer
from virtex.data.transforms import ImageConfig
from virtex.engine.run import RunConfig, RunFolder, due
from virtex.models.captioner import Captioner
from virtex.predict.attention import CaptionAttention, attend_to_captions, caption_tokens
from virtex.tokens import EOS_ID

MOST_PANELS = 4
"""Number of images with a panel."""
MOST_STEPS = 50
"""Number of validations of a run that draw panels, evenly spaced."""
SECONDS = 2.0
"""Time after which no further panel of a validation is begun."""
SIDE = 112
"""Width and height of the image for each word, in pixels."""
QUALITY = 80
MARGIN, TEXT_SIZE = 10, 14


@dataclass(frozen=True)
class PanelWriter:
    """Writer of panels into a run folder and TensorBoard."""

    folder: RunFolder
    run: RunConfig
    image: ImageConfig
    clock: Callable[[], float] = time.monotonic

    def is_due(self, step: int) -> bool:
        """Return whether panels are drawn at the validation of a step."""
        if not self.run.tensorboard and self.run.track == "none":
            return False
        every = self.run.validate_every
        num_validations = 1 if every == 0 else math.ceil(self.run.num_steps / every)
        return due(step, every * math.ceil(num_validations / MOST_STEPS), self.run.num_steps)

    def write(
        self,
        names: Sequence[str],
        examples: Sequence[Example],
        attentions: Sequence[CaptionAttention],
        *,
        step: int,
    ) -> dict[str, str]:
        """Write a panel for each attention, as far as time allows.

        Args:
            names: File names without suffix.

        Returns:
            The paths by name, relative to the run folder.

        Raises:
            DataError: An image cannot be read, or a file cannot be written.
        """
        deadline, contents = self.clock() + SECONDS, dict[str, bytes]()
        for name, example, attention in zip(names, examples, attentions, strict=True):
            if self.clock() < deadline:
                contents[f"panels/{name}.jpg"] = self._draw(example, attention)
        for path, content in contents.items():
            files.write(self.folder.path / path, content, durable=False)
        if self.folder.events is not None:
            numbered = {f"samples/{n}": content for n, content in enumerate(contents.values())}
            self.folder.events.log_images(numbered, step=step)
        return {Path(path).stem: path for path in contents}

    def _draw(self, example: Example, attention: CaptionAttention) -> bytes:
        """Return a panel as a JPEG file."""
        from virtex.predict.attention_figures import caption_strip  # imports matplotlib

        strip = caption_strip(example.image, attention, self.image, side=SIDE)
        reference = example.captions[0] if example.captions else "none"
        output = io.BytesIO()
        with_text(strip, f"reference: {reference}").save(output, "JPEG", quality=QUALITY)
        return output.getvalue()


def attend(
    captioner: Captioner, tokenizer: Tokenizer, grid: Tensor, tokens: Tensor
) -> list[CaptionAttention]:
    """Return the attention of generated captions.

    Args:
        grid: Features (B, C, h, w).
        tokens: Ids (B, T) without the start token, padded after the end token.
    """
    rows = [
        caption_tokens(_without_padding(row), "forward", max_tokens=captioner.config.max_tokens)
        for row in tokens.tolist()
    ]
    return attend_to_captions(captioner, tokenizer, grid, rows=rows, direction="forward")


def with_text(image: Image.Image, text: str) -> Image.Image:
    """Return an image with a text beneath it, in lines."""
    from virtex.predict.lettering import font_of, wrapped

    font = font_of(TEXT_SIZE)
    lines = wrapped(text, width=image.width - 2 * MARGIN, font=font)
    line_height = round(1.4 * TEXT_SIZE)
    taller = Image.new(
        "RGB", (image.width, image.height + line_height * len(lines) + MARGIN), "white"
    )
    taller.paste(image, (0, 0))
    draw = ImageDraw.Draw(taller)
    for index, line in enumerate(lines):
        draw.text((MARGIN, image.height + line_height * index), line, "black", font)
    return taller


def _without_padding(ids: list[int]) -> list[int]:
    return ids[: ids.index(EOS_ID) + 1] if EOS_ID in ids else ids
