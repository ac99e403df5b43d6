"""TensorBoard's files of a run: curves, hyper-parameters and images."""

import io
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

log = logging.getLogger(__name__)


class TensorBoardEvents:
    """Writer of the events of a run; failures to write are logged and do not stop it.

    Args:
        purge_step: First step of an earlier process whose events no longer count.
    """

    def __init__(self, folder: Path, *, purge_step: int | None = None) -> None:
        from torch.utils.tensorboard import SummaryWriter  # slow to import

        self._writer: Any = None
        with self._reported("anything"):
            self._writer = SummaryWriter(str(folder), purge_step=purge_step)

    def log_numbers(self, numbers: Mapping[str, int | float], *, step: int) -> None:
        """Add a point to the curve of each name."""
        if self._writer is not None:
            with self._reported(f"the record of step {step}"):
                for name, value in numbers.items():
                    self._writer.add_scalar(name, value, step)

    def log_facts(self, facts: Mapping[str, Any]) -> None:
        """Write options and environment for the page of hyper-parameters.

        Its metrics are all curves of the run, since no experiment is declared.
        """
        from torch.utils.tensorboard.summary import hparams

        plain = {
            name: value if isinstance(value, bool | int | float | str) else str(value)
            for name, value in facts.items()
        }
        self._add(hparams(plain, {})[1], step=None, what="the options")

    def log_images(self, images: Mapping[str, bytes], *, step: int) -> None:
        """Write JPEG or PNG files as they are, by their tags."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = []
        for tag, content in images.items():
            with Image.open(io.BytesIO(content)) as image:
                width, height = image.size
            encoded = Summary.Image(
                height=height, width=width, colorspace=3, encoded_image_string=content
            )
            values.append(Summary.Value(tag=tag, image=encoded))
        self._add(Summary(value=values), step=step, what=f"the images of step {step}")

    def close(self) -> None:
        """Close the file."""
        if self._writer is not None:
            with self._reported("the end"):
                self._writer.close()
            self._writer = None

    def _add(self, summary: Any, *, step: int | None, what: str) -> None:
        if self._writer is not None:
            with self._reported(what):
                self._writer._get_file_writer().add_summary(summary, step)

    @contextmanager
    def _reported(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            log.error("cannot write %s for TensorBoard: %s. Training goes on.", what, error)
