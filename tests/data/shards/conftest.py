"""Shards in a folder, and on a server like S3, for tests of the index."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.data.shards.ranged_server import RangedServer


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    from tests.data.shards.test_index import make_shards

    return make_shards(tmp_path / "shards")


@pytest.fixture
def server(shards: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RangedServer]:
    with RangedServer(shards) as running:
        running.set_environment(monkeypatch)
        yield running
