"""Checkpoints that a thread writes while training goes on."""

import os
import signal
import threading
import time
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.engine.test_resume import RUN, assert_identical, content
from tests.engine.toy import ToyTask, toy_batches, toy_fit, toy_task
from tests.small_disk import further_memory_of_at_most
from virtex.engine import checkpoint, recording
from virtex.engine.run import RunFolder
from virtex.tasks.base import Batch

EVERY = replace(RUN, num_steps=12, keep_checkpoints=0)
"""Checkpoints at steps 3, 6, 9 and 12."""


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run")


class SlowDisk:
    """Makes each write wait until training has drawn the batch of a later step, and notes both."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, num_steps: int) -> None:
        self.num_steps, self.drawn = num_steps, threading.Condition()
        self.step = 0
        self.events: list[tuple[str, int]] = []
        self.save = checkpoint.save
        monkeypatch.setattr(recording.checkpoint, "save", self.write)

    def write(self, path: Path, values: dict) -> None:
        step = values["step"]
        self.events.append(("begin", step))
        if threading.current_thread() is not threading.main_thread():
            with self.drawn:
                assert self.drawn.wait_for(lambda: self.step >= step + self.num_steps, 20)
        self.save(path, values)
        self.events.append(("end", step))

    def batches(self, start: int) -> Generator[Batch]:
        for step, batch in enumerate(toy_batches(8, start), start):
            with self.drawn:
                self.step = step
                self.drawn.notify_all()
            yield batch


def test_training_goes_on_during_a_write_of_the_state_before(
    folder: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy_fit(toy_task(), RunFolder(tmp_path / "plain"), EVERY)
    disk = SlowDisk(monkeypatch, num_steps=2)
    toy_fit(toy_task(), folder, EVERY, batches=disk.batches)
    assert folder.checkpoints.steps() == [3, 6, 9, 12]
    for step in folder.checkpoints.steps():
        assert_identical(content(folder, step), content(RunFolder(tmp_path / "plain"), step))
    assert disk.events == [(name, step) for step in (3, 6, 9, 12) for name in ("begin", "end")]


def test_a_checkpoint_waits_for_the_write_of_the_one_before(folder: RunFolder) -> None:
    events = []

    def on_written(step: int, task_state: dict, averaged: None) -> None:
        time.sleep(0.05)
        assert folder.checkpoints.steps()[-1] == step
        events.append((step, threading.current_thread() is threading.main_thread()))

    toy_fit(toy_task(), folder, EVERY, on_written=on_written)
    assert events == [(3, False), (6, False), (9, False), (12, True)]


def test_old_checkpoints_are_removed_after_a_write(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, found = SlowDisk(monkeypatch, num_steps=2), []
    toy_fit(
        toy_task(), folder, replace(EVERY, keep_checkpoints=1), batches=disk.batches,
        on_written=lambda step, *_: found.append(folder.checkpoints.steps()),
    )  # fmt: skip
    assert found == [[3], [6], [9], [12]]


def test_the_state_that_is_passed_on_is_that_of_the_checkpoint(folder: RunFolder) -> None:
    weights = {}

    def on_written(step: int, task_state: dict, averaged: None) -> None:
        time.sleep(0.02)  # in which training goes on
        weights[step] = {name: value.clone() for name, value in task_state.items()}

    toy_fit(toy_task(), folder, EVERY, on_written=on_written)
    for step, state in weights.items():
        assert_identical(state, dict(content(folder, step)["task"]))


def test_a_signal_during_a_write_leaves_both_checkpoints(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = SlowDisk(monkeypatch, num_steps=2)

    def batches(start: int) -> Generator[Batch]:
        for step, batch in enumerate(disk.batches(start), start):
            if step == 4:
                threading.Timer(0.2, disk.batches(5).__next__).start()
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    result = toy_fit(toy_task(), folder, EVERY, batches=batches)
    assert (result.reason, folder.checkpoints.steps()) == ("interrupted", [3, result.step])


def test_an_error_of_training_waits_for_the_write(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = SlowDisk(monkeypatch, num_steps=1)

    class FailingTask(ToyTask):
        def after_step(self, step: int, kept: object) -> None:
            if step == 5:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        toy_fit(FailingTask(), folder, EVERY, batches=disk.batches)
    assert folder.checkpoints.steps() == [3]


def test_an_unforeseen_error_of_the_thread_ends_the_run(folder: RunFolder) -> None:
    def on_written(step: int, task_state: dict, averaged: None) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        toy_fit(toy_task(), folder, EVERY, on_written=on_written)
    assert folder.checkpoints.steps() == [3]


def test_weights_that_cannot_be_written_do_not_end_the_run(
    folder: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    def on_written(step: int, task_state: dict, averaged: None) -> None:
        if step == 3:
            raise OSError("no space left for the weights")

    assert toy_fit(toy_task(), folder, EVERY, on_written=on_written).reason == "finished"
    assert "no space left for the weights Training goes on." in caplog.text
    assert folder.checkpoints.steps() == [3, 6, 9, 12]


def test_without_memory_for_a_copy_training_waits(
    folder: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    task = toy_task()
    task.register_buffer("queue", torch.zeros(2**28, dtype=torch.uint8))
    with further_memory_of_at_most(2**25):
        toy_fit(task, folder, replace(EVERY, keep_checkpoints=1))
    assert caplog.text.count("checkpoints are written while training waits") == 1
    assert folder.checkpoints.steps() == [12]
