"""The option `--processes`, and what `auto` chooses."""

import logging
from pathlib import Path

import pytest

from tests.small_run import OPTIONS
from tests.test_launcher import STEP, TORCHRUN
from virtex import cli, processes
from virtex.errors import ConfigError
from virtex.processes import Requested, Team, Work, choose, split_option

AUTO = Work("auto", 256)


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four cores with two hardware threads each, and no GPU."""
    monkeypatch.setattr(processes, "num_cores", lambda: 4)
    monkeypatch.setattr(processes, "processors", lambda: set(range(8)))
    monkeypatch.setattr(processes, "_num_gpus", lambda: 0)


def number_and_threads(requested: Requested, work: Work, **environment: str) -> tuple[int, int]:
    team = choose(requested, work, environment=environment)
    assert team is not None
    return team.number, team.num_threads


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--out", "x"], ("auto", ["--out", "x"])),
        (["--processes", "2", "--out", "x"], (2, ["--out", "x"])),
        (["--out", "x", "--processes=3"], (3, ["--out", "x"])),
        (["--processes", "2", "--processes", "auto"], ("auto", [])),
        (["--", "--processes", "2"], ("auto", ["--", "--processes", "2"])),
    ],
)
def test_the_option_is_taken_out_of_the_arguments(
    arguments: list[str], expected: tuple[Requested, list[str]]
) -> None:
    assert split_option(arguments, default="auto") == expected


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", "", "٣", "1" * 30])
def test_a_wrong_number_of_processes_is_refused_before_anything_is_read(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["pretrain", "--out", str(tmp_path / "run"), "--processes", text]) == 2
    shown = capsys.readouterr().err
    assert f"ConfigError: --processes {text!r} cannot work: give auto or a whole number" in shown
    assert shown.count("\n") == 1


@pytest.mark.parametrize(
    ("number", "flags", "message"),
    [
        ("9", [], "--processes 9 is too many: this process may use 8 processors. Give at most 8"),
        ("3", [], "run.batch_size 8 cannot be split equally among 3 processes"),
        ("2", ["--run.device", "cuda"], "--processes 2 is too many: this machine has no GPU"),
        ("2", ["--run.device", "mps"], "--processes 2 is too many: device mps takes one process"),
    ],
)
def test_too_many_processes_are_one_error_before_any_is_started(
    number: str,
    flags: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["--config", OPTIONS, "--out", str(tmp_path / "run"), "--processes", number]
    assert cli.main(["pretrain", *arguments, *flags]) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert shown.count("ConfigError") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("work", "expected"),
    [
        (AUTO, (4, 1)),
        (Work("cpu", 256), (4, 1)),
        (Work("auto", 255), (3, 1)),
        (Work("auto", 254), (2, 2)),
        (Work("auto", 253), (1, 4)),
        (Work("auto", 32), (2, 2)),  # 16 images each
        (Work("auto", 32, least_share=1), (4, 1)),
        (Work("auto", 64, num_pieces=2), (2, 2)),
        (Work("cuda", 256), (1, 4)),
        (Work("cuda:1", 256), (1, 4)),
        (Work("mps", 256), (1, 4)),
        (Work("auto", 256, began_with=2), (2, 2)),
        (Work("auto", 8, began_with=4), (4, 1)),
        (Work("auto", 256, began_with=8), (8, 1)),
        (Work("auto", 256, began_with=16), (4, 1)),
        (Work("auto", 256, began_with=1), (1, 4)),
    ],
)
def test_auto_takes_what_divides_the_batch_and_what_the_run_began_with(
    work: Work, expected: tuple[int, int]
) -> None:
    assert number_and_threads("auto", work) == expected


def test_auto_takes_each_gpu_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_num_gpus", lambda: 8)
    assert choose("auto", Work("auto", 64), environment={}) == Team(8, 1, True, "one per GPU")
    assert number_and_threads("auto", Work("cuda:1", 64)) == (1, 4)
    with pytest.raises(ConfigError, match="this machine has 8 GPUs"):
        choose(9, Work("cuda", 64), environment={})


def test_the_number_of_threads_is_that_of_the_environment() -> None:
    assert number_and_threads("auto", AUTO, OMP_NUM_THREADS="2") == (4, 2)


@pytest.mark.parametrize("environment", [TORCHRUN, STEP, {**STEP, "SLURM_PROCID": "0"}])
def test_within_torchrun_or_srun_nothing_is_started(environment: dict[str, str]) -> None:
    assert choose("auto", AUTO, environment=environment) is None


def test_a_number_without_effect_is_said_once_by_the_first_process(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "virtex")
    monkeypatch.setattr(logging.getLogger("virtex"), "propagate", True)
    choose(2, AUTO, environment=TORCHRUN)
    choose(8, AUTO, environment={**TORCHRUN, "RANK": "0"})
    assert not caplog.records
    choose(2, AUTO, environment={**TORCHRUN, "RANK": "0"})
    assert "--processes 2 has no effect" in caplog.text
