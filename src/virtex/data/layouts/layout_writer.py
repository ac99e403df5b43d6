"""Write a source to disk in the layout of a public data set, by several processes.

    coco         train2017, val2017, annotations/{captions,instances}_{train,val}2017.json
    lvis         train2017, val2017, annotations/lvis_v1_{train,val}.json
    voc          VOCdevkit/VOC2007; `train` gives its train and val, `val` its test split
    imagenet     {train,val}/<class>/*.jpg, an image's class being its most prominent object
    inaturalist  train_val2018/<supercategory>/<id>/*.jpg, {train,val}2018.json
    sidecar      {train,val}/*.jpg with *.txt beside them, one caption a line
    webdataset   {train,val}/000000.tar ... of key.jpg, key.txt and key.json, as from img2dataset

Written twice, every file is the same to the byte.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from virtex import files
from virtex.data.example import Source
from virtex.data.layouts import annotated_layouts as annotated
from virtex.data.layouts import plain_layouts as plain
from virtex.data.layouts.records import CHUNK, Record, Records, write_images
from virtex.data.shards.index_pool import pool_of
from virtex.data.sources.scenes.scenes_source import MAX_SIZE, MIN_SIZE, ScenesSource
from virtex.errors import ConfigError, DataError, did_you_mean, raise_all

LayoutName = Literal["coco", "lvis", "voc", "imagenet", "inaturalist", "sidecar", "webdataset"]
LOCK = ".lock"
"""File in a folder that is written, which is removed at the end."""


@dataclass(frozen=True)
class Layout:
    """Functions that write one layout."""

    finish: Callable[[Path, Records, Sequence[str]], None]
    """Writes the annotations, from (root, records of each split, categories)."""
    write: Callable[..., list[Record]] = write_images
    """Writes a chunk of images; called in several processes."""
    name_image: Callable[..., str] = plain.name_by_number
    """Returns the path of an image under the root."""


LAYOUTS: dict[str, Layout] = {
    "coco": Layout(annotated.finish_coco, name_image=annotated.name_like_coco),
    "lvis": Layout(annotated.finish_lvis, name_image=annotated.name_like_coco),
    "voc": Layout(annotated.finish_voc, name_image=annotated.name_like_voc),
    "imagenet": Layout(plain.finish_imagenet, name_image=plain.name_by_class),
    "inaturalist": Layout(plain.finish_inaturalist, name_image=plain.name_like_inaturalist),
    "sidecar": Layout(plain.finish_sidecar),
    "webdataset": Layout(plain.finish_webdataset, write=plain.write_shard),
}


@dataclass(frozen=True)
class WriteScenesConfig:
    """Drawn scenes written to disk in the layout of a public data set."""

    out: Path
    """Folder to write to; new or empty."""
    layout: LayoutName = "coco"
    """The layout: coco, lvis, voc, imagenet (class folders), inaturalist, sidecar (a .txt beside
    each image) or webdataset (tar shards)."""
    num_train: int = 8000
    """Number of training images."""
    num_val: int = 1000
    """Number of validation images, which are the test split of voc; 0 for none."""
    image_size: int = 96
    """Width and height of the images, 64 to 512 pixels."""
    seed: int = 0
    """Random seed of the scenes."""
    num_processes: int = 1
    """Number of processes that draw at the same time."""

    def __post_init__(self) -> None:
        problems = _problems_of_layout(self.layout)
        least = {"num_train": 0, "num_val": 0, "seed": 0, "num_processes": 1}
        problems += [
            f"{name} is {getattr(self, name)}; give {fewest} or more"
            for name, fewest in least.items()
            if getattr(self, name) < fewest
        ]
        if self.num_train == self.num_val == 0:
            problems.append("num_train and num_val are 0; give 1 or more of one")
        if not MIN_SIZE <= self.image_size <= MAX_SIZE:
            problems.append(f"image_size is {self.image_size}; give {MIN_SIZE} to {MAX_SIZE}")
        raise_all(ConfigError, "scenes cannot be written", problems)


def write_scenes_from(config: WriteScenesConfig) -> None:
    """Draw scenes and write them as the options say.

    Raises:
        ConfigError: Another process writes to the folder.
        DataError: The folder is not empty, or cannot be written.
    """
    sources: dict[str, Source] = {
        split: ScenesSource(size, seed=config.seed, split=split, image_size=config.image_size)
        for split, size in (("train", config.num_train), ("val", config.num_val))
        if size
    }
    write_sources(config.layout, config.out, sources, num_processes=config.num_processes)


def write_scenes(
    layout: LayoutName,
    root: Path,
    *,
    num_train: int,
    num_val: int,
    seed: int = 0,
    image_size: int = 96,
    num_processes: int = 1,
) -> None:
    """Draw scenes and write them; the arguments are the options of `WriteScenesConfig`."""
    write_scenes_from(
        WriteScenesConfig(root, layout, num_train, num_val, image_size, seed, num_processes)
    )


def write_sources(
    layout: str, root: Path, sources: dict[str, Source], *, num_processes: int = 1
) -> None:
    """Write sources of the same categories.

    Args:
        layout: A key of `LAYOUTS`.
        root: A new or empty folder.
        sources: Source of each split: `train`, `val` or both.
        num_processes: More than one are spawned, so that the calling script needs an
            `if __name__ == "__main__"`.

    Raises:
        ConfigError: An unknown layout or split, or no process; or another process writes there.
        DataError: The folder is not empty, or cannot be written.
    """
    _check(layout, sources, num_processes)
    with _alone_in(root):
        records: Records = {split: [] for split in sources}
        for split, written in _written(list(_chunks(layout, root, sources)), num_processes):
            records[split] += written
        categories = next(iter(sources.values())).categories
        LAYOUTS[layout].finish(root, records, categories)


def _check(layout: str, sources: dict[str, Source], num_processes: int) -> None:
    problems = _problems_of_layout(layout)
    if not sources or not set(sources) <= {"train", "val"}:
        problems.append(f"splits {sorted(sources)}; give train, val or both")
    if num_processes < 1:
        problems.append(f"num_processes is {num_processes}; give 1 or more")
    raise_all(ConfigError, "nothing was written", problems)


def _problems_of_layout(layout: str) -> list[str]:
    if layout in LAYOUTS:
        return []
    return [f"unknown layout {layout!r}. {did_you_mean(layout, LAYOUTS)}"]


@contextlib.contextmanager
def _alone_in(root: Path) -> Iterator[None]:
    """Hold the lock of a new or empty folder; after an error it stays, and counts as empty.

    Raises:
        ConfigError: Another process holds it.
        DataError: The folder is not empty, or cannot be written.
    """
    lock = root / LOCK
    if not lock.exists():
        _check_empty(root)
    with files.locked(lock, subject=f"the folder {root}"):
        try:
            _check_empty(root)
        except DataError:  # another process has written it since
            lock.unlink(missing_ok=True)
            raise
        yield
        lock.unlink(missing_ok=True)


def _check_empty(root: Path) -> None:
    if root.exists() and (not root.is_dir() or {path.name for path in root.iterdir()} - {LOCK}):
        raise DataError(
            f"{root} is there already and not an empty folder. Name a new one, or remove what a "
            "command that was stopped has left."
        )


_Chunk = tuple[str, Path, str, Source, range]


def _chunks(layout: str, root: Path, sources: dict[str, Source]) -> Iterator[_Chunk]:
    for split, source in sources.items():
        for start in range(0, len(source), CHUNK):
            yield layout, root, split, source, range(start, min(start + CHUNK, len(source)))


def _written(chunks: list[_Chunk], num_processes: int) -> Iterator[tuple[str, list[Record]]]:
    with pool_of(num_processes) as pool:
        if pool is None:
            yield from itertools.starmap(_write_chunk, chunks)
        else:
            yield from pool.map(_write_chunk, *zip(*chunks, strict=True))


def _write_chunk(
    layout: str, root: Path, split: str, source: Source, indices: range
) -> tuple[str, list[Record]]:
    chosen = LAYOUTS[layout]
    return split, chosen.write(root, split, source, indices, name_image=chosen.name_image)
