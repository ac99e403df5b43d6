"""Tar shards of img2dataset and WebDataset, read by offset."""

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from virtex.data.checks import Problems, sha256_of_captions, sha256_of_strings
from virtex.data.example import Example, ImageFile, Source
from virtex.data.held_out_names import warn_of_held_out
from virtex.data.image_files import PassedOver, walk
from virtex.data.missing_captions import skipped_identity
from virtex.data.packed import PackedLists, PackedStrings
from virtex.data.pixels import MAX_FILE_BYTES, BadImageError
from virtex.data.sidecars import NO_KEYS, find_captioned, keys_and_weights, keys_identity
from virtex.data.source_options import MISSING_CAPTION_LIMIT
from virtex.data.sources.shard_index import ShardIndex, open_index
from virtex.data.sources.tar_members import BrokenShardError
from virtex.errors import DataError
from virtex.files import open_regular

COMPRESSED = tuple(
    end
    for kind in ("gz", "bz2", "xz", "zst", "lz4", "z")
    for end in (f".tar.{kind}", f".t{kind}", f".t{kind[:2]}")
)
"""Ends of the names of compressed shards, as 0.tar.gz and 0.tgz."""

REMEDY = "Name the training shards' folder by --data.train_split, or move these elsewhere."


class WebdatasetSource(Source):
    """All *.tar at any depth under `root`; key.jpg has its captions in key.txt, or else key.json.

    What else may belong together: see `tar_samples`.

    The index of each shard is cached in `.virtex-index` beside it, or under `index_root` if that is
    read-only, and rebuilt when the shard's size or modification time changes.

    Args:
        with_captions: Read captions, and skip images without one.
        missing_caption_limit, caption_keys: See `SourceConfig`.
        index_root: Second choice for indices; by default ~/.cache/virtex.
    """

    def __init__(
        self,
        root: Path,
        *,
        with_captions: bool = True,
        missing_caption_limit: float = MISSING_CAPTION_LIMIT,
        index_root: Path | None = None,
        caption_keys: Mapping[str, float] = NO_KEYS,
    ) -> None:
        problems = Problems(f"the folder of shards {root}")
        self.root = root
        self._shards = _find_shards(root, problems)
        self._keys = dict(caption_keys)
        indices = _open_indices(
            root, self._shards, index_root or _cache_folder(), caption_keys, problems
        )
        self._offsets = np.concatenate([index.offsets for index in indices])
        self._sizes = np.concatenate([index.sizes for index in indices])
        counts = [len(index.offsets) for index in indices]
        self._shard_indices = np.repeat(np.arange(len(indices), dtype=np.int32), counts)
        self.image_ids = PackedStrings(
            f"{shard}/{key}"
            for shard, index in zip(self._shards, indices, strict=True)
            for key in index.keys
        )
        passed_over = PassedOver(sum((index.passed_over for index in indices), Counter()))
        passed_over.log(f"the shards in {root}")
        if not len(self):
            problems.add(passed_over.within("There are no images in the shards."))
        self._captions: PackedLists | None = None
        self._num_skipped = 0
        if with_captions:
            faults = [fault for index in indices for fault in index.faults]
            kept = find_captioned(self.image_ids, faults, problems, limit=missing_caption_limit)
            captions = [texts for index in indices for texts in index.captions]
            self._captions = PackedLists([captions[index] for index in kept.tolist()])
            self.caption_keys = tuple(caption_keys)
            self._key_counts = np.concatenate([index.key_counts for index in indices])[kept]
            self._keep(kept)
        problems.check()

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: int) -> Example:
        image_id = self.image_ids[index]
        if self._captions is None:
            return Example(image_id, self._read(index))
        keys, weights = keys_and_weights(self._key_counts[index].tolist(), self._keys)
        return Example(image_id, self._read(index), self._captions[index], weights, keys)

    def image_id(self, index: int) -> str:
        return self.image_ids[index]

    def image_file(self, index: int) -> ImageFile:
        shard = self._shards[self._shard_indices[index]]
        return ImageFile(f"{self.root}/{shard}", int(self._offsets[index]))

    def captions(self, index: int) -> tuple[str, ...]:
        return () if self._captions is None else self._captions[index]

    def identity(self) -> dict[str, str | int]:
        if self._captions is None:
            num_captions, sha256 = 0, sha256_of_strings(self.image_ids)
        else:
            num_captions = len(self._captions.strings)
            sha256 = sha256_of_captions(self.image_ids, self._captions)
        return {
            "source": "webdataset",
            "root": str(self.root),
            "shards": len(self._shards),
            "images": len(self),
            "captions": num_captions,
            **skipped_identity(self._num_skipped),
            **keys_identity(self._keys),
            "sha256": sha256,
        }

    def _keep(self, kept: NDArray[np.int64]) -> None:
        """Leave out all images but those at the given indices."""
        self._num_skipped = len(self) - len(kept)
        if self._num_skipped:
            self._offsets, self._sizes = self._offsets[kept], self._sizes[kept]
            self._shard_indices = self._shard_indices[kept]
            self.image_ids = PackedStrings(self.image_ids[index] for index in kept.tolist())

    def _read(self, index: int) -> bytes:
        """Read the image's file; opening the shard each time leaves forks no state to share."""
        path = self.root / self._shards[self._shard_indices[index]]
        size = int(self._sizes[index])
        if size > MAX_FILE_BYTES:
            raise BadImageError(self.image_ids[index], f"a file of {size:,} bytes")
        try:
            with open_regular(path) as file:
                data = os.pread(file.fileno(), size, int(self._offsets[index]))
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error.strerror}).") from error
        if len(data) < size:
            raise DataError(f"{path} has shrunk since it was indexed. Restart the command.")
        return data


def _cache_folder() -> Path | None:
    try:
        return Path.home() / ".cache" / "virtex"
    except RuntimeError:  # a user without a home
        return None


def _find_shards(root: Path, problems: Problems) -> list[str]:
    """Return the paths of the shards, relative to `root`."""
    if not root.is_dir():
        problems.fail("It is not a folder. Name the folder of .tar files with --data.root.")
    names = [prefix + name for prefix, files in walk(root) for name in files]
    shards = [name for name in names if name.lower().endswith(".tar")]
    packed = [name for name in names if name.lower().endswith(COMPRESSED)]
    passed_over = PassedOver()
    passed_over.add(set(names) - {*shards, *packed})
    passed_over.log(root)
    problems.add_all("compressed shards", packed, "Uncompress them: they are read by offset.")
    if not shards:
        nothing = passed_over.within("There are no .tar files in it.")
        problems.fail(f"{nothing} Name their folder with --data.root.")
    warn_of_held_out(root, shards, remedy=REMEDY)
    return shards


def _open_indices(
    root: Path,
    shards: list[str],
    index_root: Path | None,
    keys: Mapping[str, float],
    problems: Problems,
) -> list[ShardIndex]:
    indices, broken = [], []
    for shard in shards:
        try:
            indices.append(open_index(root / shard, index_root, keys))
        except BrokenShardError as error:
            broken.append(f"{shard}: {error}")
    problems.add_all("shards that are truncated or broken", broken, "Download or write them again.")
    if broken:
        problems.check()
    return indices
