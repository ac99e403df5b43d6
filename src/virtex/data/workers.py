"""Worker processes that prepare items, such as batches, ahead of the process that uses them.

Workers send tensors through shared memory, and take file descriptors, processes and threads. Where
the system has too few of these, fewer workers or none are started, and a warning says so: what they
prepare does not depend on their number. A worker that dies is an error that names the likely cause.
"""

import _thread
import atexit
import errno
import logging
import multiprocessing
import multiprocessing.queues
import os
import signal
import threading
import time
import warnings
import weakref
from collections.abc import Iterable, Iterator
from contextlib import suppress
from multiprocessing.process import BaseProcess
from typing import Any, Generic, Self, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from virtex.data.worker_limits import Need, fitting, read_limits
from virtex.errors import VirTexError

Item = TypeVar("Item")
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
"""Signals that a terminal or a scheduler sends to all processes of a run, to end it."""
POLL = 1.0
"""Seconds between two looks of a worker whether its parent lives."""
PATIENCE = 5.0
"""Seconds for which workers may end by themselves before they are killed."""
REMEDY = "Lower loader.num_workers, loader.prefetch or the batch size, or give the run more memory"
_NUMBERS = (errno.ENOSPC, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EACCES)
"""Errors of the system that are the exit code of a worker which cannot send an item."""

log = logging.getLogger("virtex")
_started: "weakref.WeakSet[BaseProcess]" = weakref.WeakSet()


class WorkerError(VirTexError):
    """A worker process that died, or that the system cannot serve any more."""


class Prepared(Generic[Item]):
    """An iterator over a data set's items, which workers prepare in the order of `indices`.

    Args:
        indices: Arguments of the data set's `__getitem__`, one per item.
        num_workers: Number of worker processes; 0 prepares items in this process.
        prefetch: Items that each worker prepares ahead.
        need: Size of one item; None if it is unknown.
        remedy: What to do if a worker dies.
    """

    def __init__(
        self,
        dataset: Dataset[Item],
        indices: Iterable[Any],
        *,
        num_workers: int,
        prefetch: int,
        need: Need | None = None,
        pin_memory: bool = False,
        remedy: str = REMEDY,
    ) -> None:
        self._dataset, self._indices, self._pin_memory = dataset, indices, pin_memory
        self._remedy = remedy
        self._processes: list[BaseProcess] = []
        self._killing = threading.Lock()
        self._iterator: Iterator[Item] | None = None
        if num_workers:
            num_workers, prefetch = fitting(num_workers, prefetch, need, read_limits())
        try:
            self._start(num_workers, prefetch)
        except (OSError, MemoryError, RuntimeError) as error:
            if not num_workers or (type(error) is RuntimeError and "thread" not in str(error)):
                raise
            log.warning("no worker processes can be started (%s): reading in this process", error)
            self._start(0, 1)

    def _start(self, num_workers: int, prefetch: int) -> None:
        with warnings.catch_warnings():  # torch's opinion on the number of workers
            warnings.filterwarnings("ignore", "This DataLoader will create")
            loader = DataLoader(
                self._dataset,
                batch_size=None,  # an item of the data set is a batch already
                sampler=self._indices,
                num_workers=num_workers,
                prefetch_factor=prefetch if num_workers else None,
                collate_fn=_unchanged,
                worker_init_fn=prepare_worker,
                pin_memory=self._pin_memory,
                generator=torch.Generator().manual_seed(0),  # torch would draw from the global one
            )
            self._iterate(loader)

    def _iterate(self, loader: DataLoader[Item]) -> None:
        before = set(multiprocessing.active_children())
        try:
            self._iterator = _without_handler(loader)
        finally:
            self._processes = [p for p in multiprocessing.active_children() if p not in before]
            _started.update(self._processes)
            if self._iterator is None:
                self._kill()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Item:
        if self._iterator is None:
            raise StopIteration
        try:
            return next(self._iterator)
        except (RuntimeError, OSError, EOFError) as error:
            problem = self._problem(error) if self._processes else None
            if problem is None:
                raise
            self._kill()
            self.close()
            raise WorkerError(problem) from error

    def _problem(self, error: Exception) -> str | None:
        """Describe the death of a worker, or the lack of descriptors; None for another error."""
        if "Too many open files" in str(error):
            return (
                "this process has too many open files to read from its workers. Raise the limit "
                "(ulimit -n 4096), or lower loader.num_workers"
            )
        if "Caught" in str(error):  # raised by the data set within a living worker
            return None
        for process in self._processes:
            process.join(1.0 / len(self._processes))  # it may be about to end
        codes = {p.pid: p.exitcode for p in self._processes if p.exitcode}
        if not codes:
            return None
        pid, code = next(iter(codes.items()))
        return f"worker process {pid} {_cause(code)}. {self._remedy}"

    def close(self) -> None:
        """End the workers, and the iteration; a worker that does not end is killed."""
        ended = threading.Event()
        if self._processes:
            with suppress(RuntimeError):  # no thread can be started
                # threading's Thread.start would wait for ever at Python's end or without memory
                _thread.start_new_thread(self._kill_later, (ended,))
        self._iterator = None  # torch's iterator ends its workers when it is dropped
        ended.set()
        self._kill()
        self._processes = []

    def _kill_later(self, ended: threading.Event) -> None:
        if not ended.wait(PATIENCE):
            self._kill()

    def _kill(self) -> None:
        # Of two threads that wait for a process, the one that does not get its exit code sees None
        is_alone = self._killing.acquire(timeout=PATIENCE)
        try:
            for process in self._processes:
                if process.is_alive():
                    process.kill()
                    process.join(PATIENCE)
        finally:
            if is_alone:
                self._killing.release()

    def __del__(self) -> None:
        if getattr(self, "_processes", None):
            self._kill()


def prepare_worker(worker: int) -> None:
    """Let a worker leave signals to its parent, and end rather than lose an item.

    A trainer needs its workers to finish a step. They end when it drops them or, if it dies, within
    seconds; without a watch, one with more items to send than a pipe holds would never end. An item
    that cannot be sent would otherwise be dropped, and the parent wait for ever.
    """
    del worker
    for name in SIGNALS:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    with suppress(RuntimeError):  # no thread can be started
        threading.Thread(target=_end_without, args=(os.getppid(),), daemon=True).start()
    queue: Any = multiprocessing.queues.Queue
    queue._on_queue_feeder_error = staticmethod(_end_worker)


def _end_without(parent: int) -> None:
    """End this process once `parent` has died."""
    while os.getppid() == parent:
        time.sleep(POLL)
    os._exit(1)


def _end_worker(error: Exception, item: object) -> None:
    """End this worker with an exit code that tells why its item cannot be sent."""
    del item
    code = error.errno if isinstance(error, OSError) and error.errno else 1
    for number in _NUMBERS:  # torch raises a RuntimeError that ends with the system's message
        if os.strerror(number) in str(error):
            code = number
    if code == 1:
        os.write(2, f"worker: {type(error).__name__}: {error}\n".encode())
    os._exit(code)


def _cause(code: int) -> str:
    if code == -signal.SIGKILL:
        return "was killed, most likely by the system for lack of memory"
    if code == -signal.SIGBUS:
        return "was ended by SIGBUS, most likely because the shared memory (/dev/shm) is full"
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    if code in _NUMBERS:
        return f"could not send a batch: {os.strerror(code)}"
    return f"ended with exit code {code}; its message stands above"


def _without_handler(loader: DataLoader[Item]) -> Iterator[Item]:
    """Start iterating without torch's handler of SIGCHLD.

    It would raise the error of a dead worker in the middle of a training step. Waiting for an item
    finds a dead worker too, within five seconds.
    """
    if not hasattr(signal, "SIGCHLD") or threading.current_thread() is not threading.main_thread():
        return iter(loader)
    before = signal.getsignal(signal.SIGCHLD)
    try:
        return iter(loader)
    finally:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL if before is None else before)


def _unchanged(item: Any) -> Any:
    return item


@atexit.register
def kill_all() -> None:
    """Kill the workers that still run, since Python waits at its end for all of them."""
    for process in list(_started):
        with suppress(ValueError, AssertionError):  # closed, or started by a parent of this process
            if process.is_alive():
                process.kill()
