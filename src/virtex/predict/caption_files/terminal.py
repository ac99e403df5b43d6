"""What `virtex caption` shows: captions on stdout; warnings and progress on stderr."""

import logging
import sys
from collections.abc import Sequence

from virtex.errors import DataError, one_line
from virtex.predict.predictor import Caption
from virtex.progress import ProgressBar

log = logging.getLogger("virtex")


def print_captions(captioned: Sequence[tuple[str, Sequence[Caption]]]) -> None:
    """Print a line `path<TAB>caption` for each caption of each image.

    Raises:
        DataError: The disk to which stdout goes is full.
    """
    encoding = sys.stdout.encoding or "utf-8"
    for name, captions in captioned:
        for caption in captions:
            line = f"{one_line(name)}\t{one_line(caption.text)}"
            line = line.encode(encoding, "backslashreplace").decode(encoding)
            try:
                print(line, flush=True)
            except BrokenPipeError:
                raise
            except OSError as error:
                raise DataError(f"cannot write to stdout: {error.strerror}.") from error


def warn_left_out(reasons: Sequence[str], bar: ProgressBar) -> None:
    """Say which images are left out, and why."""
    if reasons:
        with bar.paused():
            for reason in reasons:
                log.warning("left out: %s", one_line(reason))
