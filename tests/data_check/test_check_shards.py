"""`virtex data check` on shards: whose ids they are, what it lists, and shards of a store."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.data.shards.ranged_server import BUCKET, RangedServer
from tests.data.sources.layouts import jpeg, write_tar
from tests.data_check.test_check import checked
from virtex.data.shards.index import index_shards
from virtex.data.shards.index_options import IndexConfig
from virtex.data.shards.manifest import Manifest
from virtex.data.source import SourceConfig
from virtex.data_check.check_config import CheckConfig
from virtex.errors import ConfigError, DataError


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RangedServer]:
    write_numbered(tmp_path / "store/train", range(0, 200, 5))
    write_numbered(tmp_path / "store/val", range(50, 90, 10))
    write_tar(tmp_path / "store/train/bad.tar", {"9.jpg": b"\xff\xd8\xff", "9.txt": "?"})
    with RangedServer(tmp_path / "store") as running:
        running.set_environment(monkeypatch)
        yield running


def write_numbered(folder: Path, numbers: range, *, per_shard: int = 4) -> None:
    """Write shards as `virtex pack` numbers them: their keys begin at 0 in each folder."""
    shards = [numbers[start : start + per_shard] for start in range(0, len(numbers), per_shard)]
    for shard, drawn in enumerate(shards):
        files: dict[str, bytes | str] = {}
        for place, number in enumerate(drawn):
            key = f"{shard:05}{place:04}"
            files |= {f"{key}.jpg": jpeg(number), f"{key}.txt": f"a dog, the number {number}"}
        write_tar(folder / f"{shard:05}.tar", files)


def index(root: Path | str, **options: object) -> Path:
    return index_shards(IndexConfig(str(root), **options), processes=1)  # type: ignore[arg-type]


@pytest.mark.parametrize("is_indexed", [False, True])
def test_images_of_packed_splits_are_compared_by_content(tmp_path: Path, is_indexed: bool) -> None:
    write_numbered(tmp_path / "data/train", range(0, 60, 10))
    write_numbered(tmp_path / "data/val", range(50, 90, 10))
    data = SourceConfig(root=tmp_path / "data")
    if is_indexed:
        roots = [index(tmp_path / "data" / split) for split in ("train", "val")]
        data = SourceConfig(source="webdataset", root=roots[0], val_root=roots[1])
    page, counts = checked(tmp_path / "data", data=data)
    assert "ids that val has" not in page
    assert counts["train"]["in_validation"] == 1
    assert "00001.tar/000010001" in page


def test_the_page_names_the_folder_whose_index_takes_the_list(tmp_path: Path) -> None:
    write_numbered(tmp_path / "data/train", range(0, 60, 10))
    write_tar(tmp_path / "data/train/9.tar", {"9.jpg": jpeg(9), "9.txt": "?"})
    good = tmp_path / "good.txt"
    page, _ = checked(tmp_path / "data", write_good=good)
    command = f"or virtex index {tmp_path / 'data/train'} --keep {good}"
    assert page.endswith(command)
    manifest = index(tmp_path / "data/train", keep=good)
    assert Manifest.read(manifest).num_all_kept == 6
    whole = index(tmp_path / "data", out=tmp_path / "whole")
    page, _ = checked(whole, write_good=good)
    assert page.endswith(f"then virtex index {tmp_path / 'data'} --out {whole} --keep {good}")
    assert Manifest.read(index(tmp_path / "data", out=whole, keep=good)).num_all_kept == 6


def test_images_that_are_listed_without_being_decoded_are_counted(tmp_path: Path) -> None:
    write_numbered(tmp_path / "data", range(0, 80, 10))
    options = {"write_good": tmp_path / "good.txt", "decode": 0.5}
    page, _ = checked(tmp_path / "data", **options)
    assert "listed as good without being decoded: 4 of 8" in page
    page, _ = checked(tmp_path / "data", write_good=tmp_path / "good.txt")
    assert "without being decoded" not in page


def test_data_without_a_usable_image_need_no_list(tmp_path: Path) -> None:
    files = {"0.jpg": b"no image", "0.txt": "a dog", "1.jpg": jpeg(0), "1.txt": "?"}
    write_tar(tmp_path / "data/0.tar", files)
    page, _ = checked(tmp_path / "data", write_good=tmp_path / "good.txt")
    assert page.endswith(
        "images to leave out: 2\n  nothing is usable: no training image would be left"
    )
    assert "keep" not in page


def test_the_ids_of_a_mix_are_listed_by_manifest() -> None:
    data = SourceConfig(source="webdataset", mix={"a": 0.5, "b": 0.5})
    with pytest.raises(ConfigError, match="write the list of each by itself"):
        CheckConfig(data=data, write_good=Path("good.txt"))


def remote_data(server: RangedServer, folder: Path, *, room: int) -> SourceConfig:
    """The manifests of the server's shards, with a cache of so many shards."""
    roots = [index(f"s3://{BUCKET}/{name}", out=folder / name) for name in ("train", "val")]
    size = f"{room * 80}kB"  # with the least room that records are given
    server.requests.clear()
    return SourceConfig(
        source="webdataset", root=roots[0], val_root=roots[1], cache_dir=folder / "cache",
        cache_size=size, store_retries=0,
    )  # fmt: skip


@pytest.mark.parametrize("has_records", [True, False])
def test_shards_of_a_store_are_visited_once_and_give_the_same_page(
    server: RangedServer, tmp_path: Path, has_records: bool
) -> None:
    local = [index(tmp_path / "store" / name) for name in ("train", "val")]
    data = SourceConfig(source="webdataset", root=local[0], val_root=local[1])
    page, counts = checked(tmp_path / "here", data=data, all=True)
    data = remote_data(server, tmp_path, room=9)
    if not has_records:
        (tmp_path / "train/records").rename(tmp_path / "records")
    own, own_counts = checked(tmp_path / "afar", data=data, all=True)
    assert own_counts == counts
    assert counts["train"]["in_validation"] == 4
    body = [one.partition("\n\n")[2].rpartition("\n")[0] for one in (page, own)]
    assert body[0] == body[1]
    assert own.endswith(f"index s3://{BUCKET}/train --out {tmp_path / 'train'} --keep GOOD.txt")
    fetched = [one[1] for one in server.requests if one[0] == "GET" and ".tar" in one[1]]
    assert len(set(fetched)) == 12
    if has_records:
        assert len(fetched) <= 14, "captions and images were read in two visits"


def test_a_store_that_fails_is_no_fault_of_its_images(server: RangedServer, tmp_path: Path) -> None:
    data = remote_data(server, tmp_path, room=12)
    server.fail(10_000)
    with pytest.raises(DataError, match=f"s3://{BUCKET}/train cannot be read"):
        checked(tmp_path / "afar", data=data)


def test_the_cache_must_have_room_for_a_few_shards(server: RangedServer, tmp_path: Path) -> None:
    data = remote_data(server, tmp_path, room=2)
    with pytest.raises(ConfigError, match="cache_size 160kB is too small") as raised:
        checked(tmp_path / "afar", data=data)
    assert "lanes" not in str(raised.value)
