"""Options to an opened data source: the layout, its location and the part to use."""

import functools
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np

from virtex.data.checks import quoted
from virtex.data.example import Source, Subset
from virtex.data.layout_search import resolved
from virtex.data.shards.index_options import DEFAULT_OUT
from virtex.data.shards.manifest import Manifest, has_manifest, is_url
from virtex.data.shards.remote import RemoteShards
from virtex.data.source_options import Needs, SourceConfig, check_options, is_manifest
from virtex.data.sources.classes import ClassesSource, check_same_class_folders
from virtex.data.sources.coco import CocoSource
from virtex.data.sources.coco_file import kinds_of, matching_split
from virtex.data.sources.flickr import FlickrSource, split_list
from virtex.data.sources.folder import FolderSource
from virtex.data.sources.huggingface import HuggingFaceSource
from virtex.data.sources.huggingface_sets import load_splits
from virtex.data.sources.huggingface_splits import choose_split
from virtex.data.sources.inaturalist import (
    InaturalistSource,
    check_same_categories,
    find_annotations,
)
from virtex.data.sources.karpathy import KarpathySource, has_karpathy_split
from virtex.data.sources.lvis import LvisSource, lvis_path
from virtex.data.sources.mixed import MixedSource
from virtex.data.sources.scenes import ScenesSource
from virtex.data.sources.shard_captions import check_indexed_for
from virtex.data.sources.shards import ShardedSource
from virtex.data.sources.table import TableSource
from virtex.data.sources.voc import VocSource
from virtex.data.sources.voc_splits import has_split
from virtex.data.sources.webdataset import WebdatasetSource
from virtex.data.split_folders import (
    Split,
    check_is_split_of_classes,
    log_left_out,
    root_of,
    split_of,
    train_folder,
    val_folder,
)
from virtex.data.subsets import (
    FewerCaptions,
    check_num_captions,
    first_of_each_class,
    fraction_of_each_class,
    held_out,
    listed,
    random_fraction,
)
from virtex.errors import ConfigError, DataError

__all__ = ["Needs", "SourceConfig", "Split", "open_source", "resolved"]

log = logging.getLogger("virtex")

CAPTIONS = Needs(captions=True)
Listed = (
    FolderSource | TableSource | WebdatasetSource | ClassesSource | FlickrSource | HuggingFaceSource
)
"""The sources that some images can be held out of."""
WITH_ONE_LABEL = frozenset({"classes", "inaturalist"})


def open_source(
    config: SourceConfig,
    *,
    split: Split,
    needs: Needs = CAPTIONS,
    remote: RemoteShards | None = None,
) -> Source | None:
    """Return the checked training or validation data; None where no validation data is named.

    Args:
        needs: Annotations that each image must have; others are not read.
        remote: Local paths of shards at URLs, if the options name such.

    Raises:
        ConfigError: The options do not work together.
        DataError: The data cannot be used.
    """
    config = resolved(config, needs)
    source = open_whole(config, split=split, needs=needs, remote=remote)
    if source is None or split == "val":
        return source
    check_num_captions(source, config.num_captions)
    return part_to_train(source, config)


def open_whole(
    config: SourceConfig,
    *,
    split: Split,
    needs: Needs = CAPTIONS,
    remote: RemoteShards | None = None,
) -> Source | None:
    """Return what `open_source` does before `share` and `num_captions` take a part of it.

    Raises: see `open_source`.
    """
    config = resolved(config, needs)
    check_options(config, needs)
    source = _open(config, split, needs, remote)
    if source is not None and not len(source):
        raise DataError(f"no {split} image in {root_of(config)} has a caption. Write some.")
    if source is not None and split == "train" and config.keep is not None:
        return listed(source, config.keep)
    return source


def part_to_train(source: Source, config: SourceConfig) -> Source:
    """Return the part of the whole training data that `share` and `num_captions` choose."""
    if config.share < 1 and config.keep is not None:
        log.warning(
            "--data.share %g takes a part of the %s images that --data.keep lists, not of all; "
            "a list that was made of such a share needs --data.share 1",
            config.share, f"{len(source):,}",
        )  # fmt: skip
    if config.share < 1 and config.share_draw == "first":
        source = first_of_each_class(source, config.share)
    elif config.share < 1:
        draw = fraction_of_each_class if config.source in WITH_ONE_LABEL else random_fraction
        source = draw(source, config.share, seed=config.seed)
    if config.num_captions is not None:
        source = FewerCaptions(source, config.num_captions)
    return source


def _open(
    config: SourceConfig, split: Split, needs: Needs, remote: RemoteShards | None
) -> Source | None:
    match config.source:
        case "scenes":
            return _open_scenes(config, split)
        case "table":
            return _open_table(config, split, needs)
        case "flickr":
            return _open_flickr(config, split, needs)
        case "huggingface":
            return _open_huggingface(config, split, needs)
        case "webdataset" if is_manifest(config) or config.val_root is not None:
            return _open_shards(config, split, needs, remote)
        case "folder" | "webdataset" | "classes":
            return _open_folder(config, split, needs)
    root, name, is_named = split_of(config, split)
    if not is_named and not _has_split(config, root, name, needs):
        return None
    source = _open_split(config, root, name, needs)
    if isinstance(source, InaturalistSource) and split == "train":  # reads the smaller file again
        val_path = find_annotations(*split_of(config, "val")[:2])
        if val_path is not None:
            check_same_categories(source, val_path)
    return source


def _open_shards(
    config: SourceConfig, split: Split, needs: Needs, remote: RemoteShards | None
) -> Source | None:
    """Return the shards of manifests, or those in a folder."""
    mix = {Path(path): weight for path, weight in config.mix.items()}
    root = config.root if split == "train" else config.val_root
    if split == "train" and mix:
        return MixedSource(_sharded([*mix], config, needs, remote), [*mix.values()])
    if root is not None and has_manifest(root):
        return _sharded([root], config, needs, remote)[0]
    if split == "val" and root is None:
        return None
    if is_manifest(config):  # and the validation data are a folder
        config = replace(config, root=root, mix={})
    return _open_folder(config, split, needs)


def _sharded(
    paths: Sequence[Path], config: SourceConfig, needs: Needs, remote: RemoteShards | None
) -> list[ShardedSource]:
    """Return the shards of each manifest, whose captions are those that it was indexed for."""
    manifests = [Manifest.read(path) for path in paths]
    distant = [one for one in manifests if is_url(one.root)]
    if distant and remote is None:
        raise ConfigError(
            f"{distant[0].folder} lists shards at {quoted(distant[0].root)}, which virtex "
            "pretrain, data check, pack and tokenizer alone read from afar. For this command, "
            "copy the shards to a folder, index that by `virtex index FOLDER`, and name FOLDER"
            f"/{DEFAULT_OUT}."
        )
    if needs.captions:
        check_indexed_for(manifests, config.caption_keys)
    sources = []
    for manifest in manifests:
        of_remote = remote if manifest in distant else None
        source = ShardedSource(
            manifest,
            with_captions=needs.captions,
            caption_keys=config.caption_keys,
            fault_limit=config.fault_limit,
            locate=None if of_remote is None else of_remote.locate(manifest),
            has_own_records=of_remote is not None and of_remote.has_own_records,
        )
        if needs.captions:
            first = None if of_remote is None else of_remote.first_shard(manifest)
            source.check_captions(config.caption_keys, first=first)
        sources.append(source)
    return sources


def _open_scenes(config: SourceConfig, split: Split) -> Source | None:
    num_images = config.num_images if split == "train" else config.num_val_images
    if num_images == 0:
        return None
    return ScenesSource(num_images, seed=config.seed, split=split, image_size=config.image_size)


def _has_split(config: SourceConfig, root: Path, name: str, needs: Needs) -> bool:
    match config.source:
        case "coco":
            instances = needs.objects or needs.labels
            kinds = kinds_of(with_captions=needs.captions, with_instances=instances)
            return matching_split(root, name, kinds) is not None
        case "lvis":
            return lvis_path(root, name).is_file()
        case "karpathy":
            return has_karpathy_split(root, name)
        case "inaturalist":
            return find_annotations(root, name) is not None
    return has_split(root, name)


def _open_split(config: SourceConfig, root: Path, name: str, needs: Needs) -> Source:
    instances, limit = needs.objects or needs.labels, config.bad_object_limit
    match config.source:
        case "coco":
            return CocoSource(
                root,
                split=name,
                with_captions=needs.captions,
                with_instances=instances,
                with_masks=needs.masks,
                bad_object_limit=limit,
                missing_caption_limit=config.missing_caption_limit,
                image_root=config.image_root,
            )
        case "karpathy":
            return KarpathySource(
                root,
                split=name,
                image_root=config.image_root,
                with_captions=needs.captions,
                missing_caption_limit=config.missing_caption_limit,
            )
        case "lvis":
            return LvisSource(
                root,
                split=name,
                with_instances=instances,
                with_masks=needs.masks,
                bad_object_limit=limit,
            )
        case "inaturalist":
            return InaturalistSource(root, split=name)
    return VocSource(root, split=name, with_boxes=needs.objects, bad_object_limit=limit)


def _open_table(config: SourceConfig, split: Split, needs: Needs) -> Source | None:
    path = root_of(config)
    if split == "val" and config.val_root is not None:
        path = config.val_root
    elif split == "val" and config.val_share == 0:
        return None
    source = TableSource(
        path,
        image_root=config.image_root,
        image_column=config.image_column,
        caption_column=config.caption_column,
        encoding=config.encoding,
        with_captions=needs.captions,
        missing_caption_limit=config.missing_caption_limit,
    )
    return _part_of(source, config, split)


def _open_huggingface(config: SourceConfig, split: Split, needs: Needs) -> Source | None:
    root = root_of(config) if split == "train" else config.val_root or root_of(config)
    splits = load_splits(root, config.subset)
    name = choose_split(splits, config, split)
    if name is None:
        return None
    source = HuggingFaceSource(
        root,
        splits,
        name,
        image_column=config.image_column,
        caption_column=config.caption_column,
        label_column=config.label_column,
        needs=needs,
        missing_caption_limit=config.missing_caption_limit,
    )
    return _part_of(source, config, split)


def _open_flickr(config: SourceConfig, split: Split, needs: Needs) -> Source | None:
    root, _, _ = split_of(config, split)
    train_list, val_list = (_split_list(config, one) for one in get_args(Split))
    if split == "train" and train_list is None and val_list is not None and not config.val_root:
        raise DataError(
            f"{val_list} lists validation images, and no list names those for training: all of "
            "them would be. Name a list beside it with --data.train_split."
        )
    if config.val_share > 0 and val_list is not None:
        raise DataError(
            f"{val_list} lists validation images, and --data.val_share holds out others. Leave "
            "--data.val_share out."
        )
    if split == "val" and val_list is None and config.val_root is None and not config.val_share:
        return None
    is_own = split == "val" and config.val_share == 0
    source = FlickrSource(
        root,
        split_path=val_list if is_own else train_list,
        image_root=config.image_root,
        with_captions=needs.captions,
        missing_caption_limit=config.missing_caption_limit,
    )
    return _part_of(source, config, split)


def _split_list(config: SourceConfig, split: Split) -> Path | None:
    """Return the list of a split's images; a DataError says that a named one is missing."""
    root, name, _ = split_of(config, split)
    path, option = split_list(root, name), f"{split}_split"
    if path is None and getattr(config, option) is not None:
        raise DataError(
            f"there is no list {name}Images.txt, {name}.txt or {name} beside the captions of "
            f"{root}. Name one with --data.{option}."
        )
    return path


def _open_folder(config: SourceConfig, split: Split, needs: Needs) -> Source | None:
    train, val = train_folder(config), val_folder(config)
    folder, limit = train if split == "train" else val, config.missing_caption_limit
    if folder is None:
        return None
    if config.source == "webdataset" and has_manifest(folder / DEFAULT_OUT):
        _log_unused(folder, split)
    if split == "train":
        log_left_out(config, {train, val or train})
    source: Listed
    if config.source in ("folder", "webdataset"):
        kind = FolderSource if config.source == "folder" else WebdatasetSource
        source = kind(
            folder,
            with_captions=needs.captions,
            missing_caption_limit=limit,
            caption_keys=config.caption_keys,
        )
    else:
        check_is_split_of_classes(config, train)
        source = ClassesSource(folder)
        if val is not None and val != train:
            check_same_class_folders(train, val)
    return _part_of(source, config, split)


@functools.cache
def _log_unused(folder: Path, split: Split) -> None:
    """Say once that the manifest of a folder of shards is not used."""
    option = "root" if split == "train" else "val_root"
    log.info(
        "%s is read as a folder, in a permutation of all examples; it has a manifest too, which a "
        "new run reads with --data.%s %s",
        folder, option, folder / DEFAULT_OUT,
    )  # fmt: skip


def _part_of(source: Listed, config: SourceConfig, split: Split) -> Source:
    """Return the part of a source that belongs to a split; a DataError says that it is empty."""
    if config.val_share == 0:
        return source
    names = source.row_names if isinstance(source, HuggingFaceSource) else source.image_ids
    is_held_out = held_out(names, config.val_share, seed=config.seed)
    chosen = np.flatnonzero(is_held_out == (split == "val"))
    if not len(chosen):
        raise DataError(
            f"--data.val_share {config.val_share} of {len(source):,} images leaves none for "
            f"{split}. Choose another fraction or --data.seed."
        )
    return Subset(source, chosen)
