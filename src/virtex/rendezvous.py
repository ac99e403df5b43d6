"""The meeting of a run's processes: who is waited for is said, and not for ever.

The store may outlive processes: torchrun keeps one over its restarts, with the keys of processes
that are gone, and no variable tells the attempts apart alike on all machines: each torchrun counts
its own restarts. So the first process calls the others by a random name, and only the keys under
the name of the newest call count.
"""

import json
import logging
import os
import time
import uuid
from datetime import timedelta

import torch.distributed
from torch._C._distributed_c10d import PrefixStore, Store, TCPStore

from virtex.errors import ConfigError, listing
from virtex.launcher import Launch, num_restarts

PATIENCE = timedelta(minutes=10)
PATIENCE_AFTER_RESTART = timedelta(minutes=3)
"""Longest wait for others where they have started once before."""
FIRST_REPORT, REPORT_EVERY = 5.0, 60.0
"""Seconds of silence at first, and between two messages."""
CONNECT = timedelta(seconds=10)
"""Longest single try to connect."""
CONNECT_TO_AGENT = timedelta(minutes=1)
"""Longest wait for a store that is served before this process is started."""
AGENT = "TORCHELASTIC_USE_AGENT_STORE"
"""Variable by which torchrun says that it serves the store itself."""
OWN_STORE = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"
"""Variable that, set to 1, keeps torchrun from it."""
LOCAL_HOST = "127.0.0.1"
CALL = "call"

log = logging.getLogger("virtex")


def meet(launch: Launch, *, patience: timedelta | None = None) -> Store:
    """Return the store through which all processes exchange addresses, when all have come.

    Args:
        patience: Longest wait; None: less after a restart.

    Raises:
        ConfigError: The store cannot be opened or reached, or some processes do not come.
    """
    if patience is None:
        patience = PATIENCE_AFTER_RESTART if num_restarts(os.environ) else PATIENCE
    deadline = time.monotonic() + patience.total_seconds()
    meeting = _Meeting(_open(launch, deadline), launch)
    report = time.monotonic() + FIRST_REPORT
    while not meeting.is_complete():
        where = f"{launch.world_size} processes at {launch.host}:{launch.port}"
        if time.monotonic() > deadline:
            missing = meeting.missing()
            raise ConfigError(
                f"{len(missing)} of {where} did not come within {patience.total_seconds():g} s "
                f"(rank {listing(missing, limit=8)}). Check that all were started and can reach "
                "that address, or unset the variables of torchrun (RANK, WORLD_SIZE) to train in "
                "one process."
            )
        if time.monotonic() > report and launch.rank == 0:
            missing = meeting.missing()
            names = listing(missing, limit=8)
            log.info("waiting for %d of %s (rank %s)", len(missing), where, names)
            report += REPORT_EVERY
        time.sleep(0.05)
    return meeting.store()


class _Meeting:
    """One process's part in the meeting.

    The first process sets `call` to a random name; rank r answers under `NAME/here/r` with a random
    number of its own, and when all have, the first one sets `NAME/all` to their numbers. A process
    whose number is missing there was too late for that meeting, and waits for the next call.
    """

    def __init__(self, store: Store, launch: Launch) -> None:
        self._store, self._launch = PrefixStore("virtex", store), launch
        self._own = uuid.uuid4().hex
        self._name, self._missing = "", [0]
        if launch.rank == 0:
            self._answer(self._own)
            self._store.set(CALL, self._name)

    def store(self) -> Store:
        """Return the part of the store that is this meeting's."""
        return PrefixStore(self._name, self._store)

    def is_complete(self) -> bool:
        """Answer a new call, and return whether all have answered it."""
        if self._launch.rank == 0:
            if self._left():
                return False
            self._announce()
            return True
        if self._store.check([CALL]):
            name = self._store.get(CALL).decode()
            if name != self._name:
                self._answer(name)
            if self._store.check([f"{name}/all"]):
                come = json.loads(self._store.get(f"{name}/all"))
                return self._launch.rank < len(come) and come[self._launch.rank] == self._own
        return False

    def missing(self) -> list[int]:
        """Return the ranks that have not answered the newest call; the first if it must call."""
        return self._left() or [0]

    def _left(self) -> list[int]:
        if self._name:
            check = self._store.check
            self._missing = [rank for rank in self._missing if not check([self._key(rank)])]
        return self._missing

    def _answer(self, name: str) -> None:
        self._name, self._missing = name, list(range(self._launch.world_size))
        self._store.set(self._key(self._launch.rank), self._own)

    def _announce(self) -> None:
        ranks = range(self._launch.world_size)
        come = [self._store.get(self._key(rank)).decode() for rank in ranks]
        self._store.set(f"{self._name}/all", json.dumps(come))

    def _key(self, rank: int) -> str:
        return f"{self._name}/here/{rank}"


def serve() -> TCPStore:
    """Return a store that this process serves to others of its machine, on a free port.

    They set AGENT to "True".
    """
    return TCPStore(LOCAL_HOST, 0, is_master=True, wait_for_workers=False)


def _open(launch: Launch, deadline: float) -> Store:
    """Serve the store, or connect to the process that does."""
    of_agent = os.environ.get(AGENT) == "True"
    serves = launch.rank == 0 and not of_agent
    if of_agent:
        deadline = min(deadline, time.monotonic() + CONNECT_TO_AGENT.total_seconds())
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
                raise ConfigError(_unreachable(where, reason, serves=serves)) from error
            if time.monotonic() > report:
                log.info("waiting for the first process at %s", where)
                report += REPORT_EVERY
            time.sleep(0.1)


def _unreachable(where: str, reason: str, *, serves: bool) -> str:
    if os.environ.get(AGENT) == "True":
        return (
            f"cannot reach torchrun's store at {where}: {reason}. If the machine of the first "
            f"process was replaced, torchrun goes on naming the old one: set {OWN_STORE}=1 for "
            "all torchruns, and start them again."
        )
    doing = "serve the other processes" if serves else "reach the first process"
    return (
        f"cannot {doing} at {where}: {reason}. Set MASTER_ADDR to the machine of the first "
        "process, and MASTER_PORT to a free port on it, alike for all."
    )
