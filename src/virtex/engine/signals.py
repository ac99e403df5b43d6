"""Graceful stop: SIGTERM and Ctrl-C let the current step finish and a checkpoint be written."""

import os
import signal
import threading
from types import FrameType
from typing import Any, Self

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopSignals:
    """Context that notes the first SIGTERM or SIGINT in `requested`; a second one acts at once.

    It does nothing outside the main thread, where Python handles no signals.
    """

    def __init__(self) -> None:
        self.requested = False
        self.previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self.previous = {name: signal.signal(name, self._note) for name in SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for name, handler in self.previous.items():
            signal.signal(name, handler)
        self.previous = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self.__exit__()
        # print() is not safe here: the signal may have come during another print.
        message = f"\n{signal.Signals(number).name}: writing a checkpoint after this step.\n"
        os.write(2, message.encode())
