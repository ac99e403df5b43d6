import json
import os
import pickle
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.sources.layouts import contents, jpeg, message_of, write
from virtex.data.images import decode_image
from virtex.data.sidecars import read_sidecar
from virtex.data.sources.folder import FolderSource


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path / "b" / "deep" / "2.PNG", jpeg())
    write(tmp_path / "b" / "deep" / "2.txt", "\ufeff a cat \n\n the same cat\r\n")
    write(tmp_path / "1.v2.jpg", jpeg())
    write(tmp_path / "1.v2.txt", "a dog")
    write(tmp_path / "notes.txt", "not a caption")
    return tmp_path


def test_each_line_of_the_text_beside_an_image_is_a_caption(root: Path) -> None:
    source = FolderSource(root)
    assert contents(source) == {"1.v2.jpg": ("a dog",), "b/deep/2.PNG": ("a cat", "the same cat")}
    assert source[1].image == root / "b" / "deep" / "2.PNG"


def test_letters_that_python_splits_at_do_not_cut_a_caption(tmp_path: Path) -> None:
    write(tmp_path / "1.jpg", jpeg())
    write(tmp_path / "1.txt", "a cat\u2028on a\x85mat\x0cnow\rone more")
    assert contents(FolderSource(tmp_path))["1.jpg"] == (
        "a cat\u2028on a\x85mat\x0cnow",
        "one more",
    )


def test_the_layout_of_img2dataset_is_a_folder_like_any_other(tmp_path: Path) -> None:
    for number, caption in enumerate(["a red car", "a blue bus"]):
        stem = tmp_path / "00000" / f"{number:09d}"
        write(stem.with_suffix(".jpg"), jpeg())
        write(stem.with_suffix(".json"), json.dumps({"caption": caption, "url": "http://x/y"}))
    write(tmp_path / "00000" / "000000001.txt", "text wins")
    write(tmp_path / "00000_stats.json", "{}")
    assert list(contents(FolderSource(tmp_path)).values()) == [("a red car",), ("text wins",)]


def test_suffixes_of_captions_are_in_upper_or_lower_case(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("A.JPG", "B.JPG", "c.jpg"):
        write(tmp_path / name, jpeg())
    write(tmp_path / "A.TXT", "a cat")
    write(tmp_path / "B.JSON", '{"caption": "a dog"}')
    write(tmp_path / "c.txt", "a bird")
    assert list(contents(FolderSource(tmp_path)).values()) == [("a cat",), ("a dog",), ("a bird",)]
    assert not caplog.messages
    write(tmp_path / "c.TXT", "another")
    assert contents(FolderSource(tmp_path))["c.jpg"] == ("a bird",)
    assert caplog.messages == [f"{tmp_path}: passed over 1 file: 1 .txt"]


def test_captions_are_not_read_unless_requested(root: Path) -> None:
    (root / "1.v2.txt").unlink()
    assert contents(FolderSource(root, with_captions=False)) == {"1.v2.jpg": (), "b/deep/2.PNG": ()}


def test_identity_changes_with_any_caption_and_name(root: Path) -> None:
    before = FolderSource(root).identity()
    assert (before["images"], before["captions"]) == (2, 3)
    write(root / "1.v2.txt", "a dot")
    assert FolderSource(root).identity()["sha256"] != before["sha256"]


def test_identity_tells_whose_caption_each_is(tmp_path: Path) -> None:
    identities = []
    for texts in ("one\ntwo", "three"), ("one", "two\nthree"):
        for name, text in zip("ab", texts, strict=True):
            write(tmp_path / f"{name}.jpg", jpeg())
            write(tmp_path / f"{name}.txt", text)
        identities.append(FolderSource(tmp_path).identity())
    assert identities[0]["captions"] == identities[1]["captions"] == 3
    assert identities[0]["sha256"] != identities[1]["sha256"]


def test_a_pickled_source_gives_the_same_examples(root: Path) -> None:
    source = FolderSource(root)
    assert contents(pickle.loads(pickle.dumps(source))) == contents(source)


def test_every_kind_of_bad_caption_is_reported_at_once(root: Path) -> None:
    for name, text in {"a": None, "b": " \n", "c": b"\xff\xfe\xfa", "d": b"ok"}.items():
        write(root / f"{name}.jpg", jpeg())
        if text is not None:
            write(root / f"{name}.txt", text)
    for name, metadata in {
        "e": '{"caption": ""}',
        "f": "{",
        "g": '{"url": ""}',
        "h": '{"caption": null}',
        "i": '{"caption": []}',
        "j": '{"caption": [3]}',
    }.items():
        write(root / f"{name}.jpg", jpeg())
        write(root / f"{name}.json", metadata)
    message = message_of(FolderSource, root)
    for part in (
        "caption is missing: 3 (a.jpg, g.jpg, h.jpg). Put a .txt file",
        "caption is empty: 4 (b.jpg, e.jpg, i.jpg and 1 more). Write one caption a line",
        "caption is not UTF-8: 1 (c.jpg). Save the text as UTF-8.",
        "caption is not valid JSON: 1 (f.jpg). Write the .json file again",
    ):
        assert part in message


def test_a_folder_without_images_is_a_problem(tmp_path: Path) -> None:
    assert "no images in it. Name a folder" in message_of(FolderSource, tmp_path)
    write(tmp_path / "1.txt", "a dog")
    write(tmp_path / "1.HEIC", "")
    message = message_of(FolderSource, tmp_path)
    assert "no images in it (passed over 2 files: 1 .heic, 1 .txt). Name a folder" in message


def test_a_missing_folder_is_a_problem(tmp_path: Path) -> None:
    assert "It is not a folder" in message_of(FolderSource, tmp_path / "nowhere")


@settings(max_examples=200)
@given(text=st.none() | st.binary(), metadata=st.none() | st.binary())
def test_any_bytes_beside_an_image_give_captions_or_a_fault(
    text: bytes | None, metadata: bytes | None
) -> None:
    sidecar = read_sidecar(text, metadata)
    assert bool(sidecar.captions) != bool(sidecar.fault)
    assert all(caption.strip() for caption in sidecar.captions)


def test_text_wins_over_metadata() -> None:
    assert read_sidecar(b"a dog", b'{"caption": "a cat"}').captions == ("a dog",)
    assert read_sidecar(b"", b'{"caption": "a cat"}').fault == "empty"


def test_files_without_a_use_are_counted_by_suffix(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("3.HEIC", "3.txt", "4.heic", ".hidden"):
        write(root / name, "")
    for with_captions in (True, False):
        caplog.clear()
        FolderSource(root, with_captions=with_captions)
        assert caplog.messages == [f"{root}: passed over 4 files: 2 .heic, 2 .txt"]


@pytest.mark.parametrize("suffix", ["jfif", "JPE", "jif", "apng", "pgm"])
def test_images_with_rarer_suffixes_are_read(tmp_path: Path, suffix: str) -> None:
    write(tmp_path / f"1.{suffix}", jpeg())
    write(tmp_path / "1.txt", "a dog")
    assert contents(FolderSource(tmp_path)) == {f"1.{suffix}": ("a dog",)}


@pytest.mark.parametrize("kind", ["dangling link", "named pipe", "device", "huge"])
def test_a_caption_that_is_no_readable_file_is_named(root: Path, kind: str) -> None:
    path = root / "1.v2.txt"
    path.unlink()
    if kind == "named pipe":
        os.mkfifo(path)
    elif kind == "huge":
        path.touch()
        os.truncate(path, 2**33)
    else:
        path.symlink_to("/dev/zero" if kind == "device" else "gone")
    assert "is not a readable file: 1 (1.v2.jpg). Restore" in message_of(FolderSource, root)


def test_a_folder_named_like_a_caption_is_none(root: Path) -> None:
    (root / "1.v2.txt").unlink()
    (root / "1.v2.txt").mkdir()
    assert "caption is missing: 1 (1.v2.jpg)" in message_of(FolderSource, root)


def test_names_of_any_bytes_are_read_and_cannot_move_the_cursor(tmp_path: Path) -> None:
    for name in (b"caf\xe9", b"line\nbreak", b"esc\x1b[2J", "[x] (y) $HOME 'é'".encode()):
        path = os.fsdecode(name)
        write(tmp_path / f"{path}.jpg", jpeg())
        write(tmp_path / f"{path}.txt", "a dog")
    source = FolderSource(tmp_path)
    assert len(source) == 4
    for example in source:
        decode_image(example.image)
    write(tmp_path / "\x1b[2J\nx.jpg", "")
    message = message_of(FolderSource, tmp_path)
    assert message.count("\n") == 2
    assert "\x1b" not in message


def test_images_that_share_a_caption_file_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a/0.jpg", "a/0.png", "a/00.jpg", "b/0.jpg", "b/1.jpg"):
        write(tmp_path / name, jpeg())
        write((tmp_path / name).with_suffix(".txt"), "a cat")
    assert len(FolderSource(tmp_path)) == 5
    (told,) = caplog.messages
    start = f"{tmp_path}: 2 images share a caption file with an image of the same name but for the "
    assert told.startswith(f"{start}suffix (a/0.jpg, a/0.png).")
    caplog.clear()
    FolderSource(tmp_path, with_captions=False)
    assert not caplog.messages
