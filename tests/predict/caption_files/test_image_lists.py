"""Which images the user's words stand for."""

import io
import logging
import os
from pathlib import Path

import pytest

from virtex.data.images import BadImageError, decode_image
from virtex.errors import DataError
from virtex.predict.caption_files.image_lists import find_images


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree of empty files, seen from its parent."""
    for name in ("b.jpg", "a.PNG", "notes.txt", "sub/deep/c.webp", "sub/d.jpg", "sub-2/e.jpg"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path / "photos"


ALL = ["a.PNG", "b.jpg", "sub/d.jpg", "sub/deep/c.webp", "sub-2/e.jpg"]


def below(names: list[str]) -> list[str]:
    return [f"photos/{name}" for name in names]


def test_a_folder_is_searched_to_any_depth_and_sorted(photos: Path) -> None:
    assert find_images(["photos"]) == below(sorted(ALL, key=lambda name: name.split("/")))
    assert find_images([photos]) == [f"{photos.parent}/{name}" for name in find_images(["photos"])]


def test_what_is_hidden_in_a_folder_is_left_out_but_may_be_named(photos: Path) -> None:
    for name in ("._b.jpg", ".thumbnails/b.jpg", "__MACOSX/sub/._d.jpg"):
        path = photos / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert set(find_images(["photos"])) == set(below(ALL))
    assert set(find_images(["photos/**/*.jpg"])) == {f for f in below(ALL) if f.endswith(".jpg")}
    assert find_images(["photos/._b.jpg"]) == ["photos/._b.jpg"]
    assert find_images(["photos/.thumbnails/*.jpg"]) == ["photos/.thumbnails/b.jpg"]


def test_a_loop_of_links_ends_and_each_folder_is_searched_once(photos: Path) -> None:
    (photos / "sub" / "loop").symlink_to(photos)
    (photos / "sub" / "self").symlink_to(".")
    expected = sorted(below(ALL), key=lambda name: name.split("/"))
    assert find_images(["photos"]) == expected
    assert sorted(find_images(["photos/**/*.*"])) == sorted(expected)


def test_a_linked_folder_is_searched(photos: Path) -> None:
    (photos.parent / "linked").mkdir()
    (photos.parent / "linked" / "sub").symlink_to(photos / "sub")
    assert find_images(["linked"]) == ["linked/sub/d.jpg", "linked/sub/deep/c.webp"]


def test_a_glob_stands_for_the_images_and_folders_that_it_matches(photos: Path) -> None:
    assert find_images(["photos/*"]) == find_images(["photos"])
    assert find_images(["photos/*.*"]) == below(["a.PNG", "b.jpg"])
    assert find_images(["photos/**/*.jpg"]) == below(["b.jpg", "sub/d.jpg", "sub-2/e.jpg"])
    assert find_images([f"{photos}/sub/[a-d].*"]) == [f"{photos}/sub/d.jpg"]
    assert find_images(["photos/s*/"]) == below(["sub/d.jpg", "sub/deep/c.webp", "sub-2/e.jpg"])


def test_a_file_whose_name_looks_like_a_glob_is_that_file(photos: Path) -> None:
    (photos / "[a].jpg").touch()
    assert find_images(["photos/[a].jpg"]) == ["photos/[a].jpg"]


def test_a_file_named_twice_comes_once_where_it_was_named_first(photos: Path) -> None:
    given = ["photos/sub/d.jpg", "./photos/sub/d.jpg", "photos", photos / "b.jpg"]
    found = find_images(given)
    assert found[0] == "photos/sub/d.jpg"
    assert sorted(found) == sorted(below(ALL))


def test_an_explicit_file_needs_no_suffix(photos: Path) -> None:
    assert find_images(["photos/notes.txt"]) == ["photos/notes.txt"]


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_stdin_and_lists_name_an_image_or_folder_a_line(end: bytes, photos: Path) -> None:
    odd = os.fsencode(photos) + b"/\xff .jpg"
    Path(os.fsdecode(odd)).touch()
    lines = [b"photos/b.jpg", b"", b"photos/sub", odd, b"gone.jpg"]
    expected = [
        "photos/b.jpg", "photos/sub/d.jpg", "photos/sub/deep/c.webp", os.fsdecode(odd), "gone.jpg",
    ]  # fmt: skip
    content = end.join(lines)
    assert find_images(["-"], stdin=io.BytesIO(content)) == expected
    (photos.parent / "list.txt").write_bytes(b"\xef\xbb\xbf" + content + end)
    assert find_images([], lists=["list.txt"]) == expected
    assert find_images(["photos/a.PNG"], lists=["list.txt"])[:2] == below(["a.PNG", "b.jpg"])


def test_a_list_may_end_its_names_with_null_bytes(photos: Path) -> None:
    odd = "photos/a\r\nb.jpg"
    Path(odd).touch()
    names = [odd, "photos/sub", "gone.jpg", "x" * 5000]
    expected = [odd, "photos/sub/d.jpg", "photos/sub/deep/c.webp", "gone.jpg", "x" * 5000]
    content = b"".join(os.fsencode(name) + b"\0" for name in names)
    assert find_images(["-"], stdin=io.BytesIO(content)) == expected
    assert find_images(["-"], stdin=io.BytesIO(content.removesuffix(b"\0"))) == expected
    (photos.parent / "list.txt").write_bytes(content)
    assert find_images([], lists=["list.txt"]) == expected


def test_a_name_that_no_file_can_have_is_reported(photos: Path) -> None:
    for name in ("a\0b.jpg", "a\0*", "\ud800.jpg", "x" * 5000):
        with pytest.raises(DataError, match=r"is (no file|a glob without)"):
            find_images([name])


def test_all_missing_paths_are_reported(photos: Path) -> None:
    (photos.parent / "empty").mkdir()
    (photos.parent / "empty.txt").touch()
    with pytest.raises(DataError) as raised:
        find_images(
            ["nothing.jpg", "empty", "photos/*.gif", "", "-"],
            lists=["empty.txt", "no_list"],
            stdin=io.BytesIO(b"\n"),
        )
    for told in (
        "nothing.jpg is no file or folder", "empty holds no image files (.apng",
        "photos/*.gif is a glob without image files", "'' is no file", "stdin is empty",
        "the list empty.txt is empty", "the list no_list cannot be read",
    ):  # fmt: skip
        assert told in str(raised.value)


@pytest.mark.parametrize("url", ["HTTPS://example.com/a.jpg", "file:///etc/passwd", "s3://a/b"])
def test_addresses_are_refused_wherever_they_are_named(url: str, photos: Path) -> None:
    told = "is a web address, and none is fetched: fetch images first"
    with pytest.raises(DataError, match=told):
        find_images([url])
    with pytest.raises(DataError, match=told):
        find_images(["-"], stdin=io.BytesIO(f"photos/b.jpg\n{url}\n".encode()))


def test_a_folder_that_may_not_be_read_is_named_and_left_out(
    photos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    locked = photos / "sub"
    locked.chmod(0)
    if os.access(locked, os.R_OK):
        locked.chmod(0o755)
        pytest.skip("this user may read everything")
    with caplog.at_level("WARNING", "virtex"):
        assert set(find_images(["photos"])) == set(below(["a.PNG", "b.jpg", "sub-2/e.jpg"]))
    locked.chmod(0o755)
    assert "left out the folder photos/sub" in caplog.text


def test_files_that_are_no_images_are_counted(
    photos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = find_images([photos])
    for name in ("a.HEIC", "b.heic", "notes", ".hidden.txt"):
        (photos / name).touch()
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="virtex"):
        assert find_images([photos]) == before
        assert find_images(["photos/*"]) == find_images(["photos"])
    assert "photos: passed over 4 files: 2 .heic, 1 .txt, 1 without suffix" in caplog.text


def test_a_list_must_be_a_file_and_is_not_waited_for(photos: Path) -> None:
    os.mkfifo(photos / "list")
    for name, reason in ((photos / "list", "a named pipe"), ("/dev/zero", "a device")):
        with pytest.raises(DataError, match=rf"cannot be read \({reason}, not a file"):
            find_images([], lists=[name])


def test_a_list_may_come_from_the_shell(photos: Path) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"photos/b.jpg\n")
    os.close(writer)
    assert find_images([], lists=[f"/dev/fd/{reader}"]) == below(["b.jpg"])
    os.close(reader)


def test_images_that_are_no_files_are_left_to_the_reader(photos: Path) -> None:
    """They are bad images then, with a reason."""
    os.mkfifo(photos / "pipe.jpg")
    (photos / "gone.jpg").symlink_to("nowhere")
    assert set(below(["pipe.jpg", "gone.jpg"])) < set(find_images(["photos"]))
    with pytest.raises(BadImageError, match="a named pipe, not a file"):
        decode_image(photos / "pipe.jpg")


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("{}", ["a [1].jpg", "b.png"]),
        ("{}/*", ["a [1].jpg", "b.png"]),
        ("{}/*.jpg", ["a [1].jpg"]),
        ("{}/a [1].*", ["a [1].jpg"]),
        ("{}/[a-b].png", ["b.png"]),
        ("**/*.png", ["b.png"]),
    ],
)
@pytest.mark.parametrize("folder", ["p [2024] (1)", "d'été [v1] $HOME", "{y}", "100% *?"])
def test_a_glob_works_in_a_folder_whose_name_has_brackets(
    pattern: str, found: list[str], folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(folder).mkdir()
    for name in ("a [1].jpg", "b.png"):
        (Path(folder) / name).touch()
    for root in ("", f"{tmp_path}/"):
        names = [f"{root}{folder}/{name}" for name in found]
        assert find_images([root + pattern.replace("{}", folder)]) == names


def test_control_characters_are_escaped(photos: Path) -> None:
    Path("esc\x1b[2J\n").mkdir()
    with pytest.raises(DataError) as raised:
        find_images(["esc\x1b[2J\n", "no\x1b\n"], lists=["list\x1b\n"])
    assert "\x1b" not in str(raised.value)
    assert str(raised.value).count("\n") == 3
