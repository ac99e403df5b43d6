"""Signals, failures and a run that is over: what the loop saves, and where it ends."""

import os
import signal
import time
from collections.abc import Generator
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest

from tests.engine.test_loop import RUN, records, same_weights
from tests.engine.toy import ToyTask, toy_batch, toy_batches, toy_fit, toy_task
from tests.small_disk import files_of_at_most
from virtex.data.workers import WorkerError
from virtex.engine import checkpoint, recording, signals
from virtex.engine.run import RunFolder
from virtex.engine.signals import StopSignals
from virtex.errors import CheckpointError, DataError
from virtex.tasks.base import Batch, TaskOutput


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run")


@pytest.mark.parametrize("hook", ["on_checkpoint", "on_written"])
def test_training_continues_after_a_failed_checkpoint_except_for_the_last(
    folder: RunFolder, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, hook: str
) -> None:
    monkeypatch.setattr(recording, "RETRIES", (0.01, 0.02))

    def fill_the_disk(step: int, *_: object) -> None:
        steps.append(step)
        size = folder.checkpoints.at(step).stat().st_size
        disk.enter_context(files_of_at_most(size // 2))

    steps: list[int] = []
    lost = r"step_00000012.*Steps 5 to 12 are lost.*resumes from the checkpoint of step 4"
    with ExitStack() as disk, pytest.raises(CheckpointError, match=lost):
        toy_fit(toy_task(), folder, RUN, **{hook: fill_the_disk})
    assert caplog.text.count("Trying again in") == 2
    assert steps == [4]
    assert "step_00000008.pt: File too large" in caplog.text
    assert "Training goes on" in caplog.text
    assert folder.checkpoints.latest()["step"] == 4


def test_the_last_checkpoint_is_written_if_the_disk_has_room_again(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = ExitStack()
    monkeypatch.setattr(recording.time, "sleep", lambda seconds: disk.close())
    disk.enter_context(files_of_at_most(1000))
    result = toy_fit(toy_task(), folder, replace(RUN, checkpoint_every=0))
    assert (result.reason, folder.checkpoints.steps()) == ("finished", [12])


@pytest.mark.parametrize("hook", ["on_checkpoint", "on_written"])
def test_a_signal_leaves_time_for_each_write_that_training_waits_for(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, hook: str
) -> None:
    stops, patient = [], []

    class Noted(StopSignals):
        def __init__(self) -> None:
            super().__init__()
            stops.append(self)

    def save(path: Path, values: dict[str, object]) -> None:
        patient.append((values["step"], stops[0].is_saving))
        save_checkpoint(path, values)

    save_checkpoint = checkpoint.save
    monkeypatch.setattr("virtex.engine.loop.StopSignals", Noted)
    monkeypatch.setattr(checkpoint, "save", save)
    handed_over = []
    note = {hook: lambda step, *_: handed_over.append((step, stops[0].is_saving))}
    toy_fit(toy_task(), folder, RUN, **note)
    assert patient[-1] == (12, True)  # the last, for which training waits
    assert not stops[0].is_saving
    if hook == "on_checkpoint":  # which makes training wait for all, and takes its own time
        assert patient == [(4, True), (8, True), (12, True)]
        assert handed_over == [(4, False), (8, False), (12, False)]
    else:
        assert handed_over[-1] == (12, True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_lets_the_step_finish_and_saves(folder: RunFolder, number: int) -> None:
    class Signalling(ToyTask):
        def forward(self, batch: Batch) -> TaskOutput:
            if len(self.steps_seen) == 6:
                os.kill(os.getpid(), number)
            return super().forward(batch)

    before = signal.getsignal(number)
    written: list[int] = []
    result = toy_fit(Signalling(), folder, RUN, on_written=lambda step, *_: written.append(step))
    assert (result.step, result.reason, result.exit_code) == (7, "interrupted", 143)
    assert folder.checkpoints.steps() == written == [4, 7]
    assert signal.getsignal(number) == before


def test_a_full_disk_at_a_signal_costs_the_handed_over_weights_alone(
    folder: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    class Signalling(ToyTask):
        def forward(self, batch: Batch) -> TaskOutput:
            if len(self.steps_seen) == 6:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().forward(batch)

    def fail(*_: object) -> None:
        raise CheckpointError("no space is left.")

    result = toy_fit(Signalling(), folder, RUN, on_written=fail)
    assert (result.step, result.reason) == (7, "interrupted")
    assert folder.checkpoints.steps() == [4, 7]
    assert "no space is left. The checkpoint of step 7 is written." in caplog.text


def test_a_second_interrupt_acts_at_once(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Impatient(ToyTask):
        def forward(self, batch: Batch) -> TaskOutput:
            for _ in range(3):  # the second counts as the first, the third does not
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.06)
            raise AssertionError("the third signal had no effect")

    monkeypatch.setattr(signals, "SAME", 0.1)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background
    try:
        with pytest.raises(KeyboardInterrupt):
            toy_fit(Impatient(), folder, RUN)
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_signal_ends_the_wait_for_a_batch(folder: RunFolder) -> None:
    def batches(start: int) -> Generator[list[Batch]]:
        yield from islice(toy_batches(8, start), 5)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)

    start = time.monotonic()
    result = toy_fit(toy_task(), folder, RUN, batches=batches)
    assert time.monotonic() - start < 10
    assert (result.step, result.reason) == (5, "interrupted")
    assert folder.checkpoints.steps() == [4, 5]


@pytest.mark.parametrize("kind", [WorkerError, DataError, ZeroDivisionError])
def test_the_finished_steps_are_saved_if_there_is_no_next_batch(
    folder: RunFolder, kind: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    def batches(start: int) -> Generator[list[Batch]]:
        yield from islice(toy_batches(8, start), 5)
        raise kind("no more")

    with pytest.raises(kind) as caught:
        toy_fit(toy_task(), folder, RUN, batches=batches)
    assert "The 5 finished steps are saved" in f"{caught.value} {caplog.text}"
    assert folder.checkpoints.steps() == [4, 5]
    cut, whole = toy_task(), toy_task()
    toy_fit(cut, folder, RUN)
    toy_fit(whole, RunFolder(folder.path / "whole"), RUN)
    assert same_weights(cut, whole)


def test_a_run_that_is_over_stays_complete(folder: RunFolder) -> None:
    result = toy_fit(toy_task(), folder, RUN, is_over=lambda step: step >= 8)
    assert (result.step, result.reason, result.exit_code) == (8, "stopped", 0)
    before = folder.log_path.read_text()
    assert toy_fit(toy_task(), folder, RUN, is_over=lambda step: step >= 8) == result
    assert folder.log_path.read_text() == before
    assert toy_fit(toy_task(), folder, RUN).reason == "finished"


def test_a_run_that_is_over_at_its_last_step_is_finished(folder: RunFolder) -> None:
    assert toy_fit(toy_task(), folder, RUN, is_over=lambda step: step >= 12).reason == "finished"


def test_a_validation_that_fails_costs_no_step_and_is_made_up_for(folder: RunFolder) -> None:
    class BrokenError(DataError):
        pass

    def validate(step: int, stop: StopSignals) -> dict[str, float]:
        if step == 6 and is_broken:
            raise BrokenError("7 of 10 images are broken")
        return {"loss": float(step)}

    run = replace(RUN, validate_every=3, checkpoint_every=4)
    is_broken = True
    for _ in range(2):  # the second time it is tried at once
        with pytest.raises(BrokenError, match=r"are broken\. The 6 finished steps are saved"):
            toy_fit(toy_task(), folder, run, validate=validate)
        assert folder.checkpoints.steps()[-1] == 6
    is_broken = False
    assert toy_fit(toy_task(), folder, run, validate=validate).reason == "finished"
    validations = [r for r in records(folder) if "val/loss" in r]
    assert [(r["step"], r["val/loss"]) for r in validations] == [(3, 3), (6, 6), (9, 9), (12, 12)]


@pytest.mark.parametrize("last", [False, True])
def test_a_signal_ends_a_validation_which_is_made_up_for(folder: RunFolder, last: bool) -> None:
    run = replace(RUN, validate_every=0 if last else 3, checkpoint_every=0)
    signalled = RUN.num_steps if last else 3
    num_batches = []

    def validate(step: int, stop: StopSignals) -> dict[str, float]:
        own = 0
        for _ in stop.each(toy_batch(index, batch_size=8) for index in range(4)):
            own += 1
            if step == signalled and not num_batches:
                os.kill(os.getpid(), signal.SIGTERM)
        num_batches.append(own)
        return {"loss": float(own)}

    result = toy_fit(toy_task(), folder, run, validate=validate)
    assert (result.step, result.reason, result.exit_code) == (signalled, "interrupted", 143)
    assert (num_batches, folder.checkpoints.steps()) == ([1], [signalled])
    assert not folder.has_validation(signalled)
    assert toy_fit(toy_task(), folder, run, validate=validate).reason == "finished"
    assert folder.has_validation(signalled)
    assert toy_fit(toy_task(), folder, run, validate=validate).reason == "finished"
    assert num_batches == [1, *[4] * (1 if last else 4)]  # and the finished run does nothing more


def test_a_checkpoint_is_written_before_the_validation_of_its_step(folder: RunFolder) -> None:
    def validate(step: int, stop: StopSignals) -> dict[str, float]:
        raise SystemExit  # as a kill does: nothing is saved after it

    run = replace(RUN, validate_every=4, checkpoint_every=4)
    with pytest.raises(SystemExit):
        toy_fit(toy_task(), folder, run, validate=validate)
    assert folder.checkpoints.steps() == [4]
