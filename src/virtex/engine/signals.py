"""A polite end: SIGTERM and Ctrl-C let the current step finish and a checkpoint be written."""

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopSignals:
    """While entered, notes the first SIGTERM or SIGINT in `requested`; the second acts at once.

    Outside of the main thread, where Python gives no signals, it does nothing.
    """

    def __init__(self) -> None:
        self.requested = False
        self.previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self.previous = {name: signal.signal(name, self._note) for name in SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._restore()

    def _restore(self) -> None:
        for name, handler in self.previous.items():
            signal.signal(name, handler)
        self.previous = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self._restore()
        # print() is not safe here: the signal may have come in the midst of another print.
        message = f"\n{signal.Signals(number).name}: writing a checkpoint after this step.\n"
        os.write(2, message.encode())
