"""Pretraining on shards in a remote store: the same run as on local ones, and its faults."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from tests.data.shards.ranged_server import BUCKET, RangedServer
from tests.data.sources.manifests import write_shards
from tests.test_pretrain_shards import FINAL, options
from virtex.data.shards.index import index_shards
from virtex.data.shards.index_options import IndexConfig
from virtex.engine import checkpoint
from virtex.errors import ConfigError, DataError
from virtex.pretrain import pretrain


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of five local shards with their manifest, and the finished run on them."""
    folder = tmp_path_factory.mktemp("remote")
    write_shards(folder / "store", [9, 7, 5, 6, 4])
    index_shards(IndexConfig(root=str(folder / "store"), out=folder / "local"))
    pretrain(options(folder / "local", folder / "run"))
    return folder


@pytest.fixture
def server(shards: Path, monkeypatch: pytest.MonkeyPatch):
    with RangedServer(shards / "store") as server:
        server.set_environment(monkeypatch)
        yield server


def index(folder: Path) -> Path:
    index_shards(IndexConfig(root=f"s3://{BUCKET}", out=folder / "manifest"))
    return folder / "manifest"


def test_a_run_from_a_store_is_that_from_a_folder(
    shards: Path, server: RangedServer, tmp_path: Path
) -> None:
    manifest = index(tmp_path)
    flags = ("--data.cache_dir", str(tmp_path / "cache"), "--loader.num_workers", "1")
    server.requests.clear()
    result = pretrain(options(manifest, tmp_path / "run", *flags))
    assert result.step == 4
    local, own = (checkpoint.load(run / "run" / FINAL)["task"] for run in (shards, tmp_path))
    assert all(torch.equal(local[name], own[name]) for name in local)
    fetched = [request[1] for request in server.requests if ".tar" in request[1]]
    assert fetched
    assert len(set(fetched)) == len(fetched), "a shard was fetched twice"
    assert str(tmp_path / "cache") in (tmp_path / "run" / "config.yaml").read_text()
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "run" / FINAL).unlink()
    flags = ("--data.cache_dir", str(tmp_path / "other"))
    pretrain(options(manifest, tmp_path / "run", *flags))
    again = checkpoint.load(tmp_path / "run" / FINAL)["task"]
    assert all(torch.equal(own[name], again[name]) for name in own)
    data = [json.loads((run / "run" / "data.json").read_text()) for run in (shards, tmp_path)]
    assert data[0]["train"] == data[1]["train"]


def test_a_cache_that_is_too_small_is_refused_before_work(
    server: RangedServer, tmp_path: Path
) -> None:
    manifest = index(tmp_path)
    flags = ("--data.cache_dir", str(tmp_path / "cache"), "--data.cache_size", "1kB")
    with pytest.raises(ConfigError, match="cache_size 1kB is too small"):
        pretrain(options(manifest, tmp_path / "run", *flags))


def test_a_store_that_is_away_for_good_ends_the_run(server: RangedServer, tmp_path: Path) -> None:
    manifest = index(tmp_path)
    server.fail(10_000)
    flags = ("--data.cache_dir", str(tmp_path / "cache"), "--data.store_retries", "0")
    with pytest.raises(DataError, match=f"s3://{BUCKET} cannot be read") as caught:
        pretrain(options(manifest, tmp_path / "run", *flags))
    assert caught.value.exit_code == 75  # docs/cluster/slurm.sh starts the step again
    assert str(caught.value).count("goes on from the last checkpoint") == 1


@pytest.mark.parametrize("parts", ["all", "no records", "no records, keys or sample"])
def test_captions_of_other_keys_are_refused_before_a_step(
    server: RangedServer, tmp_path: Path, parts: str
) -> None:
    manifest = index(tmp_path)
    if parts != "all":
        shutil.rmtree(manifest / "records")
    if "keys" in parts:
        (manifest / "captions.jsonl.gz").unlink()
        path = manifest / "manifest.json"
        path.write_text(re.sub('"(caption_keys|with_captions)".*\n', "", path.read_text()))
    flags = ("--data.cache_dir", str(tmp_path / "cache"), "--data.caption_keys", "{alt: 1}")
    expected = (
        "caption_keys names alt too"
        if "keys" not in parts
        else (
            r'none of the \d examples of .* has a caption in "alt" .*'
            r'with text in their .json files: .*"url".*have a .txt file'
        )
    )
    with pytest.raises(ConfigError, match=expected):
        pretrain(options(manifest, tmp_path / "run", *flags))
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_other_commands_say_which_read_from_afar_and_what_to_do(
    server: RangedServer, tmp_path: Path
) -> None:
    from virtex.data.source import SourceConfig, open_source

    manifest = index(tmp_path)
    message = "pack and tokenizer alone read from afar.*copy the shards to a folder"
    with pytest.raises(ConfigError, match=message):
        open_source(SourceConfig(source="webdataset", root=manifest), split="train")


def test_a_mistake_in_the_environment_is_named_before_the_run(
    server: RangedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = index(tmp_path)
    monkeypatch.setenv("AWS_ENDPOINT", server.endpoint.removeprefix("http://"))
    given = options(manifest, tmp_path / "run", "--data.cache_dir", str(tmp_path / "cache"))
    with pytest.raises(ConfigError, match=r"AWS_ENDPOINT is 127\.0\.0\.1:\d+, and must begin with"):
        pretrain(given)
    server.set_environment(monkeypatch)
    monkeypatch.delenv("AWS_ALLOW_HTTP")
    with pytest.raises(ConfigError, match="set AWS_ALLOW_HTTP=true, or give https"):
        pretrain(given)
    assert not (tmp_path / "run" / "log.jsonl").exists()
