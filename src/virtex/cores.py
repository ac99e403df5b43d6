"""The processor cores that this process may use, as the system and its containers limit them."""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

ROOT = Path("/")


def processors() -> set[int]:
    """Return the numbers of the processors that this process may run on, hardware threads each."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def num_cores(allowed: Iterable[int] | None = None, *, root: Path = ROOT) -> int:
    """Return the number of physical cores that this process may use, at least 1.

    Hardware threads of one core count once; a container's quota of processor time is a limit.

    Args:
        allowed: Numbers of the processors to count; None: those of this process.
        root: Folder that holds `proc` and `sys`.
    """
    allowed = processors() if allowed is None else allowed
    cores = {_core(processor, root) for processor in allowed}
    quota = min(_quotas(root), default=float(len(cores)))
    return max(1, min(len(cores), int(quota)))


def _core(processor: int, root: Path) -> str:
    """Return a name of the core of a processor: the list of the core's hardware threads."""
    topology = root / f"sys/devices/system/cpu/cpu{processor}/topology/thread_siblings_list"
    try:
        return topology.read_text().strip()
    except OSError:  # not Linux, or hidden in this container
        return str(processor)


def _quotas(root: Path) -> Iterator[float]:
    """Yield each limit of processor time that cgroups set, in processors."""
    with suppress(OSError, ValueError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "cpu" not in controllers.split(","):
                continue
            base = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
            folder = Path(path.lstrip("/"))
            for part in (folder, *folder.parents):  # a limit of a group binds the groups in it
                yield from _limits(base / part)


def _limits(group: Path) -> Iterator[float]:
    """Yield the limit of a group, as version 2 or 1 of cgroups writes it."""
    with suppress(OSError, ValueError):
        quota, period = (group / "cpu.max").read_text().split()  # "max" is no number: no limit
        yield int(quota) / int(period)
    with suppress(OSError, ValueError):
        quota, period = ((group / f"cpu.cfs_{n}_us").read_text() for n in ("quota", "period"))
        if int(quota) > 0:
            yield int(quota) / int(period)
