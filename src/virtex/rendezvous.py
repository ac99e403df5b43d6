"""The meeting of a run's processes: who is waited for is said, and not for ever."""

import logging
import os
import time
from datetime import timedelta

import torch.distributed
from torch._C._distributed_c10d import PrefixStore, Store, TCPStore

from virtex.errors import ConfigError, listing
from virtex.launcher import Launch

PATIENCE = timedelta(minutes=10)
FIRST_REPORT, REPORT_EVERY = 5.0, 60.0
"""Seconds of silence at first, and between two messages."""
CONNECT = timedelta(seconds=10)
"""Longest single try to connect."""
AGENT = "TORCHELASTIC_USE_AGENT_STORE"
"""Variable by which torchrun says that it serves the store itself."""
LOCAL_HOST = "127.0.0.1"
ATTEMPT = "TORCHELASTIC_RESTART_COUNT"

log = logging.getLogger("virtex")


def meet(launch: Launch, *, patience: timedelta = PATIENCE) -> Store:
    """Return the store through which all processes exchange addresses, when all have come.

    Raises:
        ConfigError: The store cannot be opened or reached, or some processes do not come.
    """
    deadline = time.monotonic() + patience.total_seconds()
    store = PrefixStore(os.environ.get(ATTEMPT, "0"), _open(launch, deadline))
    store.set(f"here/{launch.rank}", "")
    others = {rank: f"here/{rank}" for rank in range(launch.world_size)}
    report = time.monotonic() + FIRST_REPORT
    while others := {r: key for r, key in others.items() if not store.check([key])}:
        where = f"{len(others)} of {launch.world_size} processes at {launch.host}:{launch.port}"
        ranks = f"rank {listing(others, limit=8)}"
        if time.monotonic() > deadline:
            raise ConfigError(
                f"{where} did not come within {patience.total_seconds():g} s ({ranks}). Check that "
                "all were started and can reach that address, or unset the variables of torchrun "
                "(RANK, WORLD_SIZE) to train in one process."
            )
        if time.monotonic() > report and launch.rank == 0:
            log.info("waiting for %s (%s)", where, ranks)
            report += REPORT_EVERY
        time.sleep(0.05)
    return store


def serve() -> TCPStore:
    """Return a store that this process serves to others of its machine, on a free port.

    They set AGENT to "True".
    """
    return TCPStore(LOCAL_HOST, 0, is_master=True, wait_for_workers=False)


def _open(launch: Launch, deadline: float) -> Store:
    """Serve the store, or connect to the process that does."""
    serves = launch.rank == 0 and os.environ.get(AGENT) != "True"
    report = time.monotonic() + FIRST_REPORT
    while True:
        left = timedelta(seconds=max(deadline - time.monotonic(), 1.0))
        try:
            return TCPStore(
                launch.host,
                launch.port,
                launch.world_size,
                is_master=serves,
                timeout=left if serves else min(left, CONNECT),
                wait_for_workers=False,
            )
        except (torch.distributed.DistError, RuntimeError, ValueError) as error:
            where = f"{launch.host}:{launch.port}"
            reason = str(error).strip().splitlines()[0]
            if serves or time.monotonic() > deadline:
                doing = "serve the other processes" if serves else "reach the first process"
                raise ConfigError(
                    f"cannot {doing} at {where}: {reason}. Set MASTER_ADDR to the machine of the "
                    "first process, and MASTER_PORT to a free port on it, alike for all."
                ) from error
            if time.monotonic() > report:
                log.info("waiting for the first process at %s", where)
                report += REPORT_EVERY
            time.sleep(0.1)
