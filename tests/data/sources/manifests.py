"""Manifests of small tar shards."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tests.data.sources.layouts import jpeg, write_tar
from virtex.data.shards.manifest import Manifest, Shard
from virtex.data.shards.records import Records, write_records

Content = bytes | str


def write_shard(path: Path, keys: Sequence[str], *, bad: Sequence[str] = ()) -> None:
    """A tar of drawn images with a caption each; the images of the `bad` keys are no images."""
    files: dict[str, Content] = {}
    for key in keys:
        files[f"{key}.jpg"] = b"no image" if key in bad else jpeg(int(key) % 256)
        files[f"{key}.txt"] = f"a caption of image {key}"
        files[f"{key}.json"] = json.dumps({"caption": "not this", "url": "http://x"})
    write_tar(path, files)


def write_shards(root: Path, sizes: Sequence[int], *, bad: Sequence[str] = ()) -> None:
    """Shards 00000.tar, 00001.tar ... of so many images, whose keys count on over all shards."""
    first = 0
    for number, size in enumerate(sizes):
        keys = [f"{key:09}" for key in range(first, first + size)]
        write_shard(root / f"{number:05}.tar", keys, bad=bad)
        first += size


def write_manifest(
    root: Path,
    *,
    out: Path | None = None,
    left_out: Mapping[str, Sequence[int]] | None = None,
    fault_counts: Mapping[str, int] | None = None,
) -> Path:
    """The manifest of the shards in a folder; `left_out` are positions by the shard's name."""
    out = out or root / ".virtex-manifest"
    shards, masks = [], []
    for path in sorted(root.glob("*.tar")):
        records = out / "records" / f"{path.name}.safetensors"
        write_records(path, records)
        count = len(Records(records))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        shards.append(Shard(path.name, path.stat().st_size, "", digest, count, count))
        mask = np.ones(count, np.bool_)
        mask[list((left_out or {}).get(path.name, ()))] = False
        masks.append(mask)
    manifest = Manifest.of(
        root.absolute(),
        shards,
        kept=masks if left_out else None,
        fault_counts=fault_counts,
        records_place="records",
    )
    manifest.write(out)
    return out
