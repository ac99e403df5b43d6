"""Needs of worker processes, compared with what the system has free."""

import functools
import logging
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from virtex import distributed

try:
    import resource
except ImportError:  # not Unix
    resource = None  # type: ignore[assignment]

SHARED_MEMORY = Path("/dev/shm")
PAGE = 4096
SHARED_FRACTION = 0.5
"""Fraction of the free shared memory for one loader: training and validation have one each."""
LONGEST_SOCKET = 107 - len("/pymp-xxxxxxxx/listener-xxxxxxxx")
"""Longest name of a temporary folder in which workers can open a socket."""
NUM_SPARE = 32
"""File descriptors left to the rest of the process."""

log = logging.getLogger("virtex")


class Need(NamedTuple):
    """The size of one item that a worker sends."""

    num_bytes: int
    num_tensors: int


class Limits(NamedTuple):
    """What the system has free for one loader; None where it sets no limit."""

    shared_bytes: int | None = None
    num_descriptors: int | None = None
    temporary: str | None = None
    """A problem with temporary files, which workers need."""


def need_of(batch: Mapping[str, Tensor], *, num_examples: int) -> Need:
    """Return the size of a batch of `num_examples`, given one of a single example."""
    sizes = [tensor.nbytes * num_examples for tensor in batch.values()]
    return Need(sum(-(-size // PAGE) * PAGE for size in sizes), len(sizes))


def read_limits() -> Limits:
    """Return what this machine has free for one loader of one process of the run."""
    return Limits(_free_shared_bytes(), _num_free_descriptors(), _temporary_problem())


def _free_shared_bytes() -> int | None:
    if not SHARED_MEMORY.is_dir():
        return None
    free = os.statvfs(SHARED_MEMORY)
    return int(free.f_bavail * free.f_frsize * SHARED_FRACTION) // distributed.num_on_machine()


def _num_free_descriptors() -> int | None:
    if resource is None:
        return None
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return None
    try:
        num_open = len(list(Path("/dev/fd").iterdir()))
    except OSError:  # no descriptor is left to list them, or there is no such folder
        num_open = NUM_SPARE
    return max(limit - num_open - NUM_SPARE, 0)


def _temporary_problem() -> str | None:
    try:
        folder = tempfile.gettempdir()
    except OSError as error:
        return f"{error.strerror or error}"
    if len(os.fsencode(folder)) > LONGEST_SOCKET:
        return f"the name of the folder {folder} is too long for a socket"
    return None


def fitting(num_workers: int, prefetch: int, need: Need | None, limits: Limits) -> tuple[int, int]:
    """Return the largest number of workers, and of items that each prepares, within the limits.

    A warning says what is lacking if that is less than `num_workers` and `prefetch`.
    """
    need = need or Need(0, 1)
    choices = [(num_workers, ahead) for ahead in range(prefetch, 0, -1)]
    choices += [(number, 1) for number in range(num_workers - 1, 0, -1)]
    problems = _problems(num_workers, prefetch, need, limits)
    if not problems:
        return num_workers, prefetch
    fits = [(n, p) for n, p in choices if not _problems(n, p, need, limits)]
    chosen = fits[0] if fits else (0, 1)
    means = f"with {chosen[0]} workers and prefetch {chosen[1]}" if fits else "without workers"
    _warn_once(f"{'; '.join(problems)}: reading {means}, which gives the same batches more slowly")
    return chosen


@functools.cache
def _warn_once(message: str) -> None:
    log.warning(message)


def _problems(num_workers: int, prefetch: int, need: Need, limits: Limits) -> list[str]:
    """Return what is lacking for the workers, with the remedy."""
    asked = f"{num_workers} workers with prefetch {prefetch} need"
    problems = []
    num_items = num_workers * prefetch + 1
    num_bytes = num_items * need.num_bytes + (16 + 4 * num_workers) * PAGE  # and semaphores
    if limits.shared_bytes is not None and num_bytes > limits.shared_bytes:
        problems.append(
            f"{asked} {_mb(num_bytes)} of shared memory, and {_mb(limits.shared_bytes)} of "
            f"{SHARED_MEMORY} are free for them (enlarge it, as by docker run --shm-size 2g, or "
            "lower loader.num_workers, loader.prefetch or the batch size)"
        )
    descriptors = 8 + 4 * num_workers + need.num_tensors * (num_items + 1)
    if limits.num_descriptors is not None and descriptors > limits.num_descriptors:
        problems.append(
            f"{asked} {descriptors} file descriptors, and {limits.num_descriptors} are free for "
            "them (raise the limit by ulimit -n 4096, or lower loader.num_workers or "
            "loader.prefetch)"
        )
    if limits.temporary is not None:
        problems.append(
            f"workers need temporary files: {limits.temporary} (name another folder by TMPDIR)"
        )
    return problems


def _mb(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:,.1f} MB"
