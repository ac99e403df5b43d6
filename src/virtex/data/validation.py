"""The checks that validation data are not trained on: of the options, and of the images."""

import os
from collections.abc import Iterator
from pathlib import Path

from virtex.data.checks import quoted
from virtex.data.example import ImageFile, Source
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


def check_disjoint(train: Source, test: Source) -> None:
    """Check that no image file is both in the opened training and test (or validation) data.

    Links are followed, so the names of roots, splits and lists do not matter. Manifests are left to
    `check_validation`, and copies of an image to `virtex data check`.

    Raises:
        ConfigError: Images are in both.
    """
    if train.shard_counts is not None or test.shard_counts is not None:
        return
    real_paths = _RealPaths()
    shared = set(_files(test, real_paths)).intersection(_files(train, real_paths))
    if shared:
        raise ConfigError(
            f"{len(shared):,} of the {len(test):,} validation images would be trained on too, such "
            f"as {quoted(min(shared).path)}. Name other validation images with --data.val_root or "
            "--data.val_split (test, of VOC and Karpathy's splits), or other training images with "
            "--data.train_split or --data.keep."
        )


class _RealPaths:
    """The path behind all links of each file, at the cost of one listing for each folder."""

    def __init__(self) -> None:
        self._folders: dict[str, tuple[str, frozenset[str]]] = {}

    def __getitem__(self, path: str) -> str:
        folder, _, name = path.rpartition("/")
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder), _links_in(folder)
        real, links = self._folders[folder]
        return os.path.realpath(path) if name in links else f"{real}/{name}"


def _links_in(folder: str) -> frozenset[str]:
    try:
        with os.scandir(folder) as entries:
            return frozenset(entry.name for entry in entries if entry.is_symlink())
    except OSError:  # the name of a data set on the hub is no folder
        return frozenset()


def _files(source: Source, real_paths: _RealPaths) -> Iterator[ImageFile]:
    """Yield the real file of each image, where it is known."""
    for file in map(source.image_file, range(len(source))):
        if file is not None:
            yield ImageFile(real_paths[file.path], file.position)


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
