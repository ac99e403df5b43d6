"""Shards that a manifest lists."""

import json
import multiprocessing
import pickle
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data.sources.layouts import contents, jpeg, message_of, write_tar
from tests.data.sources.manifests import write_manifest, write_shard, write_shards
from virtex.data.example import Source
from virtex.data.images import BadImageError
from virtex.data.shards.index import IndexConfig, index_shards
from virtex.data.shards.manifest import Manifest
from virtex.data.shards.records import write_records
from virtex.data.source import Needs, SourceConfig, open_source
from virtex.data.source_options import check_options
from virtex.data.sources.mixed import MixedSource
from virtex.data.sources.shards import MAX_OPEN, ShardedSource
from virtex.data.sources.webdataset import WebdatasetSource
from virtex.data.subsets import FewerCaptions
from virtex.data.validation import check_validation
from virtex.errors import ConfigError, DataError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_shards(tmp_path / "shards", [3, 4, 2])
    return tmp_path / "shards"


def opened(root: Path) -> ShardedSource:
    return ShardedSource(Manifest.read(write_manifest(root)))


def test_examples_are_those_of_the_folder(root: Path) -> None:
    source, other = opened(root), WebdatasetSource(root)
    assert contents(source) == contents(other)
    assert [example.image for example in source] == [example.image for example in other]
    assert [source.captions(index) for index in range(9)] == list(map(other.captions, range(9)))
    assert source.image_id(4) == "00001.tar/000000004"


def test_captions_of_several_keys_are_those_of_the_folder(root: Path) -> None:
    keys = {"caption": 0.25, "txt": 0.75}
    folder = WebdatasetSource(root, caption_keys=keys)
    manifest = Manifest.read(write_manifest(root))
    sharded = ShardedSource(manifest, caption_keys=keys)
    mixed = MixedSource([sharded, sharded], [1, 1])
    assert len(folder[0].captions) == 2
    for index in range(len(folder)):
        for other in (sharded[index], mixed[index + len(sharded)]):
            assert other.captions == folder[index].captions
            assert other.caption_weights == folder[index].caption_weights
    assert sharded.captions(1) == folder.captions(1)


def test_captions_come_from_any_place_in_the_shard(tmp_path: Path) -> None:
    far = {f"{key:03}.jpg": jpeg(key) for key in range(40)}
    far |= {"large.bin": bytes(10**5)}
    far |= {f"{key:03}.json": f'{{"caption": ["one {key}", "two"]}}' for key in range(40)}
    write_tar(tmp_path / "a.tar", far)
    source = opened(tmp_path)
    assert source[7].captions == ("one 7", "two")
    assert source[7].image == jpeg(7)


def test_examples_that_are_left_out_have_no_index(root: Path) -> None:
    out = write_manifest(root, left_out={"00000.tar": [1], "00001.tar": [0, 1, 2, 3]})
    source = ShardedSource(Manifest.read(out))
    assert [source.image_id(index)[-3:] for index in range(len(source))] == [
        "000", "002", "007", "008"
    ]  # fmt: skip
    assert source.shard_counts is not None
    assert source.shard_counts.counts[0].tolist() == [2, 0, 2]


def test_a_missing_or_bad_caption_is_a_bad_example(tmp_path: Path) -> None:
    files = {"0.jpg": jpeg(0), "1.jpg": jpeg(1), "1.txt": " \n", "2.jpg": jpeg(2), "2.txt": b"\xff"}
    write_tar(tmp_path / "a.tar", {**files, "3.jpg": jpeg(3), "3.json": "{"})
    source = opened(tmp_path)
    reasons = []
    for index in range(4):
        with pytest.raises(BadImageError) as caught:
            source[index]
        reasons.append(caught.value.reason)
        assert caught.value.location == f"a.tar/{index}"
        assert source.captions(index) == ()
    assert reasons == [
        f"its caption is {fault}" for fault in ("missing", "empty", "not UTF-8", "not valid JSON")
    ]
    without = ShardedSource(source.manifest, with_captions=False)
    assert without[1].image == jpeg(1)
    assert without[1].captions == ()


def test_replacements_are_the_next_examples_of_the_shard(root: Path) -> None:
    source, rng = opened(root), np.random.default_rng(0)
    assert source.replacements(4, rng, number=2) == [5, 6]
    assert source.replacements(5, rng, number=3) == [6, 3, 4]
    assert source.replacements(8, rng, number=30) == [7, 0, 1, 2, 3, 4, 5, 6]
    fewer = FewerCaptions(source, 1)
    assert fewer.replacements(4, rng, number=2) == [5, 6]
    assert fewer.shard_counts is source.shard_counts


def test_forked_and_unpickled_sources_read_the_same(root: Path) -> None:
    source = opened(root)
    expected = [example.image for example in source]
    assert [example.image for example in pickle.loads(pickle.dumps(source))] == expected
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(source.image_id, range(9)) == [source.image_id(n) for n in range(9)]


def test_few_shards_are_open_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("virtex.data.sources.shards.MAX_OPEN", 2)
    assert MAX_OPEN > 64
    write_shards(tmp_path, [1] * 5)
    source = opened(tmp_path)
    assert len([*source]) == 5
    assert len(source._opened) == 2


def test_shards_come_from_where_locate_says(root: Path, tmp_path: Path) -> None:
    manifest = Manifest.read(write_manifest(root))
    cache, calls = tmp_path / "cache", list[int]()

    def locate(shard: int) -> Path:
        calls.append(shard)
        path = cache / str(shard) / "shard.tar"
        if not path.exists():
            path.parent.mkdir(parents=True)
            (root / manifest.names[shard]).rename(path)
            write_records(path, path.with_name("shard.tar.safetensors"))
        return path

    source = ShardedSource(manifest, locate=locate)
    assert calls == []
    assert source[3].captions == ("a caption of image 000000003",)
    assert set(calls) == {1}


def test_a_shard_that_changed_is_named(root: Path) -> None:
    source = opened(root)
    with (root / "00001.tar").open("ab") as file:
        file.write(bytes(10))
    assert source[0].captions
    with pytest.raises(DataError, match=r"00001.tar has changed since it was indexed. Index the"):
        source[3]


def test_a_shard_without_its_records_is_to_be_indexed(root: Path) -> None:
    source = opened(root)
    (root / ".virtex-manifest" / "records" / "00001.tar.safetensors").unlink()
    with pytest.raises(DataError, match=r"00001.*cannot be read .*\. Index the shards again by"):
        source[3]


def test_a_damaged_shard_of_the_cache_is_to_be_removed_there(root: Path) -> None:
    source = ShardedSource(Manifest.read(write_manifest(root)), locate=lambda shard: root / "1.tar")
    (root / "1.tar").write_bytes(b"")
    write_records(root / "00001.tar", root / "1.tar.safetensors")
    with pytest.raises(DataError, match=rf"1.tar has changed .*\. Remove {root} from the cache: "):
        source[3]


def test_all_problems_are_found_at_the_start(root: Path) -> None:
    manifest = Manifest.read(write_manifest(root))
    (root / "00001.tar").unlink()
    (root / "00002.tar").unlink()
    message = message_of(lambda: ShardedSource(manifest))
    assert "shards missing in" in message
    assert "2 (00001.tar, 00002.tar)" in message


def test_too_many_faults_in_the_manifest_are_an_error(root: Path) -> None:
    out = write_manifest(
        root, left_out={"00000.tar": [0, 1]}, fault_counts={"no JPEG": 1, "no caption": 1}
    )
    assert len(ShardedSource(Manifest.read(out), fault_limit=0.3)) == 7
    with pytest.raises(DataError, match=r"22.2% of the examples .*1 no JPEG.*data.fault_limit"):
        ShardedSource(Manifest.read(out), fault_limit=0.2)


def test_the_error_of_too_many_faults_names_the_files_that_list_them(tmp_path: Path) -> None:
    write_shards(tmp_path, [6, 6, 6, 6])
    out = tmp_path / ".virtex-manifest"
    (tmp_path / "00001.tar").write_bytes((tmp_path / "00001.tar").read_bytes()[:1000])

    def message(folder: Path) -> str:
        index_shards(IndexConfig(root=str(tmp_path), val_share=0.5), processes=1)
        return message_of(lambda: ShardedSource(Manifest.read(folder), fault_limit=0.01))

    assert message(out).endswith(
        f"raise data.fault_limit. {out}/manifest.json lists the broken shards."
    )
    write_shard(tmp_path / "00000.tar", ["1", "2", "3", "4"], bad=["2"])
    val = out.with_name(f"{out.name}-val")
    for folder in (out, val):
        assert message(folder).endswith(
            f"{folder}/manifest.json lists the broken shards, and {out}/faults.jsonl lists the "
            "examples with faults."
        )
    lines = (out / "faults.jsonl").read_text().splitlines()
    assert [json.loads(line)["key"] for line in lines] == ["2"]
    assert "00001.tar" in (val / "manifest.json").read_text()


def test_a_sample_of_captions_is_a_function_of_its_seed(tmp_path: Path) -> None:
    write_shards(tmp_path, [20] * 10)
    source = opened(tmp_path)
    sample = [*source.sample_captions(30, seed=1)]
    assert len(set(sample)) == 30
    assert sample == [*source.sample_captions(30, seed=1)]
    assert sample != [*source.sample_captions(30, seed=2)]
    assert len([*source.sample_captions(1000, seed=1)]) == 200


def test_a_sample_is_drawn_from_that_of_the_manifest(tmp_path: Path) -> None:
    write_shards(tmp_path, [30, 30])
    index_shards(IndexConfig(root=str(tmp_path)), processes=1)
    source = ShardedSource(Manifest.read(tmp_path / ".virtex-manifest"))
    sample = [*source.sample_captions(25, seed=0)]
    assert len(set(sample)) == 25
    assert {text[-2:] for text in sample} - {f"{number:02}" for number in range(25)}
    (tmp_path / "00000.tar").unlink()  # no shard is read
    assert [*FewerCaptions(source, 1).sample_captions(25, seed=0)] == sample
    assert len([*source.sample_captions(1000, seed=0)]) == 60


def mixed(tmp_path: Path) -> Source:
    write_shards(tmp_path / "a", [3, 2])
    write_shard(tmp_path / "b" / "0.tar", ["7", "8", "9", "10"])
    parts = [opened(tmp_path / "a"), opened(tmp_path / "b")]
    return MixedSource(parts, [3, 1])


def test_a_mixed_source_has_the_examples_of_its_parts(tmp_path: Path) -> None:
    source = mixed(tmp_path)
    assert len(source) == 9
    assert source[6].image_id == source.image_id(6) == "1/0.tar/8"
    assert source.captions(6) == source[6].captions == ("a caption of image 8",)
    assert source.replacements(6, np.random.default_rng(0), number=4) == [7, 8, 5]
    assert source.shard_counts is not None
    assert source.shard_counts.weights == (0.75, 0.25)
    assert len([*islice(source.sample_captions(4, seed=0), 9)]) == 4


def test_a_mix_is_opened_by_its_manifests(tmp_path: Path) -> None:
    mixed(tmp_path)
    paths = [str(tmp_path / name / ".virtex-manifest") for name in "ab"]
    config = SourceConfig(mix=dict(zip(paths, [3.0, 1.0], strict=True)))
    source = open_source(config, split="train")
    assert isinstance(source, MixedSource)
    assert open_source(config, split="val") is None


def refusal(**options: Any) -> str:
    def check() -> None:
        config = SourceConfig(source="webdataset", **options)
        check_options(config, Needs(captions=True))
        check_validation(config)

    with pytest.raises(ConfigError) as caught:
        check()
    return str(caught.value)
