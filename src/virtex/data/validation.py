"""The check that validation data are not trained on."""

from pathlib import Path

from virtex.data.shards.manifest import has_manifest
from virtex.data.shards.manifest_options import check_apart
from virtex.data.source_options import SourceConfig, is_manifest
from virtex.data.split_folders import root_of, train_folder, val_folder
from virtex.errors import ConfigError

IN_FOLDERS = ("folder", "webdataset", "classes")
"""Sources whose splits are all images below a folder."""
IN_FILES = ("table", "coco")
"""Sources of which a file is one split."""
REMEDY = "Name other data, or leave --data.val_root out"


def check_validation(config: SourceConfig) -> None:
    """Check that the data of `val_root` are not trained on.

    A command that trains on nothing may name the same data twice.

    Raises:
        ConfigError: They are.
        DataError: A manifest is damaged, or a folder is missing.
    """
    if config.val_root is None:
        return
    if is_manifest(config) or (config.source == "webdataset" and has_manifest(config.val_root)):
        _check_shards(config, config.val_root)
    elif config.source in IN_FOLDERS:
        _check_folders(train_folder(config), val_folder(config) or config.val_root)
    elif _is_same_split(config, config.val_root):
        raise ConfigError(f"--data.val_root {config.val_root} is trained on. {REMEDY}.")


def _check_shards(config: SourceConfig, val: Path) -> None:
    """Check the data of which a manifest lists a part; see `check_apart`."""
    if not has_manifest(val):
        val = val_folder(config) or val
    if config.mix:
        train = [*map(Path, config.mix)]
    else:
        train = [root_of(config) if is_manifest(config) else train_folder(config)]
    check_apart(train, val)


def _check_folders(train: Path, val: Path) -> None:
    """Raise a ConfigError if one of two folders is the other, or lies in it."""
    outer, inner = train.resolve(), val.resolve()
    if inner.is_relative_to(outer):
        problem = f"are trained on, as all of {train}" if inner != outer else "are trained on"
    elif outer.is_relative_to(inner):
        problem = f"hold those of training, {train}"
    else:
        return
    raise ConfigError(
        f"the validation data in {val} {problem}. {REMEDY}: --data.val_share 0.02 holds some of "
        "the training images out in its place."
    )


def _is_same_split(config: SourceConfig, val: Path) -> bool:
    """Return whether a source of named splits, or of one file, has the same one twice."""
    root = root_of(config)
    is_one = config.source in IN_FILES and root.is_file()
    same_name = (config.train_split or "train") == (config.val_split or "val")
    return root.resolve() == val.resolve() and (is_one or same_name)
