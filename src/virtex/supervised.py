"""A process that `supervisor` started: how it begins, what it reports, and how it ends."""

import contextlib
import ctypes
import logging
import os
import pickle
import signal
import socket
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, TypeVar

from virtex.errors import VirTexError
from virtex.launcher import Launch, variables_of
from virtex.rendezvous import AGENT, LOCAL_HOST

Argument = TypeVar("Argument")
PR_SET_PDEATHSIG = 1
"""Number of Linux's call that ends a process when the one that started it dies."""


class End(NamedTuple):
    """The end of a process's work."""

    value: Any = None
    error: BaseException | None = None


class Said(NamedTuple):
    """A message that a process logs."""

    level: int
    text: str


class Place(NamedTuple):
    """What a process must know to take its place among the others."""

    rank: int
    world_size: int
    num_threads: int
    pipe: Connection
    """Its connection to the process that started it."""
    parent: int
    """Process number of that one."""
    handled: tuple[int, ...]
    """Signals that are blocked at the start."""


def work(function: Callable[[Argument], object], argument: Argument, place: Place) -> None:
    """Call a function as one of several processes, and report its value or error."""
    _leave_signals_to_parent(place)
    send = _Sender(place)
    log = logging.getLogger("virtex")
    log.handlers, log.propagate = [send], False
    log.setLevel(logging.INFO if place.rank == 0 else logging.WARNING)
    if place.rank > 0:
        warnings.simplefilter("ignore")  # the first process gives the same
    _join(place, port=place.pipe.recv())
    send.send(_end(function, argument, place.rank))


def _leave_signals_to_parent(place: Place) -> None:
    """Take the signals of the parent alone, as one of which its death counts."""
    os.setsid()  # away from the terminal, whose signals go to the whole group
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != place.parent:
            os._exit(1)
    for number in place.handled:
        default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, default)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, place.handled)


def _join(place: Place, *, port: int) -> None:
    """Set what `distributed` reads, and the number of threads."""
    import torch  # in a forked process it is there already

    rank, world_size = place.rank, place.world_size
    os.environ |= variables_of(Launch(rank, world_size, rank, world_size, LOCAL_HOST, port))
    os.environ[AGENT] = "True"
    with contextlib.suppress(OSError):  # else gloo asks the network for this machine's address
        socket.if_nametoindex("lo")
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(place.num_threads)


def _end(function: Callable[[Argument], object], argument: Argument, rank: int) -> End:
    """Return the value or the error of a function, such that both can be sent."""
    try:
        value = function(argument)
        end = End(value if rank == 0 else None)
    except BaseException as error:
        if not isinstance(error, VirTexError | KeyboardInterrupt | SystemExit):
            error.add_note(f"in process {rank} of the run:\n{traceback.format_exc()}")
        end = End(error=error)
    try:
        pickle.loads(pickle.dumps(end))
    except Exception:
        kind = VirTexError if isinstance(end.error, VirTexError) else RuntimeError
        end = End(error=kind("\n".join([str(end.error), *getattr(end.error, "__notes__", [])])))
    return end


class _Sender(logging.Handler):
    """A log handler that sends messages to the parent; worker processes write them on stderr."""

    def __init__(self, place: Place) -> None:
        super().__init__()
        self._pipe, self._owner, self._lock_of_pipe = place.pipe, os.getpid(), threading.Lock()

    def emit(self, record: logging.LogRecord) -> None:
        if os.getpid() == self._owner:
            self.send(Said(record.levelno, self.format(record)))
        else:
            print(self.format(record), file=sys.stderr, flush=True)

    def send(self, message: End | Said) -> None:
        """Send a message, or lose it if the parent has gone."""
        with self._lock_of_pipe, contextlib.suppress(OSError):
            self._pipe.send(message)
