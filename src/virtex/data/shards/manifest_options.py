"""Checks of the data that are named beside a manifest: no example twice, none validated on too."""

import logging
from collections.abc import Sequence
from pathlib import Path

from virtex.data.shards.manifest import Manifest, has_manifest
from virtex.data.shards.manifest_file import HEADER, is_url
from virtex.errors import ConfigError, listing

log = logging.getLogger("virtex")
HELD_OUT = (
    "Name data that are not trained on: `virtex index --val_share 0.01` holds some out, in a "
    "second manifest."
)


def mixed_twice(train: Sequence[Path]) -> list[str]:
    """Return a problem for each manifest that is mixed twice."""
    places = [_place(path) for path in train]
    return [
        f"--data.mix names {path} twice: {train[places.index(place)]} is the same. Name each "
        "manifest once, with the sum of its weights."
        for at, (path, place) in enumerate(zip(train, places, strict=True))
        if place in places[:at]
    ]


def check_apart(train: Sequence[Path], val: Path) -> None:
    """Check that the validation data are not trained on; warn if some of them are.

    Args:
        train: Manifests of the training data, or the folder of their shards.
        val: Manifest of the validation data, or the folder of their shards.

    Raises:
        ConfigError: All of them are, or shards of a folder.
    """
    manifests = [Manifest.read(path) for path in train if has_manifest(path)]
    if not has_manifest(val):
        trained = [name for one in manifests for name in _below(one, val)]
        if trained:
            raise ConfigError(
                f"{val} holds validation data, and its shards {listing(trained)} are trained on, "
                f"as {listing(map(str, train))} lists. {HELD_OUT}"
            )
        return
    if _place(val) in map(_place, train):
        raise ConfigError(f"--data.val_root {val} is a manifest that is trained on. {HELD_OUT}")
    other = Manifest.read(val)
    num_kept = other.num_all_kept
    num_shared = _num_shared(manifests, other)
    if not manifests and all(_below(other, folder) for folder in train):
        num_shared = num_kept
    if num_shared and num_shared == num_kept:
        raise ConfigError(
            f"the examples of --data.val_root {val} are trained on: all of them are in "
            f"{listing(map(str, train))} too. {HELD_OUT}"
        )
    if num_shared:
        log.warning(
            "at least %s of the %s validation examples in %s are trained on",
            f"{num_shared:,}", f"{num_kept:,}", val,
        )  # fmt: skip


def _num_shared(train: Sequence[Manifest], val: Manifest) -> int:
    """Return how many validation examples, at least, are training examples too.

    That follows from the numbers of the kept examples of each shard alone.
    """
    counts = dict(zip(map(bytes, val.digests), val.num_kept.tolist(), strict=True))
    shared = dict.fromkeys(counts, 0)
    for manifest in train:
        num_left_out = (manifest.num_examples - manifest.num_kept).tolist()
        for digest, number in zip(map(bytes, manifest.digests), num_left_out, strict=True):
            if digest in counts:
                shared[digest] = max(shared[digest], counts[digest] - number)
    return sum(shared.values())


def _below(manifest: Manifest, folder: Path) -> list[str]:
    """Return the shards of a manifest that lie in a folder."""
    if is_url(manifest.root):
        return []
    root, start = str(Path(manifest.root).resolve()), f"{folder.resolve()}/"
    return [name for name in manifest.names if f"{root}/{name}".startswith(start)]


def _place(path: Path) -> Path:
    """Return the folder of a manifest as the disk has it."""
    return (path.parent if path.name == HEADER else path).resolve()
