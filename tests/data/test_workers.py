"""Workers within the system's limits: fewer of them, or an error that names the cause."""

import logging
import multiprocessing
import os
import resource
import signal
import tempfile
import time
from pathlib import Path

import pytest
import torch
from torch.utils.data import Dataset

from virtex.data import worker_limits, workers
from virtex.data.worker_limits import PAGE, Limits, Need, fitting, need_of, read_limits
from virtex.data.workers import Prepared, WorkerError

HANGS = multiprocessing.Event()
NEED = Need(num_bytes=10_000_000, num_tensors=4)


@pytest.fixture(autouse=True)
def _no_earlier_warning() -> None:
    worker_limits._warn_once.cache_clear()


class Items(Dataset[torch.Tensor]):
    """Tensors of 100 numbers; some items do something else first."""

    def __init__(self, action: str = "") -> None:
        self.action = action

    def __getitem__(self, index: int) -> torch.Tensor:
        if index == 3 and self.action == "be killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if index == 3 and self.action == "use all descriptors":
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
        if self.action == "hang":
            HANGS.set()
            time.sleep(100)
        return torch.full((100,), index)


def prepared(action: str = "", *, num_workers: int = 1, need: Need | None = None) -> Prepared:
    return Prepared(Items(action), range(5), num_workers=num_workers, prefetch=2, need=need)


@pytest.mark.parametrize(
    ("limits", "expected", "remedy"),
    [
        (Limits(), (4, 2), ""),
        (Limits(shared_bytes=100_000_000), (4, 2), ""),
        (Limits(shared_bytes=64_000_000), (4, 1), "--shm-size"),
        (Limits(shared_bytes=32_000_000), (2, 1), "loader.num_workers"),
        (Limits(shared_bytes=64_000), (0, 1), "0.1 MB of /dev/shm"),
        (Limits(num_descriptors=1024), (4, 2), ""),
        (Limits(num_descriptors=50), (4, 1), "ulimit -n"),
        (Limits(num_descriptors=0), (0, 1), "0 are free"),
        (Limits(temporary="No space left on device"), (0, 1), "TMPDIR"),
    ],
)
def test_as_many_workers_are_started_as_fit(
    limits: Limits, expected: tuple[int, int], remedy: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="virtex"):
        assert fitting(4, 2, NEED, limits) == expected
    assert remedy in caplog.text
    assert bool(remedy) == bool(caplog.text)


def test_a_batch_needs_whole_pages_for_each_of_its_tensors() -> None:
    one = {"image": torch.zeros(1, 3, 64, 64, dtype=torch.uint8), "lengths": torch.zeros(1)}
    assert need_of(one, num_examples=10) == Need(30 * PAGE + PAGE, 2)


def test_the_limits_of_this_machine_are_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: os.PathLike
) -> None:
    small = os.statvfs_result((4096, 4096, 100, 64, 64, 10, 10, 10, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda path: small)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: f"/{'long' * 30}")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (24, hard))
    try:
        limits = read_limits()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert limits.shared_bytes == 64 * 4096 / 2
    assert limits.num_descriptors == 0
    assert "too long" in str(limits.temporary)


def test_without_room_for_workers_the_items_are_read_in_this_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(workers, "read_limits", lambda: Limits(shared_bytes=64_000))
    items = prepared(need=NEED)
    assert not items._processes
    assert [int(item[0]) for item in items] == [0, 1, 2, 3, 4]


def test_workers_that_cannot_be_started_are_done_without(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", refuse)
    assert len(list(prepared())) == 5
    assert "Resource temporarily unavailable" in caplog.text


@pytest.mark.parametrize(
    ("action", "cause"),
    [("be killed", "lack of memory"), ("use all descriptors", "Too many open files")],
)
def test_a_worker_that_dies_is_an_error_that_names_the_cause(action: str, cause: str) -> None:
    before = signal.getsignal(signal.SIGCHLD)
    items = prepared(action)
    assert signal.getsignal(signal.SIGCHLD) == before
    with pytest.raises(WorkerError, match=rf"(?s){cause}.*num_workers"):
        list(items)
    assert next(items, None) is None


class Megabytes(Dataset[bytes]):
    """Items larger than a pipe holds, which begin with the process that made them."""

    def __getitem__(self, index: int) -> bytes:
        return f"{os.getpid()} ".encode() + bytes(2**20)


def _iterate_without_end(pids: "multiprocessing.SimpleQueue[int]") -> None:
    loader = Prepared(Megabytes(), range(1000), num_workers=2, prefetch=2)
    for item in (next(loader), next(loader)):
        pids.put(int(item[:20].split()[0]))
    time.sleep(100)


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_workers_with_items_to_send_end_with_a_parent_that_is_killed() -> None:
    context = multiprocessing.get_context("fork")
    pids = context.SimpleQueue()
    parent = context.Process(target=_iterate_without_end, args=(pids,))
    parent.start()
    found = [pids.get(), pids.get()]
    parent.kill()
    parent.join()
    deadline = time.monotonic() + 12  # torch's own watch takes five seconds
    while any(map(_is_running, found)) and time.monotonic() < deadline:
        time.sleep(0.05)
    alive = [pid for pid in found if _is_running(pid)]
    for pid in alive:
        os.kill(pid, signal.SIGKILL)
    assert alive == []


def test_a_worker_that_hangs_is_killed_when_the_loader_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(workers, "PATIENCE", 0.2)
    items = prepared("hang")
    [process] = items._processes
    assert HANGS.wait(10)
    start = time.monotonic()
    items.close()
    assert time.monotonic() - start < 4
    process.join(10)  # dying can take a busy machine longer than the patience above
    assert process.exitcode == -signal.SIGKILL
