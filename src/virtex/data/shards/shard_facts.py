"""All that indexing finds out about one shard, in one file: records, faults, and sampled captions.

The manifest follows from these files and the options alone, so that an index that was cut, or made
by any number of processes, ends with the same bytes.
"""

import hashlib
import heapq
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from virtex.data.checks import quoted
from virtex.data.packed import Arrays, PackedLists, PackedStrings
from virtex.data.shards.faults import (
    CODES,
    KEPT,
    REASONS,
    image_fault,
    keys_with_text,
    read_captions,
    read_files,
    uid_of,
)
from virtex.data.shards.manifest_file import Reading
from virtex.data.shards.records import Records, find_examples, save_records
from virtex.data.sidecars import UNREADABLE, Sidecar
from virtex.data.sources.tar_members import CONTENT_ERRORS, BrokenShardError
from virtex.data.sources.tar_samples import TarSample
from virtex.errors import DataError, limit_of_system
from virtex.files import open_regular

VERSION = "2"
UID_BYTES = 16
WHOLE = 2**62
MOST_OF_IMAGE = 1000
"""Most captions that an image gives to the sample, which a few would fill otherwise."""
KEYS = "keys_with_text"
"""Key of the caption keys that there are, where no example has one of those that were read."""
NUM_LOOKED_AT, MOST_KEYS = 100, 20
"""Examples that are looked at for such keys, and most of these keys."""


class Facts(NamedTuple):
    """What is known of a shard."""

    num_examples: int
    sha256: str
    broken: str
    """What is wrong with the shard as a whole; empty if nothing is."""
    faults: NDArray[np.uint8]
    """Code of each example's fault (N,); 0 for none."""
    uids: NDArray[np.uint8] | None
    """DataComp's ids (N, 16), zeros where there is none; None if there are none at all."""
    passed_over: Mapping[str, int]
    """Number of files that are not used, by suffix or reason."""
    sample_positions: NDArray[np.int64]
    """Positions of the examples whose captions are sampled (M,), by ascending hash."""
    sample: PackedLists
    """The captions of these (M,)."""
    num_sampled: int
    """Most captions that the sample has; `WHOLE` if there are no more."""


def sample_hash(image_id: str) -> bytes:
    """Return the hash by whose order captions are sampled."""
    name = image_id.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(name, digest_size=8, person=b"caption sample").digest()


def first_captions(lists: Iterable[tuple[str, ...]], *, most: int) -> list[tuple[str, ...]]:
    """Return the first captions, `most` of all images and MOST_OF_IMAGE of each.

    Of what this returns, the first `fewer` are the first `fewer` of all.
    """
    taken: list[tuple[str, ...]] = []
    for captions in lists:
        if most <= 0:
            break
        taken.append(captions[: min(most, MOST_OF_IMAGE)])
        most -= len(taken[-1])
    return taken


def write_facts(
    shard: Path,
    path: Path,
    *,
    name: str,
    stamp: str,
    sha256: str | None,
    reading: Reading,
    num_sampled: int,
) -> None:
    """Read a local shard and write its facts atomically.

    Args:
        name: Name of the shard in the manifest, with which the ids of its images begin.
        stamp: The state of the shard that the facts hold for.
        sha256: SHA-256 of the shard if it is known.
        num_sampled: Most captions to sample.

    Raises:
        DataError: The shard cannot be opened or read, which is no fault of its content.
    """
    broken, samples, passed_over, sidecars = "", list[TarSample](), dict[str, int](), list[Any]()
    try:
        size, sha256 = _size_and_sha256(shard, sha256)
        samples, counts = find_examples(shard)
        passed_over = dict(sorted(counts.items()))
        sidecars = _read_all(shard, samples, reading)
        has_captions = not reading.with_captions or any(captions for _, captions, _ in sidecars)
        other_keys = [] if has_captions else _keys_found(shard, samples)
    except (BrokenShardError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in CONTENT_ERRORS:
            raise _unreadable(name, error) from error
        broken = str(getattr(error, "strerror", None) or error)[:500]
        size, sha256, samples = 0, sha256 or "", []
        has_captions, other_keys = True, []
    metadata = {
        **({} if has_captions or not samples else {KEYS: json.dumps(other_keys)}),
        "facts": VERSION,
        "stamp": stamp,
        "sha256": sha256,
        "broken": broken,
        "passed_over": json.dumps(passed_over),
        "reading": _text_of(reading),
        "num_sampled": str(num_sampled),
    }
    arrays, is_whole = _arrays(name, samples, sidecars, num_sampled)
    if is_whole:
        metadata["num_sampled"] = str(WHOLE)
    save_records(path, samples, shard_size=size, arrays=arrays, metadata=metadata)


def _unreadable(name: str, error: OSError) -> DataError:
    other = f"{error.strerror or error}. Restore it, or see that its disk is there."
    return DataError(
        f"{quoted(name)} cannot be read, which is no fault of its content: "
        f"{limit_of_system(error) or other} The same command goes on with the shards that are "
        "missing."
    )


def read_facts(path: Path, *, stamp: str, reading: Reading, num_sampled: int = 0) -> Facts | None:
    """Return the facts in a file; None if it is missing, damaged or made for something else.

    Args:
        num_sampled: Fewest captions that the sample must have if the shard has so many.
    """
    if not path.is_file():
        return None
    try:
        records = Records(path)
        found = records.metadata
        if (found.get("facts"), found.get("stamp"), found.get("reading")) != (
            VERSION,
            stamp,
            _text_of(reading),
        ):
            return None
        facts = _facts(records)
    except (DataError, ValueError, KeyError, TypeError):
        return None
    is_whole = facts.num_sampled == WHOLE  # earlier versions ended at the first image too large
    return facts if is_whole or len(facts.sample.strings) >= num_sampled else None


def stamp_of(path: Path) -> str | None:
    """Return the state of the shard that a file of facts holds for; None if there is no file."""
    try:
        return str(Records(path).metadata["stamp"]) if path.is_file() else None
    except (DataError, ValueError, KeyError, TypeError):
        return None


def reading_of(path: Path) -> Reading | None:
    """Return what a file of facts was read for; None if it is missing, or holds records alone."""
    try:
        with_captions, keys = json.loads(Records(path).metadata["reading"])
        return Reading(bool(with_captions), tuple(map(str, keys)))
    except (DataError, ValueError, KeyError, TypeError):
        return None


def caption_keys_in(path: Path) -> list[str]:
    """Return the keys with text in a shard of which no example has a caption, for a message."""
    try:
        return [str(key) for key in json.loads(Records(path).metadata[KEYS])]
    except (DataError, ValueError, KeyError, TypeError):
        return []


def keys_of(path: Path) -> PackedStrings:
    """Return the keys of the examples in a file of facts or records."""
    records = Records(path)
    text, starts = records.array("key_text"), records.array("key_starts")
    return PackedStrings.from_arrays({"text": text, "starts": starts})  # type: ignore[dict-item]


def _size_and_sha256(shard: Path, sha256: str | None) -> tuple[int, str]:
    with open_regular(shard) as file:
        digest = sha256 or hashlib.file_digest(file, "sha256").hexdigest()
        return file.seek(0, 2), digest


def _read_all(
    shard: Path, samples: Sequence[TarSample], reading: Reading
) -> list[tuple[int, tuple[str, ...], bytes]]:
    """Return the fault, captions and uid of each example."""
    with open_regular(shard) as file:
        return [_read_one(file.fileno(), sample, reading) for sample in samples]


def _keys_found(shard: Path, samples: Sequence[TarSample]) -> list[str]:
    """Return the keys under which the first examples have text, the most frequent first."""
    found = Counter[str]()
    with open_regular(shard) as file:
        for sample in samples[:NUM_LOOKED_AT]:
            found.update(keys_with_text(*_files_of(file.fileno(), sample)))
    return [key for key, _ in found.most_common(MOST_KEYS)]


def _read_one(
    descriptor: int, sample: TarSample, reading: Reading
) -> tuple[int, tuple[str, ...], bytes]:
    fault = image_fault(descriptor, sample.image)
    try:
        text, metadata = read_files(descriptor, sample)
    except OSError as error:
        if error.errno is not None:  # not of its size
            raise
        return fault or CODES[f"caption {UNREADABLE}"], (), b""
    sidecar = Sidecar(())
    if reading.with_captions:
        sidecar = read_captions(text, metadata, reading.caption_keys)
        fault = fault or (CODES[f"caption {sidecar.fault}"] if sidecar.fault else 0)
    return fault, sidecar.captions, uid_of(metadata)


def _files_of(descriptor: int, sample: TarSample) -> tuple[bytes | None, bytes | None]:
    """Return the .txt and .json file of an example; None for both if one is too large."""
    try:
        return read_files(descriptor, sample)
    except OSError as error:
        if error.errno is not None:
            raise
        return None, None


def _arrays(
    name: str,
    samples: Sequence[TarSample],
    sidecars: Sequence[tuple[int, tuple[str, ...], bytes]],
    num_sampled: int,
) -> tuple[Arrays, bool]:
    """Return the arrays of a file, and whether the sample has all captions."""
    arrays: Arrays = {"faults": np.asarray([one[0] for one in sidecars], np.uint8)}
    good = [at for at, (fault, captions, _) in enumerate(sidecars) if captions and fault in KEPT]
    hashes = ((sample_hash(f"{name}/{samples[at].key}"), at) for at in good)
    chosen = [at for _, at in heapq.nsmallest(num_sampled, hashes)]
    lists = first_captions((sidecars[at][1] for at in chosen), most=num_sampled)
    num_there = sum(min(len(sidecars[at][1]), MOST_OF_IMAGE) for at in good)
    packed = PackedLists(lists).arrays()
    arrays["sample_positions"] = np.asarray(chosen[: len(lists)], np.int64)
    arrays |= {f"sample_{part}": array for part, array in packed.items()}
    if any(one[2] for one in sidecars):
        uids = b"".join(one[2] or bytes(UID_BYTES) for one in sidecars)
        arrays["uids"] = np.frombuffer(uids, np.uint8).reshape(-1, UID_BYTES)
    return arrays, sum(map(len, lists)) == num_there


def _facts(records: Records) -> Facts:
    """Return the facts in an open file; a ValueError or KeyError says that it is damaged."""
    found = records.metadata
    arrays = {name: records.array(name) for name in ("faults", "sample_positions", "uids")}
    packed = {part: records.array(f"sample_{part}") for part in ("text", "starts", "list_starts")}
    faults, positions, uids = arrays["faults"], arrays["sample_positions"], arrays["uids"]
    if faults is None or positions is None or any(each is None for each in packed.values()):
        raise ValueError("an array is missing")
    sample = PackedLists.from_arrays(packed)  # type: ignore[arg-type]
    shapes = (faults.shape, positions.shape, uids is None or uids.shape)
    if shapes != ((len(records),), (len(sample),), uids is None or (len(records), UID_BYTES)):
        raise ValueError("arrays do not fit")
    if faults.max(initial=0) >= len(REASONS):
        raise ValueError("unknown fault")
    return Facts(
        num_examples=len(records),
        sha256=found["sha256"],
        broken=found["broken"],
        faults=faults.astype(np.uint8),
        uids=None if uids is None else uids.astype(np.uint8),
        passed_over=json.loads(found["passed_over"]),
        sample_positions=positions.astype(np.int64),
        sample=sample,
        num_sampled=int(found["num_sampled"]),
    )


def _text_of(reading: Reading) -> str:
    return json.dumps([reading.with_captions, list(reading.caption_keys)])
