import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.engine.processes import exit_codes, launch_two, wait_for_file
from tests.engine.toy import toy_fit, toy_task
from tests.engine.toy_run import toy_config
from virtex.engine import checkpoint
from virtex.engine.run import RunFolder

TOY_RUN = Path(__file__).with_name("toy_run.py")
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]


def losses(folder: Path) -> list[float]:
    lines = (folder / "log.jsonl").read_text().splitlines()
    return [json.loads(line)["train/loss"] for line in lines]


def test_two_processes_under_torchrun_agree_with_each_other_and_with_one(tmp_path: Path) -> None:
    two, one = tmp_path / "two", tmp_path / "one"
    done = subprocess.run(
        [*TORCHRUN, str(TOY_RUN), "--out", str(two), "--plain", "--num_steps", "20"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    ranks = [torch.load(two / f"weights_of_rank_{rank}.pt") for rank in range(2)]
    assert torch.equal(*ranks)
    task = toy_task(batch_norm=False, dropout=0.0)
    toy_fit(task, RunFolder(one), toy_config(num_steps=20))
    alone = torch.cat([parameter.detach().flatten() for parameter in task.parameters()])
    torch.testing.assert_close(ranks[0], alone, rtol=1e-4, atol=1e-6)
    assert losses(two) == pytest.approx(losses(one), rel=1e-5)


def test_two_processes_stop_together_and_resume_bit_for_bit(tmp_path: Path) -> None:
    cut, whole = RunFolder(tmp_path / "cut"), RunFolder(tmp_path / "whole")
    processes = launch_two(cut.path, sleep=0.02)
    wait_for_file(cut.checkpoints.at(6), *processes)
    processes[1].terminate()  # one of them hears of it: both stop after the same step
    assert exit_codes(*processes) == [143, 143]
    assert 6 <= max(cut.checkpoints.steps()) < 40
    assert exit_codes(*launch_two(cut.path)) == [0, 0]
    assert exit_codes(*launch_two(whole.path)) == [0, 0]
    weights = [checkpoint.load(folder.checkpoints.at(40))["task"] for folder in (cut, whole)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[1])
    assert losses(cut.path) == losses(whole.path)
    for rank in range(2):  # with BatchNorm's statistics, which each process takes of its own share
        state = torch.load(whole.path / f"state_of_rank_{rank}.pt")
        assert all(torch.equal(state[name], weights[1][name]) for name in weights[1])


def test_all_processes_save_and_stop_if_one_has_no_next_batch(tmp_path: Path) -> None:
    processes = launch_two(tmp_path, fails_at=8)
    assert exit_codes(*processes) == [2, 2]
    assert max(RunFolder(tmp_path).checkpoints.steps()) == 8
    errors = [(tmp_path / f"error_of_rank_{rank}").read_text() for rank in range(2)]
    assert errors == [
        "process 1 of the run failed: a worker was killed. "
        "The 8 finished steps are saved: the same command resumes after them.",
        "a worker was killed. The 8 finished steps are saved: the same command resumes after them.",
    ]


def test_all_processes_save_and_stop_if_one_has_no_next_batch_of_a_validation(
    tmp_path: Path,
) -> None:
    assert exit_codes(*launch_two(tmp_path, validation="fails")) == [2, 2]
    assert max(RunFolder(tmp_path).checkpoints.steps()) == 8
    errors = [(tmp_path / f"error_of_rank_{rank}").read_text() for rank in range(2)]
    saved = "The 8 finished steps are saved: the same command resumes after them."
    assert errors == [
        f"process 1 of the run failed: a worker was killed. {saved}",
        f"a worker was killed. {saved}",
    ]


def test_two_processes_end_a_validation_before_they_obey_a_signal_to_one(tmp_path: Path) -> None:
    assert exit_codes(*launch_two(tmp_path, validation="signalled")) == [143, 143]
    folder = RunFolder(tmp_path)
    assert folder.has_validation(8)
    assert max(folder.checkpoints.steps()) in (8, 9)  # as a step was agreed on before


def test_the_others_wait_for_what_the_main_process_does_in_a_validation(tmp_path: Path) -> None:
    assert exit_codes(*launch_two(tmp_path, num_steps=8, validation="slow")) == [0, 0]
    assert RunFolder(tmp_path).has_validation(8)


def test_a_process_whose_partner_is_killed_ends_with_an_error_that_says_so(tmp_path: Path) -> None:
    processes = launch_two(tmp_path, sleep=0.02)
    wait_for_file(RunFolder(tmp_path).checkpoints.at(6), *processes)
    processes[1].kill()
    assert exit_codes(*processes)[0] == 2
    assert "another process of the run has ended" in (tmp_path / "error_of_rank_0").read_text()


def test_two_processes_end_where_the_main_one_says_that_the_run_is_over(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    for _ in range(2):  # a second start finds the run complete
        assert exit_codes(*launch_two(folder.path, last_step=12)) == [0, 0]
        assert folder.checkpoints.steps()[-1] == 12
    states = [torch.load(folder.path / f"state_of_rank_{rank}.pt") for rank in range(2)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
