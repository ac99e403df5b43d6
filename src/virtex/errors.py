"""What a user can do wrong. Everything else that goes wrong is our own mistake."""

from collections.abc import Iterable


class VirTexError(Exception):
    """A mistake the user can mend: the command line prints it without a traceback and exits 2."""


class ConfigError(VirTexError):
    """An option, or a combination of options, that cannot work."""


class DataError(VirTexError):
    """Images, captions or annotations that are missing, broken or inconsistent."""


class CheckpointError(VirTexError):
    """A weights file or checkpoint that cannot be read, or does not fit the model."""


def listing(items: Iterable[object], *, limit: int = 3) -> str:
    """The first few items as text, and how many more there are: `a, b, c and 17 more`."""
    texts = [str(item) for item in items]
    shown = ", ".join(texts[:limit])
    return shown if len(texts) <= limit else f"{shown} and {len(texts) - limit} more"
