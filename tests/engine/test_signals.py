"""Signals that end a run even if its main thread hangs."""

import multiprocessing
import os
import signal
import threading
import time
from contextlib import nullcontext

import pytest

from virtex.engine import signals
from virtex.engine.signals import StopSignals

CONTEXT = multiprocessing.get_context("fork")
READY = CONTEXT.Event()


def hang(saving: bool) -> None:
    """Wait for ever, whatever a handler of signals raises; for a file if `saving`."""
    lock = threading.Lock()
    lock.acquire()
    with StopSignals() as stop, stop.saving() if saving else nullcontext():
        READY.set()
        while True:
            try:
                lock.acquire()
            except BaseException:
                continue


@pytest.mark.parametrize(
    ("num_signals", "bound", "saving", "message"),
    [
        (1, 0.3, False, "no step finished within 0 s"),
        (2, 60.0, False, "the second signal has no effect"),
        (1, 0.3, True, "no checkpoint was written within 1 s"),
    ],
)
def test_a_process_that_hangs_ends_after_a_bound(
    num_signals: int, bound: float, saving: bool, message: str, capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    READY.clear()
    bounds = {"BOUND": bound, "SAME": 0.1, "SECOND_BOUND": 0.3, "SAVING_BOUND": 1.0}
    for name, value in bounds.items():
        monkeypatch.setattr(signals, name, value)
    process = CONTEXT.Process(target=hang, args=(saving,))
    process.start()
    assert READY.wait(10)
    assert process.pid is not None
    for _ in range(num_signals):
        os.kill(process.pid, signal.SIGTERM)
        time.sleep(0.2)
    process.join(20)
    assert process.exitcode == 143
    assert message in capfd.readouterr().err


@pytest.mark.parametrize("ignored", [signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_that_is_ignored_stays_ignored(ignored: signal.Signals) -> None:
    before = signal.signal(ignored, signal.SIG_IGN)  # as nohup does
    try:
        with StopSignals() as stop:
            os.kill(os.getpid(), ignored)
            assert not stop.requested
    finally:
        signal.signal(ignored, before)


def test_signals_are_noted_though_nothing_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int, text: bytes) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(signals.os, "write", fail)
    with StopSignals() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        end = time.monotonic() + 10
        while not stop.requested and time.monotonic() < end:
            time.sleep(0.001)
        assert stop.requested
