"""Tar shards, as img2dataset and WebDataset write them, read by offset."""

import os
from pathlib import Path

import numpy as np

from virtex.data.checks import Problems, sha256_of_captions, sha256_of_strings, walk
from virtex.data.example import Example, Source
from virtex.data.packed import PackedLists, PackedStrings
from virtex.data.sidecars import add_faults
from virtex.data.sources.shard_index import BrokenShardError, ShardIndex, open_index
from virtex.errors import DataError


class WebdatasetSource(Source):
    """All *.tar under `root`; in each, key.jpg has its captions in key.txt, or else key.json.

    A shard is indexed when it is first seen; the index is kept in `.virtex-index` beside the
    shards, or under `index_root` where that folder cannot be written to, and made anew when the
    shard's size or time of change is another.

    Args:
        root: The folder of shards, at any depth.
        with_captions: Give captions; each image must have one.
        index_root: The second choice for indices; ~/.cache/virtex if left out.

    Raises:
        DataError: Everything that is wrong with the data.
    """

    def __init__(
        self, root: Path, *, with_captions: bool = True, index_root: Path | None = None
    ) -> None:
        problems = Problems(f"the folder of shards {root}")
        self.root = root
        self._shards = _find_shards(root, problems)
        indices = _open_indices(root, self._shards, index_root, problems)
        self._offsets = np.concatenate([index.offsets for index in indices])
        self._sizes = np.concatenate([index.sizes for index in indices])
        counts = [len(index.offsets) for index in indices]
        self._shard_numbers = np.repeat(np.arange(len(indices), dtype=np.int32), counts)
        self.image_ids = PackedStrings(
            f"{shard}/{key}"
            for shard, index in zip(self._shards, indices, strict=True)
            for key in index.keys
        )
        self._captions: PackedLists | None = None
        if with_captions:
            faults = [fault for index in indices for fault in index.faults]
            add_faults(self.image_ids, faults, problems)
            self._captions = PackedLists([texts for index in indices for texts in index.captions])
        if not len(self):
            problems.add("There are no images in the shards.")
        problems.check()

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: int) -> Example:
        image_id = self.image_ids[index]
        return Example(image_id=image_id, image=self._read(index), captions=self.captions(index))

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
            "sha256": sha256,
        }

    def _read(self, index: int) -> bytes:
        """The image's file. Opening the shard each time leaves nothing to share with a fork."""
        path = self.root / self._shards[self._shard_numbers[index]]
        size = int(self._sizes[index])
        descriptor = os.open(path, os.O_RDONLY)
        try:
            data = os.pread(descriptor, size, int(self._offsets[index]))
        finally:
            os.close(descriptor)
        if len(data) < size:
            raise DataError(f"{path} has become shorter since it was indexed. Start again.")
        return data


def _find_shards(root: Path, problems: Problems) -> list[str]:
    """Paths of the shards, relative to `root`."""
    if not root.is_dir():
        problems.add("It is no folder. Name the folder of .tar files with --data.root.")
        problems.check()
    names = [prefix + name for prefix, files in walk(root) for name in files]
    shards = [name for name in names if name.endswith(".tar")]
    packed = [name for name in names if name.endswith((".tar.gz", ".tgz", ".tar.zst"))]
    problems.add_all("compressed shards", packed, "Uncompress them: they are read by offset.")
    if not shards:
        problems.add("There are no .tar files in it. Name their folder with --data.root.")
        problems.check()
    return shards


def _open_indices(
    root: Path, shards: list[str], index_root: Path | None, problems: Problems
) -> list[ShardIndex]:
    indices, broken = [], []
    for shard in shards:
        try:
            indices.append(open_index(root / shard, index_root or default_index_root()))
        except BrokenShardError as error:
            broken.append(f"{shard}: {error}")
    problems.add_all("shards that are cut short or broken", broken, "Download them again.")
    if broken:
        problems.check()
    return indices


def default_index_root() -> Path:
    """Where indices go if the shards' own folder is read-only."""
    return Path.home() / ".cache" / "virtex"
