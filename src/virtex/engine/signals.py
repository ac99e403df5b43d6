"""Graceful stop: a signal lets the current step finish and a checkpoint be written.

The state of training is whole between two steps, so waiting for a batch is cut short. A process
that does not get there, since a step waits for a lost process or device, is ended after a bound.
"""

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import Any, Self, TypeVar

from virtex import distributed
from virtex.data.workers import SIGNALS, kill_all

Item = TypeVar("Item")
ALWAYS = ("SIGTERM", "SIGINT")
"""Signals that are noted whatever handler they had; of the others, those that would end Python."""
SAME = 1.0
"""Seconds in which further signals count as the first: torchrun repeats those of the terminal."""
BOUND, LONGEST_BOUND, SAVING_BOUND = 30.0, 300.0, 600.0
"""Seconds after a signal within which a step must finish, at least and at most, and a save."""
SECOND_BOUND = 5.0
"""Seconds after a second signal within which the process must end."""
EXIT_CODE = 143


class StopRequested(BaseException):
    """A signal while waiting for a batch; no other code may take it for an error."""


class StopSignals:
    """Context that notes the first signal in `requested`; one that comes later acts at once.

    It does nothing outside the main thread, where Python handles no signals.
    """

    def __init__(self) -> None:
        self.requested = False
        self.is_saving = False
        self.has_cut = False
        """Whether a signal has ended the items of `each` before the last one."""
        self._first = self._waiting = 0.0
        self._previous: dict[int, Any] = {}
        self._watch: _Watch | None = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            numbers = [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]
            for number in numbers:
                if number.name in ALWAYS or signal.getsignal(number) is signal.SIG_DFL:
                    self._previous[number] = signal.signal(number, self._note)
            with contextlib.suppress(OSError, RuntimeError):  # no descriptor or thread is left
                self._watch = _Watch(self, frozenset(self._previous))
        return self

    def __exit__(self, *error: object) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def next(self, read: Callable[[], Item]) -> Item | None:
        """Return `read()`, or None as soon as a signal was noted."""
        try:
            try:
                self._waiting = True
                return None if self.requested else read()
            finally:
                self._waiting = False
        except StopRequested:
            self._waiting = False
            return None

    def each(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield items, none of them None, and tell with each that work goes on.

        A signal ends them and sets `has_cut`, but not where several processes have items: each has
        its own number of them, and the others wait for it.
        """
        remaining, is_alone = iter(items), distributed.world_size() == 1
        while (item := self._next(remaining, is_alone=is_alone)) is not None:
            self.beat()
            yield item
        self.has_cut = self.has_cut or (is_alone and self.requested)

    def _next(self, remaining: Iterator[Item], *, is_alone: bool) -> Item | None:
        if is_alone:
            return self.next(lambda: next(remaining, None))
        return next(remaining, None)

    def beat(self) -> None:
        """Report that work goes on."""
        if self._watch is not None:
            self._watch.beat()

    @contextlib.contextmanager
    def saving(self) -> Iterator[None]:
        """Within it training waits for a file, for which a signal leaves more time than a step."""
        before, self.is_saving = self.is_saving, True
        try:
            yield
        finally:
            self.beat()
            self.is_saving = before

    def _note(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if not self.requested:
            self.requested, self._first = True, time.monotonic()
            say(f"{name}: finishing the step and writing a checkpoint.")
            if self._waiting:
                self._waiting = False
                raise StopRequested
        elif time.monotonic() - self._first > SAME:
            self._restore()
            say(f"{name} again: leaving without another checkpoint.")
            raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(EXIT_CODE)


class _Watch(threading.Thread):
    """A thread that hears of signals though the main thread may wait within a C function."""

    def __init__(self, stop: StopSignals, numbers: frozenset[int]) -> None:
        super().__init__(daemon=True, name="signals")
        self.stop, self.numbers = stop, numbers
        self.last_beat, self.longest = time.monotonic(), 0.0
        self.reader, self.writer = socket.socketpair()
        self.writer.setblocking(False)
        try:
            self.start()
        except RuntimeError:
            self.reader.close()
            self.writer.close()
            raise
        self.previous = signal.set_wakeup_fd(self.writer.fileno(), warn_on_full_buffer=False)

    def beat(self) -> None:
        now = time.monotonic()
        self.longest, self.last_beat = max(self.longest, now - self.last_beat), now

    def bound(self) -> float:
        """Return the seconds of patience: more for runs of slow steps."""
        if self.stop.is_saving:
            return SAVING_BOUND
        return min(BOUND + 2 * self.longest, LONGEST_BOUND)

    def run(self) -> None:
        first = second = 0.0
        while True:
            self.reader.settimeout(0.5 if first else None)
            try:
                received = self.reader.recv(100)
            except TimeoutError:
                received = b" "
            except OSError:
                return
            if b"\0" in received or not received:
                return
            now = time.monotonic()
            if self.numbers & set(received):
                first, second = first or now, now if first and now - first > SAME else second
            if first and now > max(first, self.last_beat) + self.bound():
                what = "no checkpoint was written" if self.stop.is_saving else "no step finished"
                self._leave(f"{what} within {self.bound():.0f} s of the signal")
            if second and now > second + SECOND_BOUND:
                self._leave("the second signal has no effect")

    def _leave(self, reason: str) -> None:
        say(
            f"{reason}: ending this process. The same command goes on from the newest checkpoint, "
            "or begins again if there is none."
        )
        kill_all()
        os._exit(EXIT_CODE)

    def close(self) -> None:
        signal.set_wakeup_fd(self.previous)
        with contextlib.suppress(OSError):
            self.writer.send(b"\0")
        self.join(1)
        self.reader.close()
        self.writer.close()


def say(text: str) -> None:
    """Write a line on stderr; print() is not safe in a handler, which may interrupt another one."""
    with contextlib.suppress(OSError):
        os.write(2, f"\n{text}\n".encode())
