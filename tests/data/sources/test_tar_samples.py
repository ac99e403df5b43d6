"""Tar shards as they are found: no sample is lost without a word."""

import io
import os
import tarfile
from pathlib import Path

import pytest

from tests.data.sources.layouts import contents, jpeg, message_of, write, write_tar
from virtex.data.sources.webdataset import WebdatasetSource


def captions_of(root: Path, files: dict[str, str]) -> dict[str, tuple[str, ...]]:
    """Captions by key of a shard with these files, where images have no content."""
    write_tar(root / "0.tar", files)
    source = WebdatasetSource(root, missing_caption_limit=0)
    return {key.removeprefix("0.tar/"): texts for key, texts in contents(source).items()}


def test_dots_in_names_keep_samples_apart(tmp_path: Path) -> None:
    files = {f"screen 2.{n}.{end}": f"text {n}" for n in range(3) for end in ("jpg", "txt")}
    files |= {"v1.2/a.JPEG": "", "v1.2/a.b.TXT": "not", "v1.2/a.txt": "in a folder"}
    assert captions_of(tmp_path, files) == {
        **{f"screen 2.{n}": (f"text {n}",) for n in range(3)},
        "v1.2/a": ("in a folder",),
    }


@pytest.mark.parametrize("ends", [("input.jpg", "output.txt"), ("jpg", "caption.txt")])
def test_a_key_may_have_two_parts(tmp_path: Path, ends: tuple[str, str]) -> None:
    files = {f"s{n}.{end}": f"text {n}" for n in range(3) for end in ends}
    assert list(captions_of(tmp_path, files).values()) == [(f"text {n}",) for n in range(3)]


def test_additions_to_an_image_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = {"1.jpg": "", "1.txt": "one", "1.json": "{}", "1.mask.png": "", "1.v2.jpg": ""}
    files |= {"1.v2.txt": "own", "2.HEIC": "", "2.txt": "lost", "1.cls": "3", "._1.jpg": ""}
    assert captions_of(tmp_path, files) == {"1": ("one",), "1.v2": ("own",)}
    told = f"the shards in {tmp_path}: passed over 4 files: 1 .cls, 1 .heic, 1 .png, 1 .txt"
    assert caplog.messages == [told]
    caplog.clear()
    WebdatasetSource(tmp_path)  # from the index
    assert caplog.messages == [told]


def test_images_that_share_a_caption_are_named(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", {"1.left.jpg": "", "1.right.jpg": "", "1.txt": "both"})
    message = message_of(WebdatasetSource, tmp_path)
    assert "caption is missing: 2 (0.tar/1.left, 0.tar/1.right)" in message


@pytest.mark.parametrize("name", ["1.jpg", "1.png", "./1.jpg", "1.txt"])
def test_two_files_of_one_stem_are_named(tmp_path: Path, name: str) -> None:
    first, second = (write_tar(tmp_path / f"{n}.tar", {name: ""}) for n in "ab")
    write_tar(first, {"1.jpg": "", "1.txt": "one"})
    write(tmp_path / "ab" / "0.tar", first.read_bytes() + second.read_bytes())
    assert f"it holds two files {name}" in message_of(WebdatasetSource, tmp_path / "ab")


def add(tar: tarfile.TarFile, name: str, content: bytes = b"", **header: object) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for key, value in header.items():
        setattr(member, key, value)
    tar.addfile(member, io.BytesIO(content))


def test_links_are_followed_inside_the_shard(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        add(tar, "a/2.jpg", type=tarfile.SYMTYPE, linkname="../1.jpg")
        add(tar, "a/2.txt", b"two")
        add(tar, "1.jpg", jpeg(1))
        add(tar, "1.txt", b"one")
        add(tar, "3.jpg", type=tarfile.LNKTYPE, linkname="./a/2.jpg")
        add(tar, "3.txt", type=tarfile.LNKTYPE, linkname="1.txt")
        add(tar, "gone.jpg", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add(tar, "out.jpg", type=tarfile.SYMTYPE, linkname="../../1.jpg")
        add(tar, "loop.jpg", type=tarfile.SYMTYPE, linkname="loop.jpg")
        add(tar, "pipe.jpg", type=tarfile.FIFOTYPE)
        add(tar, "folder.jpg", type=tarfile.DIRTYPE)
    source = WebdatasetSource(tmp_path)
    found = {example.image_id: (example.captions[0], example.image) for example in source}
    names = {"one": "0.tar/1", "two": "0.tar/a/2"}
    assert found == {
        names["one"]: ("one", jpeg(1)),
        names["two"]: ("two", jpeg(1)),
        "0.tar/3": ("one", jpeg(1)),
    }
    assert "passed over 4 files: 3 link to no file in the shard, 1 pipe or device" in caplog.text


@pytest.mark.parametrize("padding", [0, 512, 3_000_000])
def test_archives_joined_end_to_end_are_read_to_the_last(tmp_path: Path, padding: int) -> None:
    parts = [
        write_tar(tmp_path / f"{n}.tar", {f"{n}.jpg": jpeg(n), f"{n}.txt": str(n)}).read_bytes()
        for n in range(3)
    ]
    shard = write(tmp_path / "joined" / "0.tar", bytes(padding // 512 * 512).join(parts))
    source = WebdatasetSource(shard.parent)
    assert [example.image for example in source] == [jpeg(n) for n in range(3)]
    assert [texts for (texts,) in contents(source).values()] == ["0", "1", "2"]
    write(shard, b"".join(parts).rstrip(b"\0")[:-600])
    assert "truncated or broken: 1 (0.tar: " in message_of(WebdatasetSource, shard.parent)


def test_what_is_no_archive_behind_the_end_is_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shard = write_tar(tmp_path / "0.tar", {"1.jpg": "", "1.txt": "one"})
    write(shard, shard.read_bytes() + b"words " * 200)
    assert len(WebdatasetSource(tmp_path)) == 1
    assert "passed over 1 file: 1 piece behind the end of the archive" in caplog.text


def test_a_long_hole_behind_the_end_is_not_read(tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "0.tar", {"1.jpg": "", "1.txt": "one"})
    with shard.open("r+b") as file:
        file.truncate(2**40)
    assert len(WebdatasetSource(tmp_path)) == 1


@pytest.mark.parametrize("kind", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_of_any_bytes_are_read(tmp_path: Path, kind: int) -> None:
    names = ["é" * 120 + "/1", "/absolute/2", "../../3", "caf\udce9", "line\n\x1b[2J", "./x"]
    with tarfile.open(tmp_path / "0.tar", "w", format=kind) as tar:
        for name in names:
            add(tar, f"{name}.jpg", jpeg())
            add(tar, f"{name}.txt", b"text")
    assert list(contents(WebdatasetSource(tmp_path))) == [f"0.tar/{name}" for name in names]


def test_a_sparse_file_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with tarfile.open(tmp_path / "0.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        add(tar, "1.jpg", jpeg())
        add(tar, "1.txt", b"one")
        sparse = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9999"}
        content = b"1\n0\n512\n".ljust(512, b"\0") + bytes(512)
        add(tar, "2.jpg", content, pax_headers=sparse)
    assert len(WebdatasetSource(tmp_path)) == 1
    assert "passed over 1 file: 1 sparse" in caplog.text


@pytest.mark.parametrize(
    ("start", "kind"), [(b"\x1f\x8b", "gzip"), (b"BZh9", "bzip2"), (b"\x28\xb5\x2f\xfd", "zstd")]
)
def test_a_compressed_shard_is_named(tmp_path: Path, start: bytes, kind: str) -> None:
    write(tmp_path / "0.tar", start + bytes(600))
    assert f"it is compressed with {kind}" in message_of(WebdatasetSource, tmp_path)


@pytest.mark.parametrize("name", ["0.tgz", "0.TAR.XZ", "0.tar.zst", "0.tbz"])
def test_compressed_shards_are_known_by_their_names(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, b"")
    assert f"compressed shards: 1 ({name}). Uncompress" in message_of(WebdatasetSource, tmp_path)


def test_what_is_no_file_among_the_shards_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.tar")
    (tmp_path / "gone.TAR").symlink_to("nowhere")
    message = message_of(WebdatasetSource, tmp_path)
    assert "gone.TAR: No such file or directory" in message
    assert "pipe.tar: a named pipe, not a file" in message


def test_other_files_beside_the_shards_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_tar(tmp_path / "0.TAR", {"1.jpg": "", "1.txt": "one"})
    write(tmp_path / "0_stats.json", "{}")
    write(tmp_path / "0.tar.part", "{}")
    assert len(WebdatasetSource(tmp_path)) == 1
    assert caplog.messages == [f"{tmp_path}: passed over 2 files: 1 .json, 1 .part"]


def test_an_image_and_a_caption_too_large_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("virtex.data.sources.shard_index.MAX_BYTES", 3)
    write_tar(tmp_path / "0.tar", {"1.jpg": "", "1.txt": "four"})
    assert "is not a readable file: 1 (0.tar/1)" in message_of(WebdatasetSource, tmp_path)
