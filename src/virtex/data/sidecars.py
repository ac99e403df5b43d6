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
from virtex.data.missing_captions import IN_PART, IN_PART_REMEDY, Missing, skip_within_limit

UNREADABLE = "not a readable file"
"""Fault of captions in a link to nothing, a named pipe, or a file without permission."""
REMEDIES = {
    "missing": "Put a .txt file of the same name beside each image, name other keys of its .json "
    "file with --data.caption_keys, or remove the image.",
    "empty": "Write one caption a line, or remove the image.",
    IN_PART: IN_PART_REMEDY,
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
MISSING = ("missing", "empty", IN_PART)
"""Faults that a few images may have; those with the last one are kept, the others skipped."""


class Sidecar(NamedTuple):
    """The captions of an image, or their fault: a key of REMEDIES; both where it is IN_PART."""

    captions: tuple[str, ...]
    fault: str = ""
    counts: tuple[int, ...] = ()
    """Number of captions under each key, one key after the other; empty without keys."""


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


def key_counts(sidecars: Sequence[Sidecar], keys: Mapping[str, float]) -> NDArray[np.int32]:
    """Return the number of captions of N images under each of K keys, (N, K)."""
    none = (0,) * len(keys)
    counts = np.asarray([one.counts or none for one in sidecars], np.int32)
    return counts.reshape(len(sidecars), len(keys))


def keys_and_weights(
    counts: Sequence[int], keys: Mapping[str, float]
) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """Return the key of each caption of an image, and the proportion of the steps that draw it.

    Args:
        counts: Number of captions under each key, as in `Sidecar`.
    """
    present = [(key, count) for key, count in zip(keys, counts, strict=True) for _ in range(count)]
    shares = [keys[key] / count for key, count in present]
    total = sum(shares)
    return tuple(key for key, _ in present), tuple(share / total for share in shares)


def keys_identity(keys: Mapping[str, float]) -> dict[str, str]:
    """Return what a source with such keys adds to its provenance."""
    return {"caption_keys": json.dumps(dict(keys))} if keys else {}


def find_captioned(
    image_ids: Iterable[str], faults: Sequence[str], problems: Problems, *, limit: float
) -> NDArray[np.int64]:
    """Return the indices of the images with captions; add a problem for each kind of fault.

    Args:
        limit: Largest fraction of images whose caption is missing or bad; see `SourceConfig`.
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
    return np.flatnonzero([fault in ("", IN_PART) for fault in faults])


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
    values = value if isinstance(value, list) else [value]
    captions = tuple(filter(is_caption, values))
    if not captions:
        return Sidecar((), "empty")
    return Sidecar(captions, IN_PART if len(captions) < len(values) else "")


def _from_keys(text: bytes | None, metadata: bytes | None, keys: Mapping[str, float]) -> Sidecar:
    """Return the captions under keys; a key with null, an empty text or list counts as absent."""
    document: Any = {}
    if metadata is not None and keys.keys() - {TEXT_KEY}:
        try:
            document = json.loads(metadata)
        except (ValueError, RecursionError):
            return Sidecar((), "not valid JSON")
    lines = Sidecar(()) if text is None or TEXT_KEY not in keys else _from_text(text)
    if lines.fault == "not UTF-8":
        return lines
    captions, counts, num_values = list[str](), list[int](), 0
    for key in keys:
        values = lines.captions if key == TEXT_KEY else _values_under(key, document)
        found = list(filter(is_caption, values))
        captions += found
        num_values += len(values)
        counts.append(len(found))
    if not captions:
        return Sidecar((), "missing")
    fault = IN_PART if len(captions) < num_values else ""
    return Sidecar(tuple(captions), fault, tuple(counts))


def _values_under(key: str, document: object) -> Sequence[object]:
    """Return what there is under a key, of any type."""
    value = document.get(key) if isinstance(document, dict) else None
    if value is None or (isinstance(value, str) and not value.strip()):
        return ()
    return value if isinstance(value, list) else (value,)
