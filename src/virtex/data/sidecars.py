"""Caption files beside an image: the lines of a .txt file, or "caption" in a .json file.

With several keys, all captions under them count, and each step draws a key by its weight.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from virtex.data.checks import Problems, is_caption, lines_of
from virtex.data.missing_captions import Missing, skip_within_limit

UNREADABLE = "not a readable file"
"""Fault of captions in a link to nothing, a named pipe, or a file without permission."""
REMEDIES = {
    "missing": "Put a .txt file of the same name beside each image, name other keys of its .json "
    "file with --data.caption_keys, or remove the image.",
    "empty": "Write one caption a line, or remove the image.",
    "not UTF-8": "Save the text as UTF-8.",
    UNREADABLE: "Restore the file, or remove it and its image.",
    "not valid JSON": "Write the .json file again, or put a .txt file beside the image.",
}
"""Remedies for the faults of an image's captions."""
MAX_BYTES = 2**24
"""Largest size of a caption file."""
TEXT_KEY = "txt"
"""Key that stands for the lines of the .txt file."""
NO_KEYS: Mapping[str, float] = MappingProxyType({})
MISSING = ("missing", "empty")
"""Faults that a few images may have, which are then skipped."""


class Sidecar(NamedTuple):
    """The captions of an image, or their fault: a key of REMEDIES."""

    captions: tuple[str, ...]
    fault: str = ""
    weights: tuple[float, ...] = ()
    """Proportion of the steps that draw each caption; empty where all are as likely."""


def read_sidecar(
    text: bytes | None, metadata: bytes | None, keys: Mapping[str, float] = NO_KEYS
) -> Sidecar:
    """Return the captions in an image's .txt file (one a line) or, without one, its .json file.

    "caption" in the .json file is a string or a list of strings.

    Args:
        keys: Keys of the .json file, or TEXT_KEY for the .txt file, with the weight of each: all
            captions under them are returned, in the order of the keys. Both files are then needed.
    """
    if keys:
        return _from_keys(text, metadata, keys)
    if text is not None:
        return _from_text(text)
    return Sidecar((), "missing") if metadata is None else _from_json(metadata)


def keys_identity(keys: Mapping[str, float]) -> dict[str, str]:
    """Return what a source with such keys adds to its provenance."""
    return {"caption_keys": json.dumps(dict(keys))} if keys else {}


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
        lines = lines_of(data.decode("utf-8-sig"))
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


def _from_keys(text: bytes | None, metadata: bytes | None, keys: Mapping[str, float]) -> Sidecar:
    """Return the captions under keys; a key without any counts as absent."""
    document: Any = {}
    if metadata is not None and keys.keys() - {TEXT_KEY}:
        try:
            document = json.loads(metadata)
        except (ValueError, RecursionError):
            return Sidecar((), "not valid JSON")
    lines = Sidecar(()) if text is None or TEXT_KEY not in keys else _from_text(text)
    if lines.fault == "not UTF-8":
        return lines
    captions, weights = list[str](), list[float]()
    for key, weight in keys.items():
        found = lines.captions if key == TEXT_KEY else _captions_under(key, document)
        captions += found
        weights += [weight / max(len(found), 1)] * len(found)
    total = sum(weights)
    fault = "" if captions else "missing"
    return Sidecar(tuple(captions), fault, tuple(weight / total for weight in weights))


def _captions_under(key: str, document: object) -> tuple[str, ...]:
    value = document.get(key) if isinstance(document, dict) else None
    values = value if isinstance(value, list) else [value]
    return tuple(caption for caption in values if is_caption(caption))
