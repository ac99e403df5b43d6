"""The file manifest.json: a header and one shard a line, read without trust."""

import json
import os
import re
import tokenize
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from virtex import files
from virtex.data.checks import path_inside, quoted
from virtex.data.packed import PackedStrings
from virtex.errors import DataError, listing

VERSION = 1
HEADER, KEPT, FAULTS, CAPTIONS = "manifest.json", "kept.npy", "faults.jsonl", "captions.jsonl.gz"
RECORDS = "records"
MAX_BYTES = 2**30
"""Largest manifest.json: some 7 million shards."""
MAX_SHARD_BYTES = 2**46
MAX_EXAMPLES = 2**31
"""Most examples of a shard."""
SCHEMES = ("s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "adl", "http", "https", "file")
"""Schemes of the URLs that shards may lie at."""
RECORDS_PLACE = re.compile(r"(\.\./[^/\0]{1,255}/)?records")
"""Folder of the records, in the manifest or in one beside it."""
SHA256 = re.compile("[0-9a-f]{64}")
ARRAY_ERRORS = (
    *(OSError, ValueError, EOFError, OverflowError, SyntaxError, MemoryError),
    tokenize.TokenError,
)
"""Errors that numpy raises at a damaged .npy file."""


class Shard(NamedTuple):
    """One shard of a manifest."""

    name: str
    """Path under the root."""
    size: int
    """Size in bytes."""
    etag: str
    """Version that the store tells; empty if it tells none."""
    sha256: str
    num_examples: int
    """Examples in the shard, whether kept or not."""
    num_kept: int
    """Examples without faults that are not left out otherwise."""


@dataclass(frozen=True)
class Reading:
    """What is read from each shard, beside where its examples lie."""

    with_captions: bool = True
    """Whether an example needs a caption."""
    caption_keys: tuple[str, ...] = ()
    """See `faults.read_captions`."""


class LeftOut(NamedTuple):
    """A shard that is left out as a whole, and why."""

    name: str
    reason: str


def is_url(root: str) -> bool:
    """Return whether a root is a URL, not a folder."""
    return "://" in root


def has_manifest(path: Path) -> bool:
    """Return whether a path is a manifest: a folder that holds manifest.json, or that file."""
    return (path.parent / HEADER if path.name == HEADER else path / HEADER).is_file()


def root_from(folder: Path, root: str) -> str:
    """Return the root as a manifest in a folder states it: relative if the root holds it."""
    if is_url(root):
        return root
    shards, own = Path(root).absolute(), folder.absolute()
    relative = os.path.relpath(shards, own)
    return relative if own == shards or shards in own.parents else str(shards)


def digests_of(sha256s: Sequence[str]) -> NDArray[np.uint8]:
    """Return SHA-256s as bytes (S, 32)."""
    return np.frombuffer(bytes.fromhex("".join(sha256s)), np.uint8).reshape(len(sha256s), 32)


def read_fields(folder: Path) -> dict[str, Any]:
    """Return the fields of the manifest in an absolute folder, by name, all of them checked.

    Raises:
        DataError: It is missing or damaged.
    """
    return _Reader(folder).fields()


class _Reader:
    """A manifest's folder, as it is read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / HEADER

    def fields(self) -> dict[str, Any]:
        """Return the checked fields, or raise a DataError."""
        try:
            document = json.loads(files.read_text(self.path, most=MAX_BYTES))
        except (ValueError, RecursionError) as error:
            raise self.damaged("it is not valid JSON") from error
        if not isinstance(document, dict) or document.get("virtex_manifest") != VERSION:
            raise self.damaged(f"it is no manifest of version {VERSION}")
        try:
            return self._checked(document)
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise self.damaged(f"{type(error).__name__}: {quoted(error)}") from error

    def damaged(self, reason: str) -> DataError:
        """Return the error that says what is wrong."""
        return DataError(f"{self.path} cannot be used: {reason}. Write it again by virtex index.")

    def _checked(self, document: dict[str, Any]) -> dict[str, Any]:
        rows = document["shards"]
        columns = list(zip(*rows, strict=True)) if rows else [()] * len(Shard._fields)
        if document["columns"] != list(Shard._fields) or len(columns) != len(Shard._fields):
            self._refuse("the columns of its shards are unknown")
        names, sizes, etags, sha256s, num_examples, num_kept = columns
        self._check_texts(names, etags, sha256s)
        place, kept_sha256 = document["records"], document["kept_sha256"]
        if not isinstance(place, str) or not isinstance(kept_sha256, str):
            self._refuse("texts are missing")
        if place and (not RECORDS_PLACE.fullmatch(place) or place.startswith("../../")):
            self._refuse(f"records in {quoted(place)}")
        examples = _numbers(num_examples, MAX_EXAMPLES)
        kept = _numbers(num_kept, MAX_EXAMPLES)
        if (kept > examples).any() or bool((kept < examples).any()) != bool(kept_sha256):
            self._refuse("the number of kept examples is wrong")
        return {
            "root": self._root(document["root"]),
            "names": PackedStrings(names),
            "sizes": _numbers(sizes, MAX_SHARD_BYTES),
            "etags": PackedStrings(etags),
            "digests": digests_of(sha256s),
            "num_examples": examples,
            "num_kept": kept,
            "left_out": tuple(LeftOut(str(name), str(why)) for name, why in document["left_out"]),
            "fault_counts": {str(why): int(count) for why, count in document["faults"].items()},
            "kept_sha256": kept_sha256,
            "folder": self.folder,
            "records_place": place,
            "reading": self._reading(document),
            "pattern": self._pattern(document.get("pattern")),
        }

    def _reading(self, document: dict[str, Any]) -> Reading | None:
        """Return what the shards were read for, which early manifests do not state."""
        if "caption_keys" not in document:
            return None
        with_captions, keys = document["with_captions"], document["caption_keys"]
        is_list = isinstance(keys, list) and all(isinstance(key, str) for key in keys)
        if not is_list or not isinstance(with_captions, bool):
            self._refuse("its caption keys are no list of texts")
        return Reading(with_captions, tuple(keys))

    def _pattern(self, pattern: Any) -> str | None:
        """Return how the shards are numbered, which early manifests do not state."""
        if pattern is not None and not isinstance(pattern, str):
            self._refuse("the pattern of its shards is no text")
        return pattern

    def _check_texts(self, names: Iterable[Any], etags: Iterable[Any], sha256s: Any) -> None:
        names = list(names)
        if outside := [name for name in names if path_inside("/root", name) != name]:
            self._refuse(f"shards outside its root: {listing(quoted(one) for one in outside)}")
        if len(set(names)) != len(names):
            self._refuse("a shard is listed twice")
        if not all(isinstance(etag, str) and len(etag) < 1000 for etag in etags):
            self._refuse("an ETag is no short text")
        if not all(SHA256.fullmatch(sha256) for sha256 in sha256s):
            self._refuse("a sha256 is not 64 hexadecimal digits")

    def _root(self, root: str) -> str:
        if is_url(root):
            if root.partition("://")[0].lower() not in SCHEMES:
                self._refuse(f"a root of unknown kind, {quoted(root)}")
            return root
        if not root or "\0" in root:
            self._refuse("no root")
        return os.path.normpath(self.folder / root)

    def _refuse(self, reason: str) -> NoReturn:
        raise self.damaged(reason)


def _numbers(values: Iterable[Any], most: int) -> NDArray[np.int64]:
    values = list(values)
    if not all(type(value) is int and 0 <= value <= most for value in values):
        raise ValueError(f"a number that is not from 0 to {most:,}")
    return np.asarray(values, np.int64)
