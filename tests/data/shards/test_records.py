"""Records say where each example of a shard lies, and never trust what they read."""

import json
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from tests.data.sources.layouts import jpeg, write, write_tar
from virtex.data.shards.records import Records, write_records
from virtex.errors import DataError


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    files = {"a.jpg": jpeg(1), "a.txt": "one", "d/ü.png": b"2", "d/ü.json": "{}", "c.jpg": b"345"}
    return write_tar(tmp_path / "0.tar", files)


def test_records_give_the_bytes_of_each_example(shard: Path, tmp_path: Path) -> None:
    write_records(shard, tmp_path / "0.records")
    records, data = Records(tmp_path / "0.records"), shard.read_bytes()
    found = []
    for position in range(len(records)):
        extents = records.extents(position)
        parts = [each and data[each.offset : each.offset + each.size] for each in extents]
        found.append((records.key(position), *parts))
    assert found == [
        ("a", jpeg(1), b"one", None),
        ("d/ü", b"2", None, b"{}"),
        ("c", b"345", None, None),
    ]


def test_a_shard_without_images_has_no_records(tmp_path: Path) -> None:
    write_records(write_tar(tmp_path / "0.tar", {"a.txt": "text"}), tmp_path / "0.records")
    assert len(Records(tmp_path / "0.records")) == 0


@pytest.mark.parametrize("row", [0, 2])
@pytest.mark.parametrize("value", [-2, 2**62])
def test_an_extent_outside_the_shard_is_damage(
    shard: Path, tmp_path: Path, row: int, value: int
) -> None:
    path = tmp_path / "0.records"
    write_records(shard, path)
    arrays = load_file(path)
    arrays["records"][row, 1] = value
    metadata = {"version": "1", "shard_size": str(shard.stat().st_size)}
    save_file(arrays, path, {"virtex": json.dumps(metadata)})
    with pytest.raises(DataError, match=r"0\.records is damaged: delete it"):
        Records(path).extents(row)


@pytest.mark.parametrize("content", [b"", b"\xff" * 100, b"\x08" + b"\0" * 7 + b"{}      "])
def test_what_are_no_records_is_damage(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(DataError, match="is damaged: delete it"):
        Records(write(tmp_path / "0.records", content))


def test_missing_records_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"0\.records cannot be read \(No such file"):
        Records(tmp_path / "0.records")
