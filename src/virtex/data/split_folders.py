"""Where a split of a source lies: the folders and names that the options give."""

import re
from pathlib import Path
from typing import Literal

from virtex.data.checks import quoted
from virtex.data.image_files import subfolders
from virtex.data.source_options import SourceConfig
from virtex.data.sources.huggingface_splits import VALIDATION
from virtex.errors import DataError, listing

Split = Literal["train", "val"]
HELD_OUT = re.compile(rf"({'|'.join((*VALIDATION, 'eval', 'test'))})([-_]?\d+)?", re.IGNORECASE)
"""Usual names of folders of validation or test images, such as Val, dev and test2015."""


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
    return root


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
