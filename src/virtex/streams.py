"""Standard streams, which may be closed, full or without a reader, and the log on stderr."""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TextIO

from virtex.errors import one_line, printable

READER_GONE = 141
"""Exit code of a command whose output has no reader any more, as of one that SIGPIPE ends."""
NOT_WRITTEN = 1


@dataclass
class Output:
    """The exit code of a command."""

    exit_code: int = 0


def open_missing_streams() -> None:
    """Open the standard streams that the caller closed, so that no file takes their numbers.

    What is written to them is lost, as the caller wants; otherwise it would go to the next file
    that is opened, such as a checkpoint.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            mode = "r" if number == 0 else "w"
            descriptor = os.open(os.devnull, os.O_RDWR)
            if descriptor != number:
                os.dup2(descriptor, number)
                os.close(descriptor)
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115


@contextlib.contextmanager
def flushed() -> Iterator[Output]:
    """Write the rest of the output at the end of the block, without a traceback if that fails.

    The exit code becomes 141 if the reader has gone, and 1 if the output cannot be written.
    """
    output = Output()
    try:
        yield output
        sys.stdout.flush()
    except BrokenPipeError:
        _discard(sys.stdout)
        output.exit_code = READER_GONE
    except OSError as error:
        if is_fine(sys.stdout):
            raise
        _discard(sys.stdout)
        say(f"cannot write to stdout: {error.strerror}")
        output.exit_code = output.exit_code or NOT_WRITTEN
    try:
        sys.stderr.flush()
    except (OSError, ValueError):
        _discard(sys.stderr)


def say(text: str) -> None:
    """Write an error on stderr, if that is possible; control characters are escaped."""
    with contextlib.suppress(OSError, ValueError):
        print("\n".join(one_line(line) for line in text.split("\n")), file=sys.stderr, flush=True)


def is_fine(stream: TextIO) -> bool:
    """Return whether a stream takes an empty line, as a failed write leaves no other trace."""
    try:
        print(file=stream, flush=True)
    except (OSError, ValueError):
        return False
    return True


def _discard(stream: TextIO) -> None:
    """Lead a stream to nowhere, so that Python's own flush at exit does not fail."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class _PrintableFormatter(logging.Formatter):
    """A formatter that escapes the control characters in names and captions."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def log_to_stderr() -> None:
    """Print the package's log messages on stderr, without level or time."""
    handler = logging.StreamHandler()
    handler.setFormatter(_PrintableFormatter("%(message)s"))
    logger = logging.getLogger("virtex")
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO)
