"""A run in the processes that its command starts, and its resume."""

import json
import logging
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.small_run import small_config
from virtex import distributed, processes
from virtex.engine import checkpoint, loop
from virtex.engine.run import RunFolder
from virtex.engine.state import TrainingState
from virtex.errors import ConfigError, VirTexError
from virtex.pretrain import PretrainConfig
from virtex.pretrain_team import pretrain_in_team
from virtex.tasks.base import Batch


@pytest.fixture(autouse=True)
def _two_cores(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(processes, "num_cores", lambda: 2)
    monkeypatch.setattr(processes, "processors", lambda: {0, 1})
    monkeypatch.setattr(processes, "_num_gpus", lambda: 0)
    monkeypatch.setattr(logging.getLogger("virtex"), "handlers", [])
    monkeypatch.setattr(logging.getLogger("virtex"), "propagate", True)
    caplog.set_level(logging.INFO, "virtex")


def again(options: PretrainConfig, requested: processes.Requested) -> dict[str, torch.Tensor]:
    """Resume the last two steps of a run, and return its weights."""
    folder = RunFolder(options.out)
    folder.checkpoints.at(6).unlink()
    assert pretrain_in_team(options, requested).step == 6
    return checkpoint.load(folder.checkpoints.at(6))["task"]


def test_a_run_resumes_in_as_many_processes_as_before_unless_another_number_is_given(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = small_config(tmp_path / "run")
    assert pretrain_in_team(options, 2).step == 6
    folder = RunFolder(options.out)
    whole = checkpoint.load(folder.checkpoints.at(6))["task"]
    assert json.loads((options.out / "data.json").read_text())["num_processes"] == 2
    assert "processes   2 of 1 thread each\n" in caplog.text
    caplog.clear()
    weights = again(options, "auto")
    assert all(torch.equal(weights[name], whole[name]) for name in whole)
    assert "2 of 1 thread each, as when the run began (--processes N chooses" in caplog.text
    assert "another number of processes," not in caplog.text
    again(options, 1)
    assert "another number of processes, 1 instead of 2" in caplog.text
    caplog.clear()
    again(options, "auto")
    assert "processes   1, as when the run began" in caplog.text


def test_a_run_of_an_earlier_version_goes_on_in_one_process(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = small_config(tmp_path / "run", "--run.num_steps", "6", "--run.batch_size", "32")
    pretrain_in_team(options, 1)
    path = options.out / "data.json"
    values = json.loads(path.read_text())
    del values["num_processes"]
    path.write_text(json.dumps(values))
    again(options, "auto")
    assert "processes   1, as when the run began" in caplog.text
    assert json.loads(path.read_text())["num_processes"] == 1


def test_wrong_options_are_an_error_before_a_process_is_started(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = small_config(tmp_path / "run", "--optim.warmup_steps", "100")
    with pytest.raises(ConfigError, match="warmup_steps"):
        pretrain_in_team(options, 2)
    assert "processes" not in caplog.text


def test_the_message_of_a_killed_process_names_the_saved_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = small_config(tmp_path / "run", "--run.checkpoint_every", "2")
    first = loop.train_step

    def train_step(model: nn.Module, pieces: list[Batch], state: TrainingState, **rest: Any) -> Any:
        if state.step == 5 and distributed.rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return first(model, pieces, state, **rest)

    monkeypatch.setattr(loop, "train_step", train_step)
    with pytest.raises(VirTexError, match=r"was killed.* goes on from what was saved: step 4$"):
        pretrain_in_team(options, 2)
