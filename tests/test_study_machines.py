"""Machines that share the folder of a study, each with rows or random seeds of its own."""

import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.test_study import parsed
from tests.test_study_tuning import write_trial
from virtex import files
from virtex.errors import ConfigError
from virtex.study import study, tuning
from virtex.study.plan import planned_runs
from virtex.study.tuning import trials, tune

RANDOM = {"name": "random", "pretrain": None}


@pytest.fixture
def while_held(caplog: pytest.LogCaptureFixture) -> Callable[..., None]:
    """Start `work`, which waits for a lock, and release it after `meanwhile`."""
    caplog.set_level("INFO", logger="virtex")

    def run(lock: Path, work: Callable[[], object], meanwhile: Callable[[], object]) -> None:
        with ThreadPoolExecutor() as pool:
            with files.locked(lock, subject="the test"):
                done = pool.submit(work)
                while "is in use by" not in caplog.text and not done.done():
                    time.sleep(0.05)
                assert not done.done(), done.exception() or "it did not wait"
                meanwhile()
            done.result()

    return run


def test_a_seed_of_another_machine_that_appears_meanwhile_is_in_the_table(
    tmp_path: Path, while_held: Callable[..., None]
) -> None:
    config = parsed(tmp_path, rows=[RANDOM])
    assert study(config).read_text().endswith("| 1 |\n")
    row = config.out / "random"
    while_held(
        config.out / ".table.lock",
        lambda: study(config),
        lambda: shutil.copytree(row / "seed_0", row / "seed_7"),
    )
    assert (config.out / "table.md").read_text().endswith("| 2 |\n")
    assert "<td>7, 0</td>" in (config.out / "report.html").read_text()


@pytest.mark.parametrize("lock", [".lock", "factor_0.5/.lock"])  # all trials, or the first
def test_trials_of_another_machine_are_waited_for_and_then_read(
    lock: str, tmp_path: Path, while_held: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    tune_by = {"factors": [0.5, 2], "num_steps": 2}
    config = parsed(tmp_path, rows=[{"name": "a"}], seeds=[1], tune=tune_by)
    [run] = planned_runs(config)
    tried: list[float] = []
    monkeypatch.setattr(tuning, "_try", lambda config, run, trial, _: tried.append(trial.factor))
    half, twice = trials(config, run)
    while_held(
        config.out / "a" / "tuning" / lock,
        lambda: tune(config, run, 1),
        lambda: write_trial(config, half),
    )
    assert tried == [twice.factor]


def test_trials_that_another_machine_made_otherwise_are_refused_after_the_wait(
    tmp_path: Path, while_held: Callable[..., None]
) -> None:
    tune_by = {"factors": [0.5, 2], "num_steps": 2}
    config = parsed(tmp_path, rows=[{"name": "a"}], seeds=[1], tune=tune_by)
    [run] = planned_runs(config)
    half, _ = trials(config, run)
    with pytest.raises(ConfigError, match="trials are of another study"):
        while_held(
            config.out / "a" / "tuning" / ".lock",
            lambda: tune(config, run, 1),
            lambda: write_trial(config, half, settings={"image_size": 1}),
        )
