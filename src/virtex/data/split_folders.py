"""Where a split of a source lies: the folders and names that the options give."""

import logging
from collections import Counter
from pathlib import Path
from typing import Literal

from virtex.data.checks import quoted
from virtex.data.held_out_names import HELD_OUT, TEST
from virtex.data.image_files import PassedOver, is_image, subfolders, walk
from virtex.data.source_options import SourceConfig
from virtex.errors import DataError, listing, one_line

log = logging.getLogger("virtex")

Split = Literal["train", "val"]


def split_of(config: SourceConfig, split: Split) -> tuple[Path, str, bool]:
    """Return a split's root and name, and whether it must exist: named, or for training."""
    root = root_of(config)
    if split == "train":
        return root, config.train_split or "train", True
    is_named = config.val_root is not None or config.val_split is not None
    return config.val_root or root, config.val_split or "val", is_named


def train_folder(config: SourceConfig) -> Path:
    """Return the folder of the training images: a subfolder of the root, or the root.

    Raises:
        DataError: The named subfolder is missing, or the root holds validation images too.
    """
    root = root_of(config)
    folder = root / (config.train_split or "train")
    if folder.is_dir():
        return folder
    if config.train_split is not None:
        raise DataError(f"{folder} is not a folder. Name one in {root} with --data.train_split.")
    if held_out := held_out_folders(config):
        names = listing([quoted(name) for name in held_out])
        raise DataError(
            f"{root} holds {names} but no {folder.name}: all of it would be training images, "
            f"{names} included. Name the training images' folder with --data.train_split (. for "
            f"all of {root}), and the validation images' with --data.val_split."
        )
    _warn_of_split_folders(root)
    return root


def _warn_of_split_folders(root: Path) -> None:
    """Warn of a folder in the root that holds both training and validation images."""
    for name in subfolders(root) if root.is_dir() else ():
        within = subfolders(root / name)
        held_out = [one for one in within if HELD_OUT.fullmatch(one)]
        if held_out and "train" in within:
            log.warning(
                "%s: %s holds train and %s, and all of them are training images. For train alone: "
                "--data.root %s",
                one_line(str(root)), quoted(name), listing([quoted(one) for one in held_out]),
                one_line(str(root / name)),
            )  # fmt: skip


def held_out_folders(config: SourceConfig) -> list[str]:
    """Return the folders of validation or test images that training on all of the root includes.

    Empty where the options name the training images' folder, or validation images elsewhere.
    """
    root = root_of(config)
    is_named = config.train_split is not None or config.val_root is not None
    if is_named or (root / "train").is_dir() or not root.is_dir():
        return []
    own = config.val_split or "val"
    usual = [name for name in subfolders(root) if HELD_OUT.fullmatch(name) and name != own]
    return [own] * (root / own).is_dir() + usual


def log_left_out(config: SourceConfig, used: set[Path]) -> None:
    """Log what lies beside a `train` that no option names, and is in none of the folders used.

    Folders of test images are no part of this.
    """
    root = root_of(config)
    train = root / "train"
    if config.train_split is not None or train not in used:
        return
    top = next(walk(root, is_strict=False), None)
    if top is None:  # a folder that can be entered, but not listed
        return
    is_member = _is_shard if config.source == "webdataset" else is_image
    counts = Counter({"in the root": sum(map(is_member, top[1]))})
    for name in subfolders(root):
        is_used = any(one.is_relative_to(root / name) for one in used)
        if not is_used and not TEST.fullmatch(name):
            files = (files for _, files in walk(root / name, is_strict=False))
            counts[f"in {quoted(name)}"] = sum(is_member(one) for names in files for one in names)
    if +counts:
        log.warning(
            "%s: %s, beside train, which is taken for the training split. --data.train_split . "
            "takes all of it, and --data.val_split NAME validates on a folder",
            one_line(str(root)), PassedOver(+counts),
        )  # fmt: skip


def check_is_split_of_classes(config: SourceConfig, folder: Path) -> None:
    """Check that a `train` that no option names is no class of its own.

    Raises:
        DataError: It holds no folders, and there are others beside it.
    """
    root = root_of(config)
    if config.train_split is not None or folder != root / "train" or subfolders(folder):
        return
    beside = [name for name in subfolders(root) if name != "train" and not HELD_OUT.fullmatch(name)]
    if beside:
        raise DataError(
            f"{folder} is taken for the training split by its name, but holds no class folders; "
            f"beside it are {listing([quoted(name) for name in beside])}. If all are classes, give "
            f"--data.train_split . (all of {root}). If it is a split, put each class's images into "
            "a folder of it."
        )


def _is_shard(name: str) -> bool:
    return name.lower().endswith(".tar")


def val_folder(config: SourceConfig) -> Path | None:
    """Return the folder of the validation images: the training folder if some are held out.

    Raises:
        DataError: The named folder is missing, or validation images are named twice.
    """
    folder = (config.val_root or root_of(config)) / (config.val_split or "val")
    if folder.is_dir():
        if config.val_share > 0:
            raise DataError(
                f"{folder} holds validation images, and --data.val_share holds out others. "
                "Leave --data.val_share out, or name only the training folder with --data.root."
            )
        return folder
    if config.val_split is not None:
        raise DataError(f"{folder} is not a folder. Name one with --data.val_split.")
    return train_folder(config) if config.val_share > 0 else config.val_root


def root_of(config: SourceConfig) -> Path:
    """Return the root, which `check_options` requires."""
    assert config.root is not None, "check_options requires it"
    return config.root
