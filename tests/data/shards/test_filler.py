"""A filler fetches each shard once, before it is needed, whatever stores and kills do."""

import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.data.shards.ranged_server import RangedServer
from tests.data.shards.served import digests, manifest_of, write_shards
from virtex.data.lanes import LaneOrder
from virtex.data.shards import fetch as fetch_module
from virtex.data.shards import filling as module
from virtex.data.shards import retries
from virtex.data.shards.cache import ShardCache
from virtex.data.shards.exchange import Exchange, Failure, Window
from virtex.data.shards.filler import MARGIN, Filler, Locate, look_ahead
from virtex.data.shards.filling import Filling, Job
from virtex.data.shards.locks import is_locked
from virtex.data.shards.manifest import Manifest, SourceShard
from virtex.data.shards.remote import open_remote
from virtex.data.source_options import SourceConfig
from virtex.distributed import Share
from virtex.engine.meter import Speed
from virtex.errors import DataError

NUM_SHARDS = 12


class OneLane:
    """An order that reads shard after shard, two steps each."""

    def shards_needed(self, first_step: int, num_steps: int) -> Sequence[tuple[int, int]]:
        steps = range(first_step, first_step + num_steps)
        return list(dict.fromkeys((0, step // 2 % NUM_SHARDS) for step in steps))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RangedServer]:
    write_shards(tmp_path / "store", NUM_SHARDS)
    with RangedServer(tmp_path / "store") as running:
        yield running


@pytest.fixture
def manifest(server: RangedServer) -> Manifest:
    return manifest_of(server)


@pytest.fixture
def cache(tmp_path: Path) -> ShardCache:
    return ShardCache(tmp_path / "cache", 10**6)


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "FIRST_WAIT", 0.01)


class Inside:
    """A filler's work within this process."""

    def __init__(self, cache: ShardCache, manifest: Manifest, *, num_retries: int = 3) -> None:
        self.exchange, self.lock = Exchange.create(cache)
        self.filling = Filling(Job(cache, (manifest,), self.exchange, num_retries, os.getppid()))
        self.locate = Locate(cache, manifest, self.exchange, 0)

    def show(self, *shards: int, num_urgent: int = 1) -> None:
        places = tuple(SourceShard(0, shard) for shard in shards)
        self.exchange.show_window(Window(places, num_urgent))

    def turn(self) -> None:
        self.filling.turn(time.monotonic())

    def holds(self, shard: int) -> bool:
        item = self.filling.items.get(SourceShard(0, shard))
        return item is not None and item.lock is not None

    def failure(self, shard: int) -> Failure | None:
        return self.exchange.failure(SourceShard(0, shard))


def turn_until(condition: Callable[[], object], *fillers: Inside, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never happened"
        for filler in fillers:
            filler.turn()
        time.sleep(0.003)


def has(cache: ShardCache, manifest: Manifest, *shards: int) -> bool:
    return all(cache.has(digests(manifest)[shard]) for shard in shards)


def downloads(server: RangedServer) -> int:
    return server.count("GET", ".tar")


def test_two_processes_fetch_each_shard_once(
    server: RangedServer, manifest: Manifest, cache: ShardCache
) -> None:
    server.delay(0.02)
    with Filler(cache, [manifest]) as one, Filler(cache, [manifest]) as other:
        one.follow(OneLane(), 0)
        with ThreadPoolExecutor(NUM_SHARDS) as workers:
            paths = list(workers.map(other.locate(), range(NUM_SHARDS)))
    assert [path.read_bytes() for path in paths] == [
        path.read_bytes() for path in sorted(server.folder.glob("*.tar"))
    ]
    assert downloads(server) == NUM_SHARDS


def test_a_killed_filler_is_named_and_a_new_one_goes_on(
    server: RangedServer, manifest: Manifest, cache: ShardCache
) -> None:
    server.delay(0.5)
    with Filler(cache, [manifest]) as filler, ThreadPoolExecutor(1) as worker:
        waiting = worker.submit(filler.locate(), 0)
        while not downloads(server):
            time.sleep(0.01)
        filler.process.send_signal(signal.SIGKILL)
        with pytest.raises(DataError, match=r"^000\.tar at http.*ended: it was killed") as caught:
            waiting.result(10)
        assert caught.value.exit_code == 75
    assert not has(cache, manifest, 0)
    server.delay(0)
    with Filler(cache, [manifest]) as filler:
        assert filler.locate()(0).read_bytes() == (server.folder / "000.tar").read_bytes()
    assert not list(cache.folder.glob("*.part"))
    assert not list((cache.folder / "fillers").iterdir())


def test_a_shard_that_somebody_removed_is_fetched_again(
    manifest: Manifest, cache: ShardCache
) -> None:
    filler, other = Inside(cache, manifest), Inside(cache, manifest)
    for one in (filler, other):
        one.show(0)
    turn_until(lambda: all(one.holds(0) for one in (filler, other)), filler, other)
    shutil.rmtree(cache.shard_path(digests(manifest)[0]).parent)

    def is_there() -> bool:
        filler.exchange.want(SourceShard(0, 0))  # as a worker does while it waits
        return has(cache, manifest, 0)

    turn_until(is_there, filler, other)
    assert filler.locate(0) == cache.shard_path(digests(manifest)[0])


DIE = """
import os, signal, sys
from pathlib import Path
from virtex.data.shards.cache import ShardCache
from virtex.data.shards.filler import Filler
filler = Filler(ShardCache(Path(sys.argv[1]), 1000), [])
print(filler.exchange.folder, flush=True)
while not filler.exchange.is_alive():
    pass
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_filler_ends_with_its_parent(tmp_path: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-c", DIE, str(tmp_path)], stdout=subprocess.PIPE, text=True, timeout=60
    )
    assert found.returncode == -signal.SIGKILL
    lock = Path(found.stdout.strip()) / "lock"
    end = time.monotonic() + 20
    while is_locked(lock):
        assert time.monotonic() < end
        time.sleep(0.02)


def test_signals_to_the_run_do_not_end_the_filler(cache: ShardCache, manifest: Manifest) -> None:
    with Filler(cache, [manifest]) as filler:
        filler.locate()(0)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            filler.process.send_signal(number)
        filler.locate()(1)
    assert not filler.exchange.is_alive()


def test_the_bytes_are_bounded_at_every_moment_and_the_window_is_held(
    server: RangedServer,
    manifest: Manifest,
    cache: ShardCache,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fetch_module, "RECORDS_BYTES", 2**12)
    sizes = manifest.sizes + fetch_module.RECORD_BYTES * 3 + 2**12
    cache.max_bytes = int(sizes[:4].sum() + 10)
    filler, order, most = Inside(cache, manifest), OneLane(), 0
    for step in range(4 * NUM_SHARDS):
        window = look_ahead(order, step, margin=2, num_shards=3)
        filler.exchange.show_window(window)
        shards = [place.shard for place in window.shards]
        turn_until(lambda shards=shards: has(cache, manifest, *shards), filler)
        most = max(most, cache.num_bytes())
        assert most <= cache.max_bytes
    assert most > cache.max_bytes / 2
    assert downloads(server) < 2 * NUM_SHARDS  # some are still there in the second epoch


def test_a_failure_that_passes_is_named_once(
    server: RangedServer, manifest: Manifest, cache: ShardCache, caplog: pytest.LogCaptureFixture
) -> None:
    server.fail(3)
    filler = Inside(cache, manifest, num_retries=4)
    filler.show(0, 1, 2, num_urgent=3)
    with caplog.at_level(logging.WARNING, logger="virtex"):
        turn_until(lambda: has(cache, manifest, 0, 1, 2) and len(caplog.records) > 1, filler)
    first, *rest = [record.getMessage() for record in caplog.records]
    assert ".tar" in first
    assert manifest.root in first
    assert "retry 1 of 4" in first
    assert [line.endswith("is read again") for line in rest] == [True]


def test_when_a_store_is_back_all_shards_are_tried_at_once(
    server: RangedServer, manifest: Manifest, cache: ShardCache
) -> None:
    server.fail(10)  # both shards wait for the store, each until its own time
    filler = Inside(cache, manifest, num_retries=12)
    filler.show(0, 1, num_urgent=2)
    items = filler.filling.items

    def have_failed() -> bool:
        return len(items) == 2 and all(item.tries.number > 1 for item in items.values())

    turn_until(have_failed, filler)
    *_, last = items.values()
    last.tries.next_at = time.monotonic() + 1000
    turn_until(lambda: has(cache, manifest, 0, 1), filler)


@pytest.mark.parametrize(
    ("status", "exit_code", "num_tries", "reason"),
    [
        (503, 75, 3, r"503 .*; 2 retries did not help\. The same command goes on from the last"),
        (403, 2, 1, r"access is denied with the credentials there are\."),
        (404, 2, 1, r"there is nothing of this name\. Correct the URL, or index the shards again"),
        (301, 2, 3, "redirect"),
        (400, 2, 3, "400 Bad Request"),
        (412, 2, 1, r"it has changed since it was indexed\. Index the shards again"),
    ],
)
def test_a_failure_that_stays_names_the_shard_once_and_says_whether_to_try_again(
    server: RangedServer,
    manifest: Manifest,
    cache: ShardCache,
    status: int,
    exit_code: int,
    num_tries: int,
    reason: str,
) -> None:
    if status == 412:
        (server.folder / "001.tar").write_bytes(b"other")
    else:
        server.fail(10**6, status=status)
    filler = Inside(cache, manifest, num_retries=2)
    filler.exchange.want(SourceShard(0, 1))
    turn_until(lambda: filler.failure(1), filler)
    with pytest.raises(DataError, match=rf"^001\.tar at {server.url} .*{reason}") as caught:
        filler.locate(1)
    assert caught.value.exit_code == exit_code
    assert str(caught.value).count("cannot be") == 1
    assert downloads(server) == num_tries


def test_a_cut_answer_is_read_again(
    server: RangedServer, manifest: Manifest, cache: ShardCache
) -> None:
    server.cut(2)
    filler = Inside(cache, manifest)
    filler.show(0)
    turn_until(lambda: has(cache, manifest, 0), filler)
    assert downloads(server) == 3


def test_the_wait_for_a_slow_store_is_waiting_for_data(
    server: RangedServer, manifest: Manifest, cache: ShardCache
) -> None:
    server.delay(0.3)
    with Filler(cache, [manifest]) as filler:
        filler.locate()(0)
        speed = Speed()
        speed.next(map(filler.locate(), [1]))
        assert speed.read()["data_wait"] > 0.9
        start = time.perf_counter()
        filler.locate()(1)
        assert time.perf_counter() - start < 0.1


def test_what_workers_wait_for_comes_first(
    server: RangedServer, manifest: Manifest, cache: ShardCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "NUM_AT_ONCE", 1)
    server.delay(0.05)
    filler = Inside(cache, manifest)
    filler.show(*range(10), num_urgent=0)
    filler.turn()
    filler.exchange.want(SourceShard(0, 11))
    turn_until(lambda: has(cache, manifest, 11), filler)
    assert not has(cache, manifest, 3)


def test_a_shard_in_use_takes_the_room_of_what_others_fetched_ahead(
    server: RangedServer, manifest: Manifest, cache: ShardCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ROOM_WAIT", 0.01)
    monkeypatch.setattr(fetch_module, "RECORDS_BYTES", 2**12)
    sizes = manifest.sizes + fetch_module.RECORD_BYTES * 3 + 2**12
    cache.max_bytes = int(sizes[:4].sum())
    one, other = Inside(cache, manifest), Inside(cache, manifest)
    one.show(0, 1, 2, 3, num_urgent=1)
    turn_until(lambda: has(cache, manifest, 0, 1, 2), one)
    other.show(8, 9, num_urgent=2)
    turn_until(lambda: has(cache, manifest, 8, 9), one, other)
    assert has(cache, manifest, 0)
    assert cache.num_bytes() <= cache.max_bytes


def test_without_room_for_shards_in_use_the_wait_is_said_and_ends(
    manifest: Manifest,
    cache: ShardCache,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(module, "ROOM_WAIT", 0.01)
    cache.max_bytes = 10
    filler = Inside(cache, manifest)
    filler.exchange.want(SourceShard(0, 0))
    with caplog.at_level(logging.WARNING, logger="virtex"):
        turn_until(lambda: filler.failure(0), filler)
    assert caplog.text.count("--data.cache_size") == 1
    assert "waits for it" in caplog.text
    with pytest.raises(DataError, match="has no room"):
        filler.locate(0)


def test_shards_of_validation_are_not_looked_for_in_the_order_of_training(
    server: RangedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No step needs them, so the search would try all steps up to the longest horizon."""
    whole, horizons = manifest_of(server), []
    every = [whole.shard(index) for index in range(len(whole))]
    for name, shards in (("train", every[:4]), ("val", every[4:])):
        Manifest.of(whole.root, shards).write(tmp_path / name)
    shards_needed = LaneOrder.shards_needed

    def noted(order: LaneOrder, first_step: int, num_steps: int) -> list[SourceShard]:
        horizons.append(num_steps)
        assert num_steps <= 4 * MARGIN
        return shards_needed(order, first_step, num_steps)

    monkeypatch.setattr(LaneOrder, "shards_needed", noted)
    config = SourceConfig(
        source="webdataset", root=tmp_path / "train", val_root=tmp_path / "val",
        cache_dir=tmp_path / "cache",
    )  # fmt: skip
    remote = open_remote(config, seed=0, batch_size=4, share=Share(0, 1), num_on_node=1)
    assert remote is not None
    remote.follow(0)
    remote.close()
    assert horizons


def test_the_window_is_what_is_in_use_and_as_much_again() -> None:
    window = look_ahead(OneLane(), 3, margin=16, num_shards=NUM_SHARDS)
    assert [place.shard for place in window.shards] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0]
    assert window.num_urgent == 9
    window = look_ahead(OneLane(), 3, margin=1, num_shards=NUM_SHARDS)
    assert [place.shard for place in window.shards] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert window.num_urgent == 1


def test_workers_take_a_copy_of_the_function_that_locates(
    manifest: Manifest, cache: ShardCache
) -> None:
    import pickle

    with Filler(cache, [manifest]) as filler:
        locate: Any = pickle.loads(pickle.dumps(filler.locate()))
        assert locate(2).is_file()


def test_the_retries_by_default_take_ten_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert 500 < retries.patience(16) < 700
