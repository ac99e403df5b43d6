"""Where a split of a source lies: the folders and names that the options give."""

from pathlib import Path
from typing import Literal

from virtex.data.source_options import SourceConfig
from virtex.errors import DataError

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
    val = root / (config.val_split or "val")
    if val.is_dir() and config.val_root is None:
        raise DataError(
            f"{root} holds {val.name} but no {folder.name}: all of it would be training images, "
            f"{val.name} included. Name the training images' folder with --data.train_split."
        )
    return root


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
