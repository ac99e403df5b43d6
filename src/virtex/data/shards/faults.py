"""What an example of a shard must have to be used: an image that may be decoded, and captions."""

import json
import os
from collections.abc import Sequence
from typing import Any

from virtex.data.checks import is_caption
from virtex.data.missing_captions import IN_PART
from virtex.data.pixels import MAX_FILE_BYTES
from virtex.data.sidecars import MAX_BYTES, UNREADABLE, Sidecar, read_sidecar
from virtex.data.sources.tar_members import Extent
from virtex.data.sources.tar_samples import TarSample

REASONS = (
    "",
    "image empty",
    "image too large",
    "image of no known format",
    "caption missing",
    "caption empty",
    "caption not UTF-8",
    "caption not valid JSON",
    f"caption {UNREADABLE}",
    f"caption {IN_PART}",
)
"""Faults of an example by their codes, which files hold; the first is no fault."""
CODES = {reason: code for code, reason in enumerate(REASONS)}
KEPT = (0, CODES[f"caption {IN_PART}"])
"""Codes of the examples that are kept, the latter without their bad captions."""
HEAD = 12
"""Bytes of an image that say what format it has."""
STARTS = (
    *(b"\xff\xd8", b"\x89PNG", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    *(b"P%d" % number for number in range(1, 7)),
)
TEXT_KEY = "txt"
"""Caption key that stands for the .txt file."""


def is_known_format(head: bytes) -> bool:
    """Return whether the first bytes are those of an image format that is read."""
    if head.startswith(STARTS):
        return True
    is_webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    return is_webp or (head[4:8] == b"ftyp" and head[8:12] in (b"avif", b"avis", b"mif1"))


def image_fault(descriptor: int, image: Extent) -> int:
    """Return the code of what is wrong with an image of an open shard; 0 if nothing is."""
    if not image.size:
        return CODES["image empty"]
    if image.size > MAX_FILE_BYTES:
        return CODES["image too large"]
    head = os.pread(descriptor, min(image.size, HEAD), image.offset)
    return 0 if is_known_format(head) else CODES["image of no known format"]


def read_captions(text: bytes | None, metadata: bytes | None, keys: Sequence[str]) -> Sidecar:
    """Return the captions of an example from its .txt and .json files, or their fault.

    Args:
        keys: Keys of the .json file that hold captions, of which one must be there; `txt` is the
            .txt file. Without keys, the .txt file or else "caption" of the .json file.
    """
    if not keys:
        return read_sidecar(text, metadata)
    parts = [read_sidecar(text, None)] if TEXT_KEY in keys and text is not None else []
    others = [key for key in keys if key != TEXT_KEY]
    if others and metadata is not None:
        parts.append(_of_keys(metadata, others))
    captions = tuple(caption for part in parts for caption in part.captions)
    faults = [part.fault for part in parts if part.fault]
    if captions:
        return Sidecar(captions, IN_PART if IN_PART in faults else "")
    return Sidecar((), faults[-1] if faults else "missing")


def read_files(descriptor: int, sample: TarSample) -> tuple[bytes | None, bytes | None]:
    """Return the .txt and .json file of an example; Raises: OSError if one is too large."""
    return _read(descriptor, sample.text), _read(descriptor, sample.metadata)


def uid_of(metadata: bytes | None) -> bytes:
    """Return the 16 bytes of "uid", DataComp's id of 32 hexadecimal digits; empty without one."""
    if metadata is None or b'"uid"' not in metadata:
        return b""
    try:
        document: Any = json.loads(metadata)
        uid = document.get("uid") if isinstance(document, dict) else None
        return bytes.fromhex(uid) if isinstance(uid, str) and len(uid) == 32 else b""
    except (ValueError, RecursionError):
        return b""


def keys_with_text(text: bytes | None, metadata: bytes | None) -> set[str]:
    """Return the keys of an example's .json file that hold text; `txt` if its .txt file does."""
    found = {TEXT_KEY} if text is not None and read_sidecar(text, None).captions else set[str]()
    try:
        document: Any = None if metadata is None else json.loads(metadata)
    except (ValueError, RecursionError):
        return found
    for key, value in document.items() if isinstance(document, dict) else ():
        if key != TEXT_KEY and any(map(is_caption, value if isinstance(value, list) else [value])):
            found.add(key)
    return found


def _of_keys(metadata: bytes, keys: Sequence[str]) -> Sidecar:
    try:
        document: Any = json.loads(metadata)
    except (ValueError, RecursionError):
        return Sidecar((), "not valid JSON")
    values = [document.get(key) for key in keys] if isinstance(document, dict) else []
    present = [value for value in values if value is not None]
    texts = [text for value in present for text in (value if isinstance(value, list) else [value])]
    captions = tuple(text for text in texts if is_caption(text))
    if not captions:
        return Sidecar((), "empty" if present else "missing")
    return Sidecar(captions, IN_PART if len(captions) < len(texts) else "")


def _read(descriptor: int, extent: Extent | None) -> bytes | None:
    if extent is None:
        return None
    if extent.size > MAX_BYTES:
        raise OSError(UNREADABLE)
    return os.pread(descriptor, extent.size, extent.offset)
