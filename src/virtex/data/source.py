"""From options to a source of data: which layout, where it lies, which part of it."""

from pathlib import Path
from typing import Literal

import numpy as np

from virtex.data.example import Source, Subset
from virtex.data.source_options import Needs, SourceConfig, check_options
from virtex.data.sources.classes import ClassesSource, check_same_class_folders
from virtex.data.sources.coco import CocoSource
from virtex.data.sources.coco_file import kinds_of, matching_split
from virtex.data.sources.folder import FolderSource
from virtex.data.sources.inaturalist import (
    InaturalistSource,
    check_same_categories,
    find_annotations,
)
from virtex.data.sources.lvis import LvisSource, lvis_path
from virtex.data.sources.scenes import ScenesSource
from virtex.data.sources.table import TableSource
from virtex.data.sources.voc import VocSource
from virtex.data.sources.voc_splits import has_split
from virtex.data.sources.webdataset import WebdatasetSource
from virtex.data.subsets import FewerCaptions, fraction_of_each_class, held_out, random_fraction
from virtex.errors import DataError

__all__ = ["Needs", "SourceConfig", "Split", "open_source"]

Split = Literal["train", "val"]
CAPTIONS = Needs(captions=True)
WITH_ONE_LABEL = frozenset({"classes", "inaturalist"})


def open_source(
    config: SourceConfig,
    *,
    split: Split,
    needs: Needs = CAPTIONS,
) -> Source | None:
    """The training or validation data, checked; None where no validation data is named.

    Args:
        needs: What each image must come with; what is not needed is not read.

    Raises:
        ConfigError: Everything wrong with the options.
        DataError: Everything wrong with the data.
    """
    check_options(config, needs)
    source = _open(config, split, needs)
    if source is None or split == "val":
        return source
    if config.share < 1 and config.source in WITH_ONE_LABEL:
        source = fraction_of_each_class(source, config.share, seed=config.seed)
    elif config.share < 1:
        source = random_fraction(source, config.share, seed=config.seed)
    if config.num_captions is not None:
        source = FewerCaptions(source, config.num_captions)
    return source


def _open(config: SourceConfig, split: Split, needs: Needs) -> Source | None:
    match config.source:
        case "scenes":
            return _open_scenes(config, split)
        case "coco":
            return _open_coco(config, split, needs)
        case "lvis":
            return _open_lvis(config, split, needs)
        case "inaturalist":
            return _open_inaturalist(config, split)
        case "voc":
            return _open_voc(config, split, needs)
        case "table":
            return _open_table(config, split, needs)
        case _:
            return _open_folder(config, split, needs)


def _open_scenes(config: SourceConfig, split: Split) -> Source | None:
    num_images = config.num_images if split == "train" else config.num_val_images
    if num_images == 0:
        return None
    return ScenesSource(num_images, seed=config.seed, split=split, image_size=config.image_size)


def _open_coco(config: SourceConfig, split: Split, needs: Needs) -> Source | None:
    root, name, is_named = _split_of(config, split)
    with_instances = needs.objects or needs.labels
    kinds = kinds_of(with_captions=needs.captions, with_instances=with_instances)
    if not is_named and matching_split(root, name, kinds) is None:
        return None
    return CocoSource(
        root,
        split=name,
        with_captions=needs.captions,
        with_instances=with_instances,
        bad_object_limit=config.bad_object_limit,
    )


def _open_lvis(config: SourceConfig, split: Split, needs: Needs) -> Source | None:
    root, name, is_named = _split_of(config, split)
    if not is_named and not lvis_path(root, name).is_file():
        return None
    return LvisSource(
        root,
        split=name,
        with_instances=needs.objects or needs.labels,
        bad_object_limit=config.bad_object_limit,
    )


def _open_inaturalist(config: SourceConfig, split: Split) -> Source | None:
    root, name, is_named = _split_of(config, split)
    if not is_named and find_annotations(root, name) is None:
        return None
    source = InaturalistSource(root, split=name)
    if split == "train":  # whose file is the one not to be read again
        val_root, val_name, _ = _split_of(config, "val")
        val_path = find_annotations(val_root, val_name)
        if val_path is not None:
            check_same_categories(source, val_path)
    return source


def _open_voc(config: SourceConfig, split: Split, needs: Needs) -> Source | None:
    root, name, is_named = _split_of(config, split)
    if not is_named and not has_split(root, name):
        return None
    return VocSource(
        root, split=name, with_boxes=needs.objects, bad_object_limit=config.bad_object_limit
    )


def _open_table(config: SourceConfig, split: Split, needs: Needs) -> Source | None:
    path = _root_of(config)
    if split == "val" and config.val_root is not None:
        path = config.val_root
    elif split == "val" and config.val_share == 0:
        return None
    source = TableSource(
        path,
        image_root=config.image_root,
        image_column=config.image_column,
        caption_column=config.caption_column,
        with_captions=needs.captions,
    )
    return _side(source, config, split)


def _open_folder(config: SourceConfig, split: Split, needs: Needs) -> Source | None:
    train, val = _train_folder(config), _val_folder(config)
    folder = train if split == "train" else val
    if folder is None:
        return None
    source: FolderSource | WebdatasetSource | ClassesSource
    if config.source == "folder":
        source = FolderSource(folder, with_captions=needs.captions)
    elif config.source == "webdataset":
        source = WebdatasetSource(folder, with_captions=needs.captions)
    else:
        source = ClassesSource(folder)
        if val is not None and val != train:
            check_same_class_folders(train, val)
    return _side(source, config, split)


def _split_of(config: SourceConfig, split: Split) -> tuple[Path, str, bool]:
    """Root and name of a split, and whether the user named it: a training split always counts."""
    root = _root_of(config)
    if split == "train":
        return root, config.train_split or "train", True
    is_named = config.val_root is not None or config.val_split is not None
    return config.val_root or root, config.val_split or "val", is_named


def _train_folder(config: SourceConfig) -> Path:
    """The folder of the training images: a subfolder of root, or root itself.

    Raises:
        DataError: The subfolder that was named is missing, or root holds validation images too.
    """
    root = _root_of(config)
    folder = root / (config.train_split or "train")
    if folder.is_dir():
        return folder
    if config.train_split is not None:
        raise DataError(f"{folder} is no folder. Name one in {root} with --data.train_split.")
    val = root / (config.val_split or "val")
    if val.is_dir() and config.val_root is None:
        raise DataError(
            f"{root} holds {val.name} but no {folder.name}: all of it would be training images, "
            f"{val.name} included. Name the training images' folder with --data.train_split."
        )
    return root


def _val_folder(config: SourceConfig) -> Path | None:
    """The folder of the validation images; the training folder if a share of it is held out.

    Raises:
        DataError: The folder that was named is missing, or validation images are named twice.
    """
    folder = (config.val_root or _root_of(config)) / (config.val_split or "val")
    if folder.is_dir():
        if config.val_share > 0:
            raise DataError(
                f"{folder} holds validation images, and --data.val_share holds out others. "
                "Leave --data.val_share out, or name only the training folder with --data.root."
            )
        return folder
    if config.val_split is not None:
        raise DataError(f"{folder} is no folder. Name one with --data.val_split.")
    return _train_folder(config) if config.val_share > 0 else config.val_root


def _side(
    source: FolderSource | TableSource | WebdatasetSource | ClassesSource,
    config: SourceConfig,
    split: Split,
) -> Source:
    """The part of a source that belongs to a split, where a share of it is held out.

    Raises:
        DataError: No image falls into the split.
    """
    if config.val_share == 0:
        return source
    is_held_out = held_out(source.image_ids, config.val_share, seed=config.seed)
    chosen = np.flatnonzero(is_held_out == (split == "val"))
    if not len(chosen):
        raise DataError(
            f"--data.val_share {config.val_share} of {len(source):,} images leaves none for "
            f"{split}. Choose another share or --data.seed."
        )
    return Subset(source, chosen)


def _root_of(config: SourceConfig) -> Path:
    assert config.root is not None, "check_options sees to it"
    return config.root
