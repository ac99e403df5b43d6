"""Validation data that are trained on are refused, whatever the layout."""

from pathlib import Path
from typing import Any

import pytest

from tests.data.sources.layouts import jpeg, write, write_tar
from virtex.data.source import SourceConfig
from virtex.data.validation import check_validation
from virtex.errors import ConfigError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Training and validation images in folders beside each other."""
    for name in ("train", "val"):
        write(tmp_path / name / "0.jpg", jpeg())
        write(tmp_path / name / "0.txt", "a dog")
        write_tar(tmp_path / name / "0.tar", {"0.jpg": jpeg(), "0.txt": "a dog"})
    write(tmp_path / "table.csv", "image,caption")
    (tmp_path / "link").symlink_to(tmp_path / "train")
    return tmp_path


def check(source: Any, root: Path, val_root: Path, **options: Any) -> None:
    check_validation(SourceConfig(source, root=root, val_root=val_root, **options))


@pytest.mark.parametrize("source", ["folder", "webdataset", "classes"])
def test_a_folder_is_not_trained_on_and_validated_on(folder: Path, source: str) -> None:
    train = folder / "train"
    for val in (train, folder / "link"):
        with pytest.raises(ConfigError, match=rf"in {val} are trained on\. Name .*val_share"):
            check(source, train, val)
    with pytest.raises(ConfigError, match=rf"are trained on, as all of {train}\."):
        check(source, train, train / "inner")
    with pytest.raises(ConfigError, match=rf"in {train} hold those of training, {train / 'b'}\."):
        check(source, train / "b", train)
    check(source, train, folder / "val")
    check(source, folder, folder)  # its train and val


@pytest.mark.parametrize("source", ["table", "coco"])
def test_a_file_is_not_trained_on_and_validated_on(folder: Path, source: str) -> None:
    table = folder / "table.csv"
    with pytest.raises(ConfigError, match=r"val_root .*table\.csv is trained on\."):
        check(source, table, table)
    check(source, table, folder / "other.csv")


def test_a_named_split_is_not_trained_on_and_validated_on(folder: Path) -> None:
    with pytest.raises(ConfigError, match="is trained on"):
        check("coco", folder, folder, val_split="train")
    check("coco", folder, folder)
