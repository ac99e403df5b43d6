"""The layout of a data set, found from its root: what `--data.source auto` stands for.

Annotation files of a known name decide. Where there are none, the files of the training images do:
shards, captions beside images, one table, or folders of images.
"""

import functools
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from virtex.data.checks import head_of, quoted
from virtex.data.image_files import images_below, is_image
from virtex.data.shards.manifest import has_manifest
from virtex.data.source_options import (
    Needs,
    SourceConfig,
    SourceName,
    lacking,
    meets,
    without,
)
from virtex.data.sources.coco_file import KINDS
from virtex.data.sources.flickr import flickr_file, is_flickr_file
from virtex.data.sources.huggingface_sets import HUB_NAME, is_saved_set
from virtex.data.sources.inaturalist import YEAR
from virtex.data.sources.karpathy import PATTERN, is_karpathy_file
from virtex.data.sources.lvis import START
from virtex.data.sources.table import READERS
from virtex.data.urls import url_problem
from virtex.errors import ConfigError, listing

log = logging.getLogger("virtex")

HEAD_BYTES = 4096
MAX_FOLDERS = 300
MAX_DEPTH = 8
MAX_FILES = 20_000
"""Most files looked at in a folder."""
SIDECARS = (".txt", ".json")
HUB_HINT = "; for a data set on the Hugging Face hub, add --data.source huggingface"
TABLES = tuple(end for end in READERS if end not in SIDECARS)
"""Suffixes of tables in a folder, where a text or a JSON file may be anything."""


class Layout(NamedTuple):
    """What shows a layout, in words."""

    source: SourceName
    marks: str


LAYOUTS = (
    Layout("coco", "annotations/captions_*.json or instances_*.json, or one such file"),
    Layout("lvis", f"annotations/{START}*.json"),
    Layout("karpathy", f"{PATTERN} with sentences and splits"),
    Layout("flickr", "Flickr8k.token.txt, captions.txt or results.csv, or such a file"),
    Layout("inaturalist", f"train{YEAR}.json or val{YEAR}.json"),
    Layout("voc", "ImageSets/Main in the root, VOC2007 or VOCdevkit"),
    Layout(
        "huggingface", "dataset_dict.json, or dataset_info.json and state.json, of save_to_disk"
    ),
    Layout("webdataset", ".tar files, or manifest.json of virtex index"),
    Layout("table", f"a file {', '.join(READERS)}, or a folder with one {', '.join(TABLES)}"),
    Layout("folder", "images with .txt or .json files beside them"),
    Layout("classes", "folders of images"),
)


_MARKS = "\n".join(f"- {source}: {marks}" for source, marks in LAYOUTS)
NO_ROOT = (
    "this recipe trains on data of your own, and none are named. Name their folder or file with "
    f"--data.root, or give --data.source scenes to train on drawn scenes. Known layouts:\n{_MARKS}"
)


def resolved(config: SourceConfig, needs: Needs) -> SourceConfig:
    """Return the options with the layout that `auto` stands for; others unchanged.

    Raises:
        ConfigError: The root has no known layout, or several that meet `needs`; or there is no
            root, and the options say that it is needed.
    """
    if config.source != "auto":
        return config
    if config.mix:
        return replace(config, source="webdataset")
    if config.root is None and config.needs_root:
        raise ConfigError(NO_ROOT)
    if config.root is None:
        _log_once("data: scenes are drawn, for want of a --data.root")
        return replace(config, source="scenes")
    found = found_layouts(config.root, config, needs)
    fits = [source for source in found if meets(source, needs)]
    if not needs.annotations:
        fits = fits[:1]  # all read the same images
    if config.val_root is not None and len(fits) > 1:
        other = found_layouts(config.val_root, config, needs)
        fits = [source for source in fits if source in other] or fits
    if len(fits) != 1:
        raise ConfigError(_message(config.root, found, fits, needs))
    marks = dict(LAYOUTS)[fits[0]]
    _log_once(f"data: {quoted(config.root)} is read as --data.source {fits[0]} ({marks})")
    if fits[0] == "table" and config.root.is_dir():
        return replace(config, source="table", root=_tables(config.root)[0])
    return replace(config, source=fits[0])


def found_layouts(root: Path, config: SourceConfig, needs: Needs) -> list[SourceName]:
    """Return the layouts that a root shows, also those that do not meet `needs`.

    Raises:
        ConfigError: Folders of the root have layouts of their own.
    """
    if has_manifest(root):
        return ["webdataset"]
    if root.is_file():
        return _layout_of_file(root)
    if not root.is_dir():
        return []
    marked = [source for source, is_found in MARKED.items() if is_found(root)]
    if marked:
        return marked
    if nested := _data_sets_in(root):
        raise ConfigError(
            f"{root} holds data sets of other layouts in its folders: {listing(nested)}. Name one "
            "with --data.root, or the layout of the whole with --data.source."
        )
    parts = (root / (config.train_split or "train"), root / (config.val_split or "val"), root)
    files = _look(next(part for part in parts if part.is_dir()))
    return _layouts_of(files, root, with_captions=needs.captions)


def _data_sets_in(root: Path) -> list[str]:
    """Return the folders directly below a root whose annotation files show a layout."""
    try:
        folders = sorted(path for path in root.iterdir() if path.is_dir())
    except OSError:  # the search for images says why
        return []
    return [
        f"{quoted(folder.name)} ({source})"
        for folder in folders[:MAX_FOLDERS]
        for source, is_found in MARKED.items()
        if is_found(folder)
    ]


def _layout_of_file(path: Path) -> list[SourceName]:
    if is_flickr_file(path):
        return ["flickr"]
    if is_karpathy_file(path):
        return ["karpathy"]
    if path.suffix.lower() == ".json" and _is_object(path):
        return ["coco"]
    return ["table"] if path.suffix.lower() in READERS else []


def _is_object(path: Path) -> bool:
    """Whether a JSON file holds an object, as COCO's do, not a list of rows."""
    return head_of(path, HEAD_BYTES).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{")


def _has(*patterns: str) -> Callable[[Path], bool]:
    """Return whether a root holds a file or folder of one of some patterns."""
    return lambda root: any(any(root.glob(pattern)) for pattern in patterns)


MARKED: dict[SourceName, Callable[[Path], bool]] = {
    "coco": _has(*(f"annotations/{kind}_*.json" for kind in KINDS)),
    "lvis": _has(f"annotations/{START}*.json"),
    "karpathy": lambda root: any(map(is_karpathy_file, root.glob(PATTERN))),
    "flickr": lambda root: flickr_file(root) is not None,
    "inaturalist": _has(f"train{YEAR}.json", f"val{YEAR}.json"),
    "huggingface": is_saved_set,
    "voc": _has("ImageSets/Main", "VOC20*/ImageSets/Main", "VOCdevkit/VOC20*/ImageSets/Main"),
}


@dataclass
class _Files:
    """What a walk through a folder found."""

    shards: bool = False
    captioned: bool = False
    """Whether an image has a caption file beside it."""
    images_on_top: bool = False
    images_below: bool = False


def _layouts_of(files: _Files, root: Path, *, with_captions: bool) -> list[SourceName]:
    """Return the layouts of a root without annotation files."""
    found: list[SourceName] = []
    if files.shards:
        found.append("webdataset")
    if files.captioned or (files.images_on_top and not with_captions):
        found.append("folder")
    if not files.captioned and len(_tables(root)) == 1:
        found.append("table")
    if files.images_below and not files.images_on_top:
        found.append("classes")
    return found


def _look(root: Path) -> _Files:
    """Look at the files of a folder and of the first MAX_FOLDERS below it."""
    found = _Files()
    for depth, names in _walk(root):
        images = [os.path.splitext(name)[0] for name in names if is_image(name)]  # noqa: PTH122
        lower = {stem + end.lower() for stem, end in map(os.path.splitext, names)}
        found.shards |= any(name.endswith(".tar") for name in lower)
        found.captioned |= any(stem + end in lower for stem in images for end in SIDECARS)
        found.images_on_top |= bool(images) and depth == 0
        found.images_below |= bool(images) and depth > 0
        if found.captioned:
            break
    return found


def _walk(root: Path) -> Iterator[tuple[int, set[str]]]:
    """Yield depth and file names of the first folders, the root first, level by level."""
    level, count = [str(root)], 0
    for depth in range(MAX_DEPTH):
        below: list[str] = []
        for folder in level[: MAX_FOLDERS - count]:
            count += 1
            try:
                with os.scandir(folder) as entries:
                    shown = [one for one in islice(entries, MAX_FILES) if one.name[0] != "."]
                    folders = {one.name for one in shown if one.is_dir()}
            except OSError:
                continue
            yield depth, {one.name for one in shown} - folders
            below += [f"{folder}/{name}" for name in sorted(folders)]
        level = below


def _tables(root: Path) -> list[Path]:
    paths = (path for path in root.glob("*") if path.suffix.lower() in TABLES)
    return sorted(path for path in paths if path.is_file())


def _message(root: Path, found: list[SourceName], fits: list[SourceName], needs: Needs) -> str:
    """Return the message for a root whose layout is not plain."""
    if (problem := url_problem("root", root)) is not None:
        return problem
    if not root.exists():
        hint = "" if HUB_NAME.fullmatch(str(root)) is None else HUB_HINT
        what = "Name the folder of the data, or its file, with --data.root"
        return f"{root} does not exist. {what}{hint}."
    remedy = "Name the layout with --data.source, or another --data.root."
    if fits:
        return f"{root} has the layouts {' and '.join(fits)}. {remedy}"
    if found:
        lacked = list(dict.fromkeys(what for source in found for what in lacking(source, needs)))
        lacks = f"which lacks the {' and '.join(lacked)} that the task needs"
        remedy = f"{without(needs, lacked)} {remedy}".strip()
        return f"{root} has the layout {' and '.join(found)}, {lacks}. {remedy}"
    return f"{root} has no layout that is known. {_contents(root)}{remedy} Looked for:\n{_MARKS}"


def _contents(root: Path) -> str:
    """Return what a folder without a known layout holds."""
    if not root.is_dir():
        return ""
    images, passed_over = images_below(root)
    if not images:
        return f"{passed_over.within('There are no images in it.')} "
    number = f"{len(images):,} image{'s' * (len(images) > 1)}"
    return f"{passed_over.within(f'It holds {number}, without captions.')} "


@functools.cache
def _log_once(text: str) -> None:
    """Log a line at its first use, since training and validation data are opened apart."""
    log.info("%s", text)
