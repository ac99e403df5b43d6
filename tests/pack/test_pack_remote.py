"""Packing the shards of a store: group by group, each fetched once, always the same bytes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.shards.ranged_server import BUCKET, RangedServer
from tests.data.sources.manifests import write_shards
from tests.pack.test_pack import metadata_in, shards_in
from virtex.data.shards.index import index_shards
from virtex.data.shards.index_options import IndexConfig
from virtex.data.shards.manifest import SourceShard
from virtex.data.source import SourceConfig
from virtex.errors import ConfigError
from virtex.pack import pack as module
from virtex.pack import shard_groups
from virtex.pack.pack import pack
from virtex.pack.pack_options import PackConfig
from virtex.pack.shard_groups import GROUP, ShardGroups
from virtex.pack.shard_plan import ShardPlan

SIZES = [9, 7, 5, 6, 4, 8, 3, 9, 5, 4]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=60), st.integers(0, 9))
def test_groups_hold_each_example_once_and_name_the_shards_they_need(counts, seed):
    places = [SourceShard(0, number) for number in range(len(counts))]
    groups = ShardGroups(np.array(counts), places, (seed, 1))
    order = np.array([], np.int64) if not sum(counts) else groups.order()
    assert sorted(order.tolist()) == list(range(sum(counts)))
    owner = np.repeat(np.arange(len(counts)), counts)
    for start in range(0, len(order), 7):
        needed = {place.shard for place in groups.places_of(start, start + 7)}
        assert needed >= set(owner[order[start : start + 7]].tolist())
    last = max(len(order) - 1, 0)
    assert len(groups.places_of(last, len(order))) <= GROUP


def test_shards_that_are_here_are_not_fetched() -> None:
    places = [SourceShard(0, 4), None]
    plan = ShardPlan(4, 2, 0, ShardGroups(np.array([2, 2]), places, (0,)))
    assert plan.shards_needed(0, 9) == [SourceShard(0, 4)]
    assert plan.shards_needed(2, 9) == ShardPlan(4, 2, 0).shards_needed(0, 9) == []


def test_shards_of_a_store_are_fetched_once_and_packed_alike_by_two_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for one in (module, shard_groups):
        monkeypatch.setattr(one, "GROUP", 2)
    write_shards(tmp_path / "store", SIZES)
    local = index_shards(IndexConfig(str(tmp_path / "store")), processes=1)
    with RangedServer(tmp_path / "store") as server:
        server.set_environment(monkeypatch)
        manifest = tmp_path / "manifest"
        index_shards(IndexConfig(f"s3://{BUCKET}", manifest), processes=1)
        server.requests.clear()
        options: dict[str, Any] = {"source": "webdataset", "root": manifest, "store_retries": 0}
        data = SourceConfig(**options, cache_dir=tmp_path / "cache", cache_size="500kB")
        pack(config_of(data, tmp_path / "one"), processes=1)
        fetched = [one[1] for one in server.requests if one[0] == "GET"]
        assert sorted(fetched) == sorted({*fetched})
        assert len(fetched) == len(SIZES)
        data = SourceConfig(**options, cache_dir=tmp_path / "other", cache_size="500kB")
        pack(config_of(data, tmp_path / "two"), processes=2)
        assert shards_in(tmp_path / "one") == shards_in(tmp_path / "two")
        ids = [one["id"] for one in metadata_in(tmp_path / "one")]
        assert len({*ids}) == len(ids) == sum(SIZES)
        assert len({one.partition("/")[0] for one in ids[:10]}) <= 4, "of two groups"
        own = SourceConfig(source="webdataset", root=local)
        with pytest.raises(ConfigError, match="shards shuffled together: 2 before"):
            pack(config_of(own, tmp_path / "one"), processes=1)
        small = SourceConfig(**options, cache_dir=tmp_path / "small", cache_size="100kB")
        with pytest.raises(ConfigError, match="cache_size 100kB is too small"):
            pack(config_of(small, tmp_path / "three"), processes=1)


def config_of(data: SourceConfig, out: Path) -> PackConfig:
    return PackConfig(out=out, data=data, short_side=4, shard_size=20)
