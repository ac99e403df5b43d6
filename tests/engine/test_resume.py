import json
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.engine.processes import exit_codes, launch, wait_for_file
from tests.engine.toy import toy_batches, toy_fit, toy_task
from tests.engine.toy_run import toy_config, toy_optim
from virtex.engine import checkpoint
from virtex.engine.optim import OptimConfig
from virtex.engine.run import RunConfig, RunFolder
from virtex.errors import CheckpointError
from virtex.tasks.base import Task

RUN = RunConfig(
    num_steps=17, batch_size=8, device="cpu", log_every=4, checkpoint_every=3, tensorboard=False
)


class KilledError(BaseException):
    """Stands for a kill between two steps."""


def train_and_die(
    task: Task, folder: RunFolder, run: RunConfig, *, at: int, **options: object
) -> None:
    def batches(start: int) -> object:
        stream = toy_batches(run.batch_size, start, pieces=run.accumulation_steps)
        for step, batch in enumerate(stream, start=start):
            if step == at:
                raise KilledError
            yield batch

    with pytest.raises(KilledError):
        toy_fit(task, folder, run, batches=batches, **options)


def content(folder: RunFolder, step: int) -> dict:
    return checkpoint.load(folder.checkpoints.at(step))


def assert_identical(a: object, b: object) -> None:
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
        assert a.dtype == b.dtype
    elif isinstance(a, dict):
        assert list(a) == list(b)
        for name in a:
            assert_identical(a[name], b[name])
    elif isinstance(a, list):
        for left, right in zip(a, b, strict=True):
            assert_identical(left, right)
    else:
        assert a == b


def log_without_speed(folder: RunFolder) -> list[dict]:
    lines = map(json.loads, folder.log_path.read_text().splitlines())
    return [{k: v for k, v in line.items() if not k.startswith("speed/")} for line in lines]


SETTINGS = {
    "plain": (RUN, OptimConfig(lr=0.05, backbone_lr=0.1)),
    "adamw": (RUN, OptimConfig(optimizer="adamw", lr=0.01, backbone_lr=0.01)),
    "fp16": (replace(RUN, precision="fp16"), OptimConfig(lr=0.05, backbone_lr=0.1)),
    "ema": (RUN, OptimConfig(lr=0.05, backbone_lr=0.1, ema_decay=0.9)),
    "pieces": (replace(RUN, accumulation_steps=2), OptimConfig(lr=0.05, lookahead_steps=0)),
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_resumed_run_ends_bit_for_bit_where_the_whole_one_does(
    tmp_path: Path, setting: str
) -> None:
    run, optim = SETTINGS[setting]
    whole, cut = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "cut")
    toy_fit(toy_task(), whole, run, optim=optim)
    for at in (2, 7, 11, 14):
        train_and_die(toy_task(), cut, run, at=at, optim=optim)
    toy_fit(toy_task(), cut, run, optim=optim)
    assert_identical(content(whole, 17), content(cut, 17))
    assert log_without_speed(whole) == log_without_speed(cut)


def test_a_run_resumed_from_a_fallback_ends_the_same(tmp_path: Path) -> None:
    whole, cut = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "cut")
    toy_fit(toy_task(), whole, RUN)
    train_and_die(toy_task(), cut, RUN, at=10)
    newest = cut.checkpoints.at(9)
    newest.write_bytes(newest.read_bytes()[:1000])
    toy_fit(toy_task(), cut, RUN)
    assert_identical(content(whole, 17), content(cut, 17))


def test_a_finished_run_trains_no_further(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    toy_fit(toy_task(), folder, RUN)
    before = folder.log_path.read_text()
    task = toy_task()
    assert toy_fit(task, folder, RUN).step == 17
    assert task.steps_seen == []
    assert folder.log_path.read_text() == before
    assert_identical(dict(task.state_dict()), content(folder, 17)["task"])


def test_the_hook_after_a_checkpoint_is_called_again_on_resuming(tmp_path: Path) -> None:
    folder, steps = RunFolder(tmp_path), []
    train_and_die(toy_task(), folder, RUN, at=5)
    toy_fit(toy_task(), folder, RUN, on_checkpoint=steps.append)
    assert steps == [3, 6, 9, 12, 15, 17]


def test_a_checkpoint_of_another_model_names_what_differs(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    toy_fit(toy_task(), folder, RUN)
    with pytest.raises(CheckpointError, match=r"unexpected: backbone\.1\.bias.*") as error:
        toy_fit(toy_task(batch_norm=False, width=4), folder, RUN)
    assert "backbone.0.weight is (8, 3, 3, 3), must be (4, 3, 3, 3)" in str(error.value)
    assert "Resume with the config that the run began with" in str(error.value)


def test_a_checkpoint_of_another_lookahead_setting_is_refused(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    toy_fit(toy_task(), folder, RUN)
    with pytest.raises(CheckpointError, match="lookahead_steps above 0"):
        toy_fit(toy_task(), folder, RUN, optim=OptimConfig(lookahead_steps=0))


def test_a_process_killed_while_it_trains_resumes_bit_for_bit(tmp_path: Path) -> None:
    """benchmarks/resume.py does this many times, at random moments."""
    whole, cut = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "cut")
    for step in (12, 24):
        process = launch(cut.path, sleep=0.01)
        wait_for_file(cut.checkpoints.at(step), process)
        process.kill()
        assert exit_codes(process) == [-signal.SIGKILL]
        assert step <= max(cut.checkpoints.steps()) < 40
    assert exit_codes(launch(cut.path)) == [0]
    toy_fit(toy_task(), whole, toy_config())
    assert_identical(content(whole, 40), content(cut, 40))
    assert log_without_speed(whole) == log_without_speed(cut)


STEM = "backbone.cnn.conv1.weight"


def test_a_process_killed_before_and_after_it_unfreezes_resumes_bit_for_bit(tmp_path: Path) -> None:
    whole, cut = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "cut")
    options = {"frozen_stages": 2, "unfreeze_at": 22, "ema_decay": 0.5}
    first, moved = toy_task(frozen_stages=2).state_dict()[STEM], []
    for step in (6, 24):
        process = launch(cut.path, sleep=0.01, **options)
        wait_for_file(cut.checkpoints.at(step), process)
        process.kill()
        assert exit_codes(process) == [-signal.SIGKILL]
        newest = max(cut.checkpoints.steps())
        assert newest < 40
        moved.append(not torch.equal(content(cut, newest)["task"][STEM], first))
    assert moved == [False, True]
    assert exit_codes(launch(cut.path, **options)) == [0]
    optim = toy_optim(ema_decay=0.5, unfreeze_at=22)
    toy_fit(toy_task(frozen_stages=2), whole, toy_config(), optim=optim)
    assert_identical(content(whole, 40), content(cut, 40))
    assert log_without_speed(whole) == log_without_speed(cut)
