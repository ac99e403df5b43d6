import pickle
from pathlib import Path

import pytest

from tests.data.sources.layouts import jpeg, message_of, write
from virtex.data.sources.classes import ClassesSource, check_same_class_folders


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("train/dog/1.jpg", "train/cat/b.PNG", "train/cat/deep/a.jpg", "val/cat/3.jpg"):
        write(tmp_path / name, jpeg())
    write(tmp_path / "train" / "dog" / "readme.txt", "no image")
    write(tmp_path / "train" / ".cache" / "x.jpg", "hidden")
    return tmp_path


def test_each_folder_is_a_class(root: Path) -> None:
    source = ClassesSource(root / "train")
    assert source.categories == ("cat", "dog")
    assert {example.image_id: example.labels for example in source} == {
        "cat/b.PNG": (0,),
        "cat/deep/a.jpg": (0,),
        "dog/1.jpg": (1,),
    }
    assert [source.labels(index) for index in (0, 1, 2, -1)] == [(0,), (0,), (1,), (1,)]
    assert source[-1].image == root / "train" / "dog" / "1.jpg"


def test_a_pickled_source_gives_the_same_examples(root: Path) -> None:
    source = pickle.loads(pickle.dumps(ClassesSource(root / "train")))
    assert [example.labels for example in source] == [(0,), (0,), (1,)]


def test_identity_changes_with_the_images(root: Path) -> None:
    before = ClassesSource(root / "train").identity()
    assert (before["images"], before["classes"]) == (3, 2)
    write(root / "train" / "dog" / "2.jpg", jpeg())
    assert ClassesSource(root / "train").identity()["names_sha256"] != before["names_sha256"]


def test_all_problems_are_reported_at_once(root: Path) -> None:
    write(root / "train" / "stray.jpg", jpeg())
    (root / "train" / "empty").mkdir()
    message = message_of(ClassesSource, root / "train")
    assert "images outside any class folder: 1 (stray.jpg). Move each" in message
    assert "class folders without an image: 1 (empty). Fill or remove them." in message


def test_a_folder_without_classes_is_a_problem(tmp_path: Path) -> None:
    assert "no folders in it" in message_of(ClassesSource, tmp_path)
    assert "It is not a folder" in message_of(ClassesSource, tmp_path / "nowhere")


def test_classes_that_only_one_split_has_are_named(root: Path) -> None:
    write(root / "val" / "fox" / "1.jpg", jpeg())
    message = message_of(check_same_class_folders, root / "train", root / "val")
    assert f"\n- only in {root / 'train'}: 1 (dog)\n- only in {root / 'val'}: 1 (fox)" in message
    check_same_class_folders(root / "val", root / "val")


def test_rarer_suffixes_are_images_and_other_files_are_counted(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(root / "train" / "cat" / "new.JFIF", jpeg())
    write(root / "train" / "cat" / "new.heic", "")
    assert len(ClassesSource(root / "train")) == 4
    told = f"{root / 'train'}: passed over 2 files: 1 .heic, 1 .txt"
    assert caplog.messages == [told]


def test_two_links_to_one_class_are_named(root: Path) -> None:
    (root / "train" / "feline").symlink_to("cat")
    assert "feline/ is reached twice through links" in message_of(ClassesSource, root / "train")
