import errno
import json
import multiprocessing
import os
import pickle
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.sources.layouts import contents, jpeg, message_of, write, write_tar
from virtex.data.example import Source
from virtex.data.sources.shard_index import index_paths
from virtex.data.sources.webdataset import WebdatasetSource
from virtex.errors import DataError

INDEX = ".virtex-index/00000.tar.safetensors"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "shards"
    files = {
        "000000000.json": json.dumps({"caption": "not this", "url": "http://x"}),
        "000000000.jpg": jpeg(0),
        "000000000.txt": "a red car",
        "000000001.jpg": jpeg(100),
        "000000001.json": json.dumps({"caption": "a blue bus"}),
        "000000001.seg.png": b"not the image",
    }
    write_tar(root / "00000.tar", files)
    write_tar(root / "00001.tar", {"x" * 150 + "/k.PNG": jpeg(200), "x" * 150 + "/k.txt": "ä\nb"})
    write(root / "00000_stats.json", "{}")
    return root


def images_of(source: Source) -> list[object]:
    return [example.image for example in source]


def test_images_and_captions_come_from_the_shards(root: Path) -> None:
    source = WebdatasetSource(root)
    assert contents(source) == {
        "00000.tar/000000000": ("a red car",),
        "00000.tar/000000001": ("a blue bus",),
        f"00001.tar/{'x' * 150}/k": ("ä", "b"),
    }
    assert images_of(source) == [jpeg(0), jpeg(100), jpeg(200)]


def test_validation_shards_beside_training_shards_are_warned_of(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    WebdatasetSource(root)
    assert "by their names" not in caplog.text
    write_tar(root / "cc3m-val-0.tar", {"1.jpg": jpeg(0), "1.txt": "a cat"})
    assert len(WebdatasetSource(root)) == 4
    assert "1 of 3 shards are of validation or test images by their names" in caplog.text


def test_the_cached_index_gives_the_same_examples(root: Path) -> None:
    before = WebdatasetSource(root)
    assert (root / INDEX).is_file()
    after = WebdatasetSource(root)
    assert contents(after) == contents(before)
    assert images_of(after) == images_of(before)
    assert after.identity() == before.identity()


def test_identity_changes_with_any_caption_and_its_image(tmp_path: Path) -> None:
    identities = []
    for texts in ("one\ntwo", "three"), ("one", "two\nthree"), ("one", "two\nfour"):
        files = {f"{key}.txt": text for key, text in zip("ab", texts, strict=True)}
        write_tar(tmp_path / "0.tar", {"a.jpg": jpeg(), "b.jpg": jpeg(), **files})
        identities.append(WebdatasetSource(tmp_path).identity())
    identities.append(WebdatasetSource(tmp_path, with_captions=False).identity())
    assert [one["captions"] for one in identities] == [3, 3, 3, 0]
    assert len({one["sha256"] for one in identities}) == 4


def test_the_cached_index_is_used(root: Path) -> None:
    WebdatasetSource(root)
    status = (root / "00000.tar").stat()
    write(root / "00000.tar", bytes(status.st_size))
    os.utime(root / "00000.tar", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert contents(WebdatasetSource(root))["00000.tar/000000000"] == ("a red car",)


def test_all_users_of_a_shard_may_read_its_index(root: Path) -> None:
    before = os.umask(0o022)
    try:
        WebdatasetSource(root)
    finally:
        os.umask(before)
    assert stat.S_IMODE((root / INDEX).stat().st_mode) == 0o644


def test_a_changed_shard_is_indexed_again(root: Path) -> None:
    WebdatasetSource(root)
    write_tar(root / "00000.tar", {"7.jpg": jpeg(7), "7.txt": "new"})
    source = WebdatasetSource(root)
    assert (source[0].image_id, source[0].captions, source[0].image) == (
        "00000.tar/7",
        ("new",),
        jpeg(7),
    )


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_damaged_index_is_rebuilt(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    root = tmp_path_factory.mktemp("spoiled")
    write_tar(root / "00000.tar", {"1.jpg": jpeg(1), "1.txt": "one", "2.jpg": b"2", "2.txt": "two"})
    WebdatasetSource(root)
    index = bytearray((root / INDEX).read_bytes())
    index[data.draw(st.integers(0, len(index) - 1))] = data.draw(st.integers(0, 255))
    (root / INDEX).write_bytes(index)
    assert contents(WebdatasetSource(root)) == {"00000.tar/1": ("one",), "00000.tar/2": ("two",)}


def test_a_truncated_index_is_rebuilt(root: Path) -> None:
    before = contents(WebdatasetSource(root))
    (root / INDEX).write_bytes((root / INDEX).read_bytes()[:50])
    assert contents(WebdatasetSource(root)) == before
    assert (root / INDEX).stat().st_size > 50


def test_a_read_only_folder_is_indexed_elsewhere(root: Path, tmp_path: Path) -> None:
    write(root / ".virtex-index", "a file where the folder of indices would be")
    WebdatasetSource(root, index_root=tmp_path / "cache")
    second = index_paths(root / "00000.tar", tmp_path / "cache")[1]
    assert second.is_file()
    status = (root / "00000.tar").stat()
    write(root / "00000.tar", bytes(status.st_size))
    os.utime(root / "00000.tar", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert len(WebdatasetSource(root, index_root=tmp_path / "cache")) == 3


def test_shards_can_be_read_where_no_index_can_be_cached(root: Path, tmp_path: Path) -> None:
    write(root / ".virtex-index", "")
    write(tmp_path / "cache", "")
    assert len(WebdatasetSource(root, index_root=tmp_path / "cache")) == 3


def test_forked_and_pickled_sources_read_the_same_bytes(root: Path) -> None:
    source = WebdatasetSource(root)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        forked = pool.map(source.__getitem__, range(3))
    assert [example.image for example in forked] == images_of(source)
    assert images_of(pickle.loads(pickle.dumps(source))) == images_of(source)


@pytest.mark.parametrize("cut", [1, 512, 1024, 2000])
def test_a_truncated_shard_is_named(root: Path, cut: int) -> None:
    data = (root / "00000.tar").read_bytes().rstrip(b"\0")
    write(root / "00000.tar", data[:-cut])
    message = message_of(WebdatasetSource, root)
    assert "shards that are truncated or broken: 1 (00000.tar: " in message
    assert "Download or write them again." in message


def test_a_shard_cut_between_two_files_is_truncated(root: Path) -> None:
    write_tar(root / "00000.tar", {"1.jpg": b"x" * 512, "1.txt": "one"})
    write(root / "00000.tar", (root / "00000.tar").read_bytes()[: 4 * 512])
    assert "its end is missing" in message_of(WebdatasetSource, root)


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        (b"0", -1),
        (b"S", -512),  # tarfile goes back by that size and reads the same header for ever
        (b"L", -1024),
        (b"0", 2**40),
        (b"x", 2**62),  # tarfile asks for that much memory
    ],
)
def test_a_header_with_a_wrong_size_is_refused(root: Path, kind: bytes, size: int) -> None:
    shard = write_tar(root / "00000.tar", {"0.jpg": "", "1.jpg": "", "1.txt": "one"})
    data = shard.read_bytes()
    header = bytearray(data[512:1024])
    header[124:136] = size.to_bytes(12, "big", signed=True)
    header[124] |= 128  # the size is in binary
    header[156:157] = kind
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    shard.write_bytes(data[:512] + header + data[1024:])
    message = message_of(WebdatasetSource, root, with_captions=False)
    assert "shards that are truncated or broken: 1 (00000.tar: " in message


def test_shards_that_are_no_tar_files_are_all_named(root: Path) -> None:
    write(root / "00000.tar", b"")
    write(root / "00001.tar", b"\x1f\x8b" + bytes(1000))
    message = message_of(WebdatasetSource, root)
    assert "broken: 2 (00000.tar: empty file, 00001.tar: " in message


def test_two_images_of_one_key_are_a_problem(root: Path) -> None:
    write_tar(root / "00000.tar", {"1.jpg": b"x", "1.png": b"y"})
    assert "it holds two files 1.png, or one of the same stem" in message_of(WebdatasetSource, root)


def test_images_without_captions_are_named_unless_none_are_needed(root: Path) -> None:
    write_tar(root / "00002.tar", {"1.jpg": b"x", "2.jpg": b"y", "2.txt": " "})
    message = message_of(WebdatasetSource, root)
    assert "caption is missing: 1 (00002.tar/1)" in message
    assert "caption is empty: 1 (00002.tar/2)" in message
    source = WebdatasetSource(root, with_captions=False)
    assert contents(source)["00002.tar/1"] == ()


def test_compressed_shards_and_empty_folders_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "0.tar.gz", b"")
    message = message_of(WebdatasetSource, tmp_path)
    assert "compressed shards: 1 (0.tar.gz). Uncompress them" in message
    assert "no .tar files in it" in message
    assert "It is not a folder" in message_of(WebdatasetSource, tmp_path / "nowhere")


def test_shards_without_images_are_a_problem(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", {"1.txt": "one"})
    assert "no images in the shards" in message_of(WebdatasetSource, tmp_path)


def test_a_shard_that_shrinks_after_indexing_is_an_error(root: Path) -> None:
    source = WebdatasetSource(root)
    write(root / "00000.tar", b"")
    with pytest.raises(DataError, match="has shrunk"):
        source[0]


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_corrupt_shard_raises_only_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    root = tmp_path_factory.mktemp("wild")
    shard = write_tar(root / "0.tar", {"1.jpg": b"image", "1.txt": "one", "2.jpg": b"image 2"})
    content = bytearray(shard.read_bytes()[: 8 * 512])
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.sampled_from([0, 48, 55, 127, 128, 255]))
    shard.write_bytes(content)
    try:
        list(WebdatasetSource(root))
    except DataError as error:
        assert "the folder of shards" in str(error)  # noqa: PT017


def test_a_disk_that_fails_makes_no_caption_faulty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tar(tmp_path / "a.tar", {"0.jpg": jpeg(), "0.txt": "a cat"})

    def failing(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patched:
        patched.setattr("virtex.data.sources.shard_index.os.pread", failing)
        with pytest.raises(DataError, match=os.strerror(errno.EIO)):
            WebdatasetSource(tmp_path)
    assert WebdatasetSource(tmp_path)[0].captions == ("a cat",)
