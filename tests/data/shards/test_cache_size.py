"""The size of the cache is what the user gave, or chosen and said."""

import logging
from pathlib import Path

import pytest

from virtex.data.shards import cache_size as module
from virtex.data.shards.cache_size import num_bytes, open_cache
from virtex.data.shards.fetch import RECORDS_BYTES
from virtex.data.shards.manifest import Manifest, Shard
from virtex.data.source_options import Needs, SourceConfig, check_options
from virtex.errors import ConfigError

MB = 10**6


def manifest(count: int = 100) -> Manifest:
    rows = [Shard(f"{n}.tar", MB - RECORDS_BYTES, "", f"{n:064x}", 0, 0) for n in range(count)]
    return Manifest.of("s3://bucket", rows)


WINDOW = [(0, shard) for shard in range(10)]


@pytest.mark.parametrize(("name", "value"), [("cache_size", "much"), ("store_retries", -1)])
def test_options_out_of_range_are_named(name: str, value: str | int) -> None:
    config = SourceConfig(source="webdataset", root=Path("root"), **{name: value})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=rf"--data\.{name} must be .*, not {value}"):
        check_options(config, Needs())


def test_other_sources_have_no_cache() -> None:
    config = SourceConfig(source="folder", root=Path("root"), cache_size="1GB")
    with pytest.raises(ConfigError, match=r"cache_size 1GB means nothing to --data\.source folder"):
        check_options(config, Needs())


def test_a_shard_that_several_processes_need_counts_once() -> None:
    assert num_bytes([manifest()], [*WINDOW, (0, 0)]) == 10 * MB


@pytest.mark.parametrize(("free", "expected"), [(50 * MB, 30 * MB), (10**12, 100 * MB)])
def test_the_default_is_what_is_needed_and_half_of_the_rest(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    free: int,
    expected: int,
) -> None:
    monkeypatch.setattr(module, "_free_bytes", lambda folder: free)
    with caplog.at_level(logging.INFO, logger="virtex"):
        cache = open_cache(tmp_path / "new", None, [manifest()], needed=WINDOW)
    assert cache.max_bytes == expected
    assert len(caplog.records) == 1
    assert str(tmp_path / "new") in caplog.text


def test_what_cannot_fit_is_an_error_with_the_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"5MB is too small: .* 10,000,000 bytes"):
        open_cache(tmp_path, "5MB", [manifest()], needed=WINDOW)
    monkeypatch.setattr(module, "_free_bytes", lambda folder: 5 * MB)
    with pytest.raises(ConfigError, match=r"has 5,000,000 bytes .* 10,000,000\. .*cache_dir"):
        open_cache(tmp_path, None, [manifest()], needed=WINDOW)


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_a_file_is_no_cache(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"file is a file\. Name a folder by --data\.cache_dir"):
        open_cache(tmp_path / name, "1GB", [manifest()], needed=WINDOW)
