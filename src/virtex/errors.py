"""Errors that the user can correct; any other exception is a bug of this package."""

import difflib
import errno
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import TypeGuard

CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Characters that end a line, control a terminal, or change the reading direction."""


class VirTexError(Exception):
    """An error that the user can correct; the command line prints it without a traceback.

    Its text holds pieces of files, so control characters are escaped, all but line breaks.
    """

    exit_code = 2
    """Exit code of a command that ends with it."""

    def __str__(self) -> str:
        return printable(super().__str__())


class LostProcessError(VirTexError):
    """Another process of the run that has ended; the message of that one says why."""

    exit_code = 75
    """EX_TEMPFAIL of sysexits.h: the same command may succeed."""


class DivergedError(VirTexError):
    """A loss or weight that is not finite: the options of the optimizer do not suit the run."""


class ConfigError(VirTexError):
    """Options that cannot work, alone or together."""


class DataError(VirTexError):
    """Images, captions or annotations that are missing, broken or inconsistent."""


class CheckpointError(VirTexError):
    """A weights file or checkpoint that cannot be read or does not fit the model."""


LIMITS = {
    errno.ENOMEM: "give this process more memory, or lower the batch size and the worker processes",
    errno.EAGAIN: "raise the limit of processes and threads (ulimit -u)",
    errno.EMFILE: "raise the limit of open files (ulimit -n 4096), or lower the worker processes",
    errno.ENFILE: "close other programs: the system's limit of open files is reached",
    errno.ENOSPC: "free some space, in the folder for temporary files (TMPDIR) too",
    errno.EDQUOT: "free some space within your quota",
    errno.EROFS: "choose a folder that can be written",
    errno.EIO: "check the disk or network drive",
}
"""Remedies for errors of the system that no option causes."""
TEXTS = {
    "can't start new thread": errno.EAGAIN,
    "failed to map segment": errno.ENOMEM,
    "not enough memory": errno.ENOMEM,
    "can't allocate memory": errno.ENOMEM,
    "out of memory": errno.ENOMEM,
    **{os.strerror(number): number for number in LIMITS},
}
"""Texts of other errors that have such a cause."""


def limit_of_system(error: BaseException) -> str | None:
    """Describe an error that a limit of the system causes, with its remedy; None for another."""
    number = error.errno if isinstance(error, OSError) else None
    if isinstance(error, MemoryError):
        number = errno.ENOMEM
    elif isinstance(error, RuntimeError | ImportError):
        number = next((number for text, number in TEXTS.items() if text in str(error)), None)
    if number not in LIMITS:
        return None
    lines = str(error).strip().splitlines()
    name = getattr(error, "filename", None)
    about = f" ({name})" if name else "" if not lines else f" ({lines[-1][:200]})"
    return f"{os.strerror(number)}{about}: {LIMITS[number]}."


def listing(items: Iterable[object], *, limit: int = 3) -> str:
    """Return the first few items and the number of the others: `a, b, c and 17 more`."""
    texts = [str(item) for item in items]
    shown = ", ".join(texts[:limit])
    return shown if len(texts) <= limit else f"{shown} and {len(texts) - limit} more"


def one_line(text: str) -> str:
    """Return the text with control characters escaped, so that it fills one terminal line."""
    return CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def printable(text: str) -> str:
    """Return the text with the control characters in each of its lines escaped."""
    return "\n".join(map(one_line, text.split("\n")))


def raise_all(kind: type[VirTexError], subject: str, problems: Sequence[str]) -> None:
    """Raise one error of a kind that lists all problems; do nothing if there are none.

    Args:
        subject: The first line, such as `the options cannot work`.
        problems: Texts that state what was given, what is allowed and what to do.
    """
    if problems:
        raise kind("\n- ".join([f"{subject}:", *problems]))


def raise_each(kind: type[VirTexError], subject: str, problems: Sequence[str]) -> None:
    """Raise one error of a kind that lists the texts of others, a single one as it stands."""
    if len(problems) == 1:
        raise kind(problems[0])
    raise_all(kind, subject, [text.replace("\n", "\n  ") for text in problems])


def out_of_range(values: object, ranges: Mapping[str, tuple[float, float]]) -> list[str]:
    """Return a problem for each named attribute that is below its least or above its most value.

    Attributes that are None are left out.
    """
    problems = []
    for name, (least, most) in ranges.items():
        value = getattr(values, name)
        if value is not None and not value >= least:  # nan is neither above nor below
            problems.append(f"{name} {value} must be at least {least}")
        elif value is not None and value > most:
            problems.append(f"{name} {value} must be at most {most:,}")
    return problems


def is_integer(value: object) -> TypeGuard[int]:
    """Return whether a value is a whole number, of Python or NumPy; True and False are none."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[float]:
    """Return whether a value is a real number, of Python or NumPy; True and False are none."""
    return isinstance(value, Real) and not isinstance(value, bool)


def did_you_mean(
    name: str, allowed: Iterable[str], *, cutoff: float = 0.6, few: bool = False
) -> str:
    """Return a hint for an unknown name: the closest allowed names, or all if none is close.

    Args:
        cutoff: Least similarity of a close name, from 0 to 1.
        few: Whether to list only the first few if none is close.
    """
    names = list(allowed)
    close = difflib.get_close_matches(name, names, n=3, cutoff=cutoff)
    if close:
        return f"Did you mean {' or '.join(close)}?"
    return f"Allowed: {listing(sorted(names)) if few else ', '.join(names)}."
