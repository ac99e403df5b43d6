import io
from pathlib import Path

import pytest
import torch

from tests.engine.toy import toy_task
from virtex.engine.optim import OptimConfig
from virtex.engine.recording import Reporter, show
from virtex.engine.run import RunConfig, RunFolder
from virtex.engine.state import TrainingState
from virtex.progress import ProgressBar

RECORD = {
    "step": 20,
    "train/loss": 3.14159,
    "train/lr": 0.1,
    "speed/images_per_second": 81.23,
    "speed/data_wait": 0.25,
}


def test_without_a_terminal_each_record_is_one_plain_line() -> None:
    stream = io.StringIO()
    with ProgressBar("step", 100, stream=stream) as bar:
        bar.reach(20)
        show(RECORD, bar, num_steps=100)
        show({"step": 20, "val/loss": 2.5}, bar, num_steps=100)
    assert stream.getvalue().splitlines() == [
        "step 20/100  loss 3.142  81.23 images/s  waiting for data 25%",
        "step 20/100  val/loss 2.5",
    ]


def test_a_resumed_run_reports_its_step(tmp_path: Path) -> None:
    run, optim = RunConfig(tensorboard=False), OptimConfig()
    state = TrainingState(toy_task(), run=run, optim=optim, device=torch.device("cpu"))
    state.step, stream = 40, io.StringIO()
    with ProgressBar("step", 100, stream=stream) as bar:
        Reporter(state, RunFolder(tmp_path), bar, run=run, optim=optim, config={})
    assert stream.getvalue() == "resuming after step 40\n"


def test_on_a_terminal_the_loss_is_shown_beside_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    stream = Terminal()
    with ProgressBar("step", 100, stream=stream) as bar:
        show(RECORD, bar, num_steps=100)
        bar.reach(20)
    assert "loss 3.142  81.23 images/s" in stream.getvalue()
    assert "step 20/100" not in stream.getvalue()
