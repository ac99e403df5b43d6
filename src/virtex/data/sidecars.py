"""Caption files beside an image: the lines of a .txt file, or "caption" in a .json file."""

import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from virtex.data.checks import Problems, is_caption
from virtex.data.missing_captions import Missing, skip_within_limit

UNREADABLE = "not a readable file"
"""Fault of captions in a link to nothing, a named pipe, or a file without permission."""
REMEDIES = {
    "missing": "Put a .txt file of the same name beside each image, or remove the image.",
    "empty": "Write one caption a line, or remove the image.",
    "not UTF-8": "Save the text as UTF-8.",
    UNREADABLE: "Restore the file, or remove it and its image.",
    "not valid JSON": "Write the .json file again, or put a .txt file beside the image.",
}
"""Remedies for the faults of an image's captions."""
MAX_BYTES = 2**24
"""Largest size of a caption file."""
MISSING = ("missing", "empty")
"""Faults that a few images may have, which are then skipped."""


class Sidecar(NamedTuple):
    """The captions of an image, or their fault: a key of REMEDIES."""

    captions: tuple[str, ...]
    fault: str = ""


def read_sidecar(text: bytes | None, metadata: bytes | None) -> Sidecar:
    """Return the captions in an image's .txt file (one a line) or, without one, its .json file.

    "caption" in the .json file is a string or a list of strings.
    """
    if text is not None:
        return _from_text(text)
    return Sidecar((), "missing") if metadata is None else _from_json(metadata)


def find_captioned(
    image_ids: Iterable[str], faults: Sequence[str], problems: Problems, *, limit: float
) -> NDArray[np.int64]:
    """Return the indices of the images with captions; add a problem for each kind of fault.

    Args:
        limit: Largest fraction of images whose caption is missing or empty; see `SourceConfig`.
    """
    faulty: dict[str, list[str]] = {fault: [] for fault in REMEDIES}
    for name, fault in zip(image_ids, faults, strict=True):
        if fault:
            faulty[fault].append(name)
    described = {
        fault: Missing(f"images whose caption is {fault}", faulty[fault], remedy)
        for fault, remedy in REMEDIES.items()
    }
    missing = [described.pop(fault) for fault in MISSING]
    skip_within_limit(missing, total=len(faults), kind="images", limit=limit, problems=problems)
    for one in described.values():
        problems.add_all(*one)
    return np.flatnonzero([not fault for fault in faults])


def _from_text(data: bytes) -> Sidecar:
    try:
        lines = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        return Sidecar((), "not UTF-8")
    captions = tuple(line.strip() for line in lines if line.strip())
    return Sidecar(captions, "" if captions else "empty")


def _from_json(data: bytes) -> Sidecar:
    try:
        document: Any = json.loads(data)
    except (ValueError, RecursionError):
        return Sidecar((), "not valid JSON")
    value = document.get("caption") if isinstance(document, dict) else None
    if value is None:
        return Sidecar((), "missing")
    captions = tuple(value) if isinstance(value, list) else (value,)
    good = bool(captions) and all(is_caption(caption) for caption in captions)
    return Sidecar(captions if good else (), "" if good else "empty")
