"""Processes that a command starts to share its work, from their start to one outcome.

torch's elastic launcher is not used: when one process fails it ends the others at once, in the
middle of a checkpoint too, surrounds their messages with its own report, and outlives none that
must be killed with it. Here each child leads a session, so that a terminal's signals reach this
process alone; it is killed if this process dies, and sends what it logs and how it ended.
"""

import contextlib
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any, Self, TypeVar, cast

from virtex import rendezvous
from virtex.errors import LostProcessError, VirTexError
from virtex.processes import OPTION, Team
from virtex.supervised import End, Place, Said, work

Argument = TypeVar("Argument")
Item = TypeVar("Item")
FORWARDED = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
"""Signals that end a run: the first two always, the others where they would end Python."""
SAME = 1.0
"""Seconds in which further signals count as the first, as from a terminal and a parent."""
PATIENCE, PATIENCE_WHEN_STOPPED, PATIENCE_AT_SECOND = 60.0, 5.0, 10.0
"""Seconds in which the others may end after a failure or the first's end; after a signal ended the
first; and in which all must end after a second signal."""
POLL = 0.1

log = logging.getLogger("virtex")


class DeadProcessError(VirTexError):
    """A process ended without a report, as when the system kills it."""


@dataclass
class Child:
    """A process that does a part of the work."""

    rank: int
    process: BaseProcess
    pipe: Connection
    end: End | None = None
    is_killed: bool = False
    """Whether this process killed it."""
    over_since: float = float("inf")
    """Time at which it had ended or reported its end."""

    @property
    def has_failed(self) -> bool:
        """Whether it died, or reported an error."""
        return self.over_since < float("inf") and (self.end is None or self.end.error is not None)

    def signal(self, number: int, *, with_workers: bool = False) -> None:
        """Send a signal, to its worker processes too if it is `with_workers`."""
        if self.process.pid is not None and self.process.exitcode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                (os.killpg if with_workers else os.kill)(self.process.pid, number)

    def kill(self) -> None:
        """Kill it and its workers."""
        if self.process.exitcode is None:
            self.is_killed = self.over_since == float("inf")
            self.signal(signal.SIGKILL, with_workers=True)
            self.process.kill()
        self.process.join()


def spread(function: Callable[[Argument], Item], argument: Argument, team: Team | None) -> Item:
    """Return the value of a function in the first process of a team, which all call it.

    Args:
        function: A function of a module that lets processes meet by `distributed.process_group`.
        team: Processes to start; for None or one, this process calls the function itself.

    Raises:
        BaseException: The error of the process that failed first.
        VirTexError: A process died.
    """
    if team is not None and (team.number > 1 or team.reason):
        log.info("%-11s %s", "processes", team)
    if team is None or team.number == 1:
        return function(argument)
    with _Signals() as signals, _started(function, argument, team, signals) as children:
        _supervise(children, signals)
        return cast(Item, _outcome(children, signals))


class _Signals:
    """Context that passes signals on to the first child, which lets all stop after the same step.

    It does nothing outside the main thread, where Python handles no signals.
    """

    def __init__(self) -> None:
        self.children: Sequence[Child] = ()
        self.number, self.first, self.second = 0, 0.0, 0.0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for name in FORWARDED:
                self._handle(name, self._forward, always=name in FORWARDED[:2])
            self._handle("SIGTSTP", self._suspend, always=False)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, name: str, handler: Callable[..., None], *, always: bool) -> None:
        number = getattr(signal, name, None)
        if number is not None and (always or signal.getsignal(number) is signal.SIG_DFL):
            self._previous[number] = signal.signal(number, handler)

    @property
    def numbers(self) -> tuple[int, ...]:
        """The signals that are handled."""
        return tuple(self._previous)

    @contextlib.contextmanager
    def blocked(self) -> Iterator[None]:
        """Let signals wait during the block, and in processes that it starts."""
        signal.pthread_sigmask(signal.SIG_BLOCK, self.numbers)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, self.numbers)

    def _forward(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if now < self.first + SAME:
            return
        self.first, self.second = self.first or now, now if self.first else 0.0
        self.number = self.number or number
        for child in self.children[:1]:
            child.signal(number)

    def _suspend(self, number: int, frame: FrameType | None) -> None:
        """Stop and continue the children with this process, for a shell's Ctrl-Z and fg."""
        for child in self.children:
            child.signal(signal.SIGSTOP, with_workers=True)
        os.kill(os.getpid(), signal.SIGSTOP)
        for child in self.children:
            child.signal(signal.SIGCONT, with_workers=True)


@contextlib.contextmanager
def _started(
    function: Callable[[Argument], object], argument: Argument, team: Team, signals: _Signals
) -> Iterator[list[Child]]:
    """Start the processes of a team; all have ended after the block."""
    children: list[Child] = []
    try:
        with signals.blocked(), _num_threads(team.num_threads):
            for rank in range(team.number):
                children.append(_start(function, argument, rank, team, signals.numbers))
            signals.children = children
        store = rendezvous.serve()
        for child in children:
            with contextlib.suppress(OSError):  # it has died
                child.pipe.send(store.port)
        yield children
    finally:
        for child in children:
            child.kill()
            child.pipe.close()


def _start(
    function: Callable[[Argument], object],
    argument: Argument,
    rank: int,
    team: Team,
    handled: tuple[int, ...],
) -> Child:
    # A fork saves importing torch again, 5 s of processor time. It has neither the threads of
    # OpenMP nor a GPU that this process may have used.
    can_fork = sys.platform == "linux" and team.num_threads == 1 and not team.on_gpus
    context: Any = multiprocessing.get_context("fork" if can_fork else "spawn")
    pipe, other = context.Pipe()
    place = Place(rank, team.number, team.num_threads, other, os.getpid(), handled)
    process = context.Process(target=work, args=(function, argument, place))
    process.start()
    other.close()
    return Child(rank, process, pipe)


@contextlib.contextmanager
def _num_threads(number: int) -> Iterator[None]:
    """Set the variable that gives the number of threads, for processes that the block starts."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(number)
    try:
        yield
    finally:
        del os.environ["OMP_NUM_THREADS"]
        if before is not None:
            os.environ["OMP_NUM_THREADS"] = before


def _supervise(children: Sequence[Child], signals: _Signals) -> None:
    """Wait until all children have ended, and log what they say.

    If one fails, or the first ends, those that take too long to end as well are killed.
    """
    shown: Counter[str] = Counter()
    said: dict[int, Counter[str]] = defaultdict(Counter)
    are_running = True
    while are_running:
        wait([child.pipe for child in children if child.process.exitcode is None], POLL)
        codes, now = [child.process.exitcode for child in children], time.monotonic()
        for child, code in zip(children, codes, strict=True):
            for message in _received(child.pipe):
                if isinstance(message, End):
                    child.end = message
                else:
                    _show(message, said[child.rank], shown)
            if code is not None or child.end is not None:
                child.over_since = min(child.over_since, now)
        are_running = None in codes
        if are_running and now > _deadline(children, signals):
            for child in children:
                child.kill()


def _received(pipe: Connection) -> Iterator[End | Said]:
    with contextlib.suppress(EOFError, OSError):  # the other end is closed
        while pipe.poll():
            yield pipe.recv()


def _show(message: Said, own: Counter[str], shown: Counter[str]) -> None:
    """Log a message, unless another process has said the same."""
    own[message.text] += 1
    if own[message.text] > shown[message.text]:
        shown[message.text] += 1
        log.log(message.level, "%s", message.text)


def _deadline(children: Sequence[Child], signals: _Signals) -> float:
    """Return the time at which those that still run are killed."""
    times = [child.over_since + PATIENCE for child in children if child.has_failed]
    patience = PATIENCE_WHEN_STOPPED if signals.first else PATIENCE
    times.append(children[0].over_since + patience)
    if signals.second:
        times.append(signals.second + PATIENCE_AT_SECOND)
    return min(times)


def _outcome(children: Sequence[Child], signals: _Signals) -> Any:
    """Return the value of the first child, or raise the error that came first."""
    first = children[0]
    if first.end is None and signals.number:
        raise SystemExit(max(first.process.exitcode or 0, 0) or 128 + signals.number)
    failed = [child for child in children if child.has_failed and not child.is_killed]
    if first.end is not None and (signals.number or not failed):
        failed = [first] if first.has_failed else []
    if not failed:
        return cast(End, first.end).value
    cause = min(failed, key=_precedence)
    raise _death(cause) if cause.end is None else cast(BaseException, cause.end.error)


def _precedence(child: Child) -> tuple[bool, float, bool, int]:
    """Return a key that is least for the failure that caused the others."""
    is_consequence = child.end is not None and isinstance(child.end.error, LostProcessError)
    return is_consequence, child.over_since, child.end is not None, child.rank


def _death(child: Child) -> DeadProcessError:
    """Return the error for a child that ended without a report."""
    code = child.process.exitcode or 0
    if code == -signal.SIGKILL:
        how = "was killed, most likely by the system for lack of memory"
    elif code < 0:
        how = f"was ended by {signal.Signals(-code).name}"
    else:
        how = f"ended with exit code {code}"
    return DeadProcessError(
        f"process {child.rank} of the run (process number {child.process.pid}) {how}. Lower the "
        f"batch size, the worker processes or {OPTION}, or give the run more memory; the same "
        "command goes on from what was saved"
    )
