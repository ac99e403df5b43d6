"""Which captions of a manifest's examples are read, and whether they are there.

`virtex index` reads the captions of some keys: of these it draws the sample that a vocabulary is
trained on, and finds the examples without any. So training reads the captions of the same keys.
"""

import functools
import json
import logging
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from virtex.data.checks import quoted
from virtex.data.shards.faults import keys_with_text
from virtex.data.shards.manifest import Manifest, Reading, is_url
from virtex.data.shards.records import Extents
from virtex.data.shards.shard_facts import reading_of
from virtex.data.sidecars import MAX_BYTES, TEXT_KEY, UNREADABLE, Sidecar, read_sidecar
from virtex.data.sources.tar_members import Extent
from virtex.errors import ConfigError, listing, raise_all

log = logging.getLogger("virtex")

Keys = Mapping[str, float]
"""Caption keys with their weights; see `SourceConfig`."""
DEFAULT_KEYS = (TEXT_KEY, "caption")
"""What is read without keys: the .txt file, or else this key of the .json file."""
MOST_LISTED = 12
"""Most keys of .json files that a message lists."""


class CaptionFiles(NamedTuple):
    """The content of an example's .txt and .json files."""

    text: bytes | None
    metadata: bytes | None


def indexed_reading(manifest: Manifest) -> Reading | None:
    """Return what a manifest was indexed for; None if neither it nor its records tell."""
    if manifest.reading is not None or not len(manifest):
        return manifest.reading
    records = manifest.records_path(0)
    return None if records is None else reading_of(records)


def own_keys(manifest: Manifest) -> dict[str, float]:
    """Return the keys that a manifest was indexed for, all alike; none for the default ones."""
    reading = indexed_reading(manifest)
    return {} if reading is None else dict.fromkeys(reading.caption_keys, 1.0)


def check_indexed_for(manifests: Iterable[Manifest], given: Keys) -> None:
    """Check that manifests were indexed for the captions that the options name.

    Raises:
        ConfigError: One was indexed without captions, or without those of a key; names each.
    """
    problems = []
    for manifest in manifests:
        reading = indexed_reading(manifest)
        if reading is None:
            continue
        known = reading.caption_keys or (TEXT_KEY,)
        if not reading.with_captions:
            what = "was indexed without captions"
            problems.append(f"{manifest.folder} {what}. {_index_again(manifest, given)}")
        elif unknown := [key for key in given if key not in known]:
            problems.append(_unknown(manifest, reading, given, unknown))
        elif given and set(given) != set(reading.caption_keys):
            _log_part(str(manifest.folder), _words(reading.caption_keys), _words(tuple(given)))
        elif reading.caption_keys and not given:
            _log_own(str(manifest.folder), _words(reading.caption_keys))
    raise_all(ConfigError, "the captions cannot be read", problems)


def needs_look(manifest: Manifest, given: Keys) -> bool:
    """Return whether it is open that the examples have captions of each key."""
    reading = indexed_reading(manifest)
    if reading is None:
        return True
    return len(given or reading.caption_keys) > 1 or bool(
        given and set(given) != set(reading.caption_keys)
    )


def check_found(place: str, keys: Keys, examples: Iterable[CaptionFiles]) -> None:
    """Check some examples for captions of the keys, or of the default ones; warn of absent keys.

    Raises:
        ConfigError: No example has any; names the keys that there are.
    """
    found = [keys_with_text(*example) for example in examples]
    counts, number = Counter(key for one in found for key in one), len(found)
    absent = [key for key in keys or DEFAULT_KEYS if not counts[key]]
    if not absent or not number:
        return
    there = _existing(counts, number)
    if len(absent) == len(keys or DEFAULT_KEYS):
        raise ConfigError(
            f"none of the {number:,} examples of {place} that were looked at has a caption in "
            f"{_words(tuple(keys))}. {there} Name some of these with --data.caption_keys."
        )
    if keys:
        shown = listing(quoted(key) for key in absent)
        _log_absent(place, shown, there)


def caption_files(extents: Extents, keys: Keys) -> dict[str, Extent]:
    """Return the files with the captions, but those that are too large, by "text" or "metadata".

    That is the .txt, else the .json; with keys both.
    """
    found = {"text": extents.text, "metadata": extents.metadata}
    if not keys and extents.text is not None:
        del found["metadata"]
    return {kind: one for kind, one in found.items() if one and one.size <= MAX_BYTES}


def sidecar_of(extents: Extents, contents: Mapping[str, bytes], keys: Keys) -> Sidecar:
    """Return the captions in the content of the files that `caption_files` names."""
    if not contents:
        has_none = extents.text is None and extents.metadata is None
        return Sidecar((), "missing" if has_none else UNREADABLE)
    return read_sidecar(contents.get("text"), contents.get("metadata"), keys)


def _unknown(manifest: Manifest, reading: Reading, given: Keys, unknown: Sequence[str]) -> str:
    return (
        f"{manifest.folder} was indexed for captions in {_words(reading.caption_keys)}, and "
        f"--data.caption_keys names {listing(map(quoted, unknown))} too. A vocabulary would be "
        "trained on the captions that it was indexed for. Leave --data.caption_keys out to read "
        f"these, or name some of them. {_index_again(manifest, given)}"
    )


def index_command(manifest: Manifest, reading: Reading | None = None) -> str:
    """Return the command that indexes shards again.

    Args:
        reading: What to read, if that is not what it was indexed for.
    """
    reading, root = reading or indexed_reading(manifest) or Reading(), manifest.root
    pattern = manifest.pattern or ("{FIRST..LAST}.tar" if root.startswith("http") else "")
    if pattern:
        root = f"{(root if is_url(root) else Path(root).as_uri()).rstrip('/')}/{pattern}"
    words = ["virtex", "index", root]
    if manifest.index_folder is not None:
        words += ["--out", str(manifest.index_folder)]
    if not reading.with_captions:
        words += ["--with_captions", "false"]
    elif reading.caption_keys:
        words += ["--caption_keys", json.dumps(list(reading.caption_keys))]
    with_others = ", with its --keep or --val_share if it had any" if manifest.kept_sha256 else ""
    return f"`{shlex.join(words)}`{with_others}"


def _index_again(manifest: Manifest, given: Keys) -> str:
    """Return how to read the captions that the options name."""
    command = index_command(manifest, Reading(caption_keys=tuple(given)))
    return f"To read others, index the shards again: {command}."


def _words(keys: Sequence[str]) -> str:
    """Return where captions are read, in words."""
    if not keys:
        return f'.txt files (or else "{DEFAULT_KEYS[1]}" of .json files)'
    files = [".txt files"] if TEXT_KEY in keys else []
    others = [f'"{quoted(key)}"' for key in keys if key != TEXT_KEY]
    if others:
        files.append(f"{listing(others, limit=MOST_LISTED)} of .json files")
    return " and ".join(files)


def _existing(counts: Counter[str], number: int) -> str:
    """Return the keys with text of some examples, the most frequent first."""
    keys = [f'"{quoted(key)}"' for key, _ in counts.most_common() if key != TEXT_KEY]
    json_files = (
        f"Keys with text in their .json files: {listing(keys, limit=MOST_LISTED)}."
        if keys
        else "They have no text in .json files."
    )
    if not counts[TEXT_KEY]:
        return json_files
    return f'{json_files} {counts[TEXT_KEY]:,} of {number:,} have a .txt file ("{TEXT_KEY}").'


@functools.cache
def _log_own(manifest: str, keys: str) -> None:
    """Log a line once, since training and validation data are opened apart; so below."""
    log.info("%s: captions in %s, for which it was indexed", manifest, keys)


@functools.cache
def _log_part(manifest: str, indexed: str, given: str) -> None:
    log.info(
        "%s was indexed for captions in %s: a new vocabulary is trained on all of these, the "
        "network on those in %s alone",
        manifest, indexed, given,
    )  # fmt: skip


@functools.cache
def _log_absent(manifest: str, keys: str, there: str) -> None:
    log.warning(
        "caption key %s: none of the examples of %s that were looked at has it. %s",
        keys, manifest, there,
    )  # fmt: skip
