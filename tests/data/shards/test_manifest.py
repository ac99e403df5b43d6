"""A manifest keeps what is known of shards, and never trusts what it reads."""

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from virtex.data.shards.manifest import LeftOut, Manifest, Shard, has_manifest
from virtex.errors import DataError

SHA = ("0" * 64, "1" * 64, "2" * 64)


def shards(*counts: int) -> list[Shard]:
    rows = zip(SHA, counts, strict=False)
    return [Shard(f"d/{n}.tar", 100 + n, f"e{n}", sha, c, c) for n, (sha, c) in enumerate(rows)]


def with_holes(root: str | Path) -> Manifest:
    kept = [None, np.array([True, False, True] * 3), np.zeros(4, np.bool_)]
    return Manifest.of(root, shards(5, 9, 4), kept=kept, fault_counts={"empty": 7})


def same(one: Manifest, other: Manifest) -> bool:
    rows = [[each.shard(index) for index in range(len(each))] for each in (one, other)]
    kept = [[str(each.positions(index)) for index in range(len(each))] for each in (one, other)]
    return rows[0] == rows[1] and kept[0] == kept[1] and one.digest == other.digest


def test_a_manifest_is_read_as_it_was_written(tmp_path: Path) -> None:
    manifest = with_holes("s3://bucket/prefix")
    manifest.write(tmp_path)
    for path in (tmp_path, tmp_path / "manifest.json"):
        assert has_manifest(path)
        assert same(manifest, Manifest.read(path))
    found = Manifest.read(tmp_path)
    assert found.root == "s3://bucket/prefix"
    assert found.fault_counts == {"empty": 7}
    assert same(manifest, pickle.loads(pickle.dumps(found)))


def test_positions_are_those_of_the_kept_examples() -> None:
    manifest = with_holes("s3://bucket")
    positions = [manifest.positions(shard) for shard in range(3)]
    assert positions[0] is None
    assert [each.tolist() for each in positions if each is not None] == [[0, 2, 3, 5, 6, 8], []]
    assert manifest.kept_starts.tolist() == [0, 5, 11, 11]
    assert manifest.num_all_kept == 11


def test_the_digest_tells_kept_examples_but_not_places_apart() -> None:
    all_kept, some = Manifest.of("s3://a", shards(5, 9, 4)), with_holes("s3://a")
    moved = Manifest.of("/b", [one._replace(etag="") for one in shards(5, 9, 4)])
    assert all_kept.digest == moved.digest
    assert all_kept.digest != some.digest
    assert all_kept.digest != Manifest.of("s3://a", shards(5, 9)).digest


def test_a_manifest_beside_its_shards_may_move_with_them(tmp_path: Path) -> None:
    Manifest.of(tmp_path / "data", shards(3)).write(tmp_path / "data" / ".virtex-manifest")
    shutil.move(tmp_path / "data", tmp_path / "moved")
    assert Manifest.read(tmp_path / "moved" / ".virtex-manifest").root == str(tmp_path / "moved")


def test_bits_are_removed_when_all_are_kept_again(tmp_path: Path) -> None:
    with_holes("s3://a").write(tmp_path)
    Manifest.of("s3://a", shards(5, 9, 4)).write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


DAMAGE: list[tuple[str, Any, str]] = [
    ("virtex_manifest", 2, "no manifest of version 1"),
    ("root", "exec://rm", "a root of unknown kind"),
    ("records", "../../records", "records in"),
    ("records", "/etc/records", "records in"),
    ("shards", [["../a.tar", 1, "", SHA[0], 1, 1]], r"outside its root: \.\./a\.tar"),
    ("shards", [["/a.tar", 1, "", SHA[0], 1, 1]], "outside its root"),
    ("shards", [["a.tar", 1, "", SHA[0], 1, 1]] * 2, "listed twice"),
    ("shards", [["a.tar", -1, "", SHA[0], 1, 1]], "a number that is not from 0"),
    ("shards", [["a.tar", 1, "", SHA[0], 1, 2]], "number of kept examples is wrong"),
    ("shards", [["a.tar", 1, "", SHA[0], 2, 1]], "number of kept examples is wrong"),
    ("shards", [["a.tar", 1, "", "x", 2, 2]], "64 hexadecimal digits"),
    ("shards", [["a.tar"]], "columns of its shards"),
    ("shards", 7, "TypeError"),
]


@pytest.mark.parametrize(("key", "value", "message"), DAMAGE)
def test_damage_is_named(tmp_path: Path, key: str, value: Any, message: str) -> None:
    Manifest.of("s3://a", shards(3)).write(tmp_path)
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(DataError, match=message):
        Manifest.read(tmp_path)


def test_bits_that_do_not_fit_are_named(tmp_path: Path) -> None:
    with_holes("s3://a").write(tmp_path)
    np.save(tmp_path / "kept.npy", np.full(4, 255, np.uint8))
    with pytest.raises(DataError, match="does not fit"):
        Manifest.read(tmp_path).positions(1)
    np.save(tmp_path / "kept.npy", np.array([[{}]], object), allow_pickle=True)
    with pytest.raises(DataError, match="cannot be read"):
        Manifest.read(tmp_path).positions(1)


def test_faults_above_the_limit_are_named_by_count() -> None:
    manifest = Manifest.of(
        "s3://a",
        shards(50, 50),
        left_out=[LeftOut("c.tar", "its end is missing")],
        fault_counts={"caption empty": 2, "image empty": 5},
    )
    manifest.check_faults(0.4)  # 57 of 150
    with pytest.raises(DataError) as raised:
        manifest.check_faults(0.37)
    assert "38.0% of the examples in s3://a cannot be used" in str(raised.value)
    assert "5 image empty, 2 caption empty, 1 broken shards (c.tar)" in str(raised.value)
