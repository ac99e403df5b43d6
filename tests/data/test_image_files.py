"""Which files of a folder are images, and that none of the others is left out unseen."""

import logging
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.data.sources.layouts import message_of, write
from virtex.data.image_files import PassedOver, images_below, is_image, subfolders, walk
from virtex.errors import DataError


def test_walk_is_sorted_and_leaves_hidden_files_out(tmp_path: Path) -> None:
    for name in ("b/2.jpg", "b/10.jpg", "a/c/x.jpg", "top.jpg", ".cache/y.jpg", "a/._x.jpg"):
        write(tmp_path / name, b"")
    names = [prefix + name for prefix, files in walk(tmp_path) for name in files]
    assert names == ["top.jpg", "a/c/x.jpg", "b/10.jpg", "b/2.jpg"]


def test_walk_refuses_a_folder_that_holds_itself(tmp_path: Path) -> None:
    write(tmp_path / "a" / "1.jpg", b"")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    assert "reached twice" in message_of(lambda: list(walk(tmp_path)))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read any folder")
def test_walk_names_a_folder_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir(mode=0)
    with pytest.raises(DataError, match="secret"):
        list(walk(tmp_path))


@pytest.fixture
def deep_folder(tmp_path: Path) -> Iterator[Callable[[int, str], Path]]:
    """A function that makes folders of one name inside each other, of any depth."""
    root = tmp_path / "root"

    def make(depth: int, name: str) -> Path:
        root.mkdir()
        folder = os.open(root, os.O_RDONLY)
        for _ in range(depth):
            os.mkdir(name, dir_fd=folder)
            inner = os.open(name, os.O_RDONLY, dir_fd=folder)
            os.close(folder)
            folder = inner
        os.close(folder)
        return root

    yield make
    subprocess.run(["rm", "-r", root], check=True)  # Python's functions cannot


def test_walk_goes_deeper_than_python_calls_functions(
    deep_folder: Callable[[int, str], Path],
) -> None:
    assert len(list(walk(deep_folder(1200, "d")))) == 1201


def test_a_path_that_is_too_long_is_named(
    deep_folder: Callable[[int, str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    root = deep_folder(25, "d" * 200)
    with pytest.raises(DataError, match="File name too long"):
        list(walk(root))
    assert len(list(walk(root, is_strict=False))) > 10
    assert "left out the folder" in caplog.text
    assert "File name too long" in caplog.text


def test_links_that_lead_nowhere_are_files(tmp_path: Path) -> None:
    (tmp_path / "gone.jpg").symlink_to("nowhere")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    assert list(walk(tmp_path)) == [("", ["gone.jpg", "loop.jpg"])]


@pytest.mark.parametrize("name", ["a.JFIF", "a.jpe", "a.b.Tiff", "a.pgm"])
def test_the_suffix_says_that_a_file_is_an_image(name: str) -> None:
    assert is_image(name)


def test_files_passed_over_are_counted_by_suffix(caplog: pytest.LogCaptureFixture) -> None:
    passed_over = PassedOver()
    passed_over.log("nothing")
    passed_over.add(["1.HEIC", "2.heic", "3.JPG_large", "notes", "x.a\x1b[2Jb", "y." + "z" * 99])
    with caplog.at_level(logging.WARNING, "virtex"):
        passed_over.log("a\nfolder")
    assert caplog.messages == [
        "a\\nfolder: passed over 6 files: 2 .heic, 1 '.a\\x1b[2jb', 1 .jpg_large, "
        f"1 .{'z' * 19}..., 1 without suffix"
    ]


def test_many_suffixes_fill_one_line() -> None:
    passed_over = PassedOver()
    passed_over.add(f"x.{number:03d}" for number in range(500))
    assert str(passed_over).endswith("1 .008, 1 .009 and 490 more")
    assert passed_over.within("Nothing.").startswith("Nothing (passed over 500 files: ")


def test_images_below_a_folder_come_with_a_count_of_the_others(tmp_path: Path) -> None:
    for name in ("b/1.jfif", "a.jpg", "c.heic", ".DS_Store"):
        write(tmp_path / name, b"")
    os.mkfifo(tmp_path / "pipe.png")
    images, passed_over = images_below(tmp_path)
    assert images == [str(tmp_path / name) for name in ("a.jpg", "b/1.jfif", "pipe.png")]
    assert passed_over.counts == {".heic": 1}


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        subfolders(tmp_path / "nowhere")
