"""Runs that go wrong in a known way are named within 500 steps; runs that learn raise no alarm."""

from pathlib import Path

import pytest

from tests.monitors.toy_runs import FAILURES, NUM_STEPS, SPOILED, TRUE_ALARMS, train, write_data
from tests.real_data import real
from tests.task_options import TASKS

pytestmark = pytest.mark.slow
NEED_MORE = ("label_classification", "instance_segmentation", "locca")
"""Tasks that need labels or boxes, which fashion has not."""
ON_FASHION = [name for name in TASKS if name not in NEED_MORE]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("scenes") / "data")


@pytest.mark.parametrize("name", FAILURES)
def test_a_seeded_failure_is_named_within_500_steps(
    name: str, scenes: Path, tmp_path: Path
) -> None:
    failure = FAILURES[name]
    SPOILED[failure.data](scenes, tmp_path / "data")
    raised = train(failure.task, tmp_path / "data", tmp_path / "run", failure.options)
    assert set(raised) & set(failure.alarms)
    assert all(step <= NUM_STEPS for step, _ in raised.values())


@pytest.mark.parametrize("name", TASKS)
def test_a_run_that_learns_scenes_raises_no_alarm(name: str, scenes: Path, tmp_path: Path) -> None:
    assert train(name, scenes, tmp_path / "run") == {}


@pytest.mark.parametrize("name", ON_FASHION)
def test_a_run_that_learns_fashion_raises_no_alarm(name: str, tmp_path: Path) -> None:
    raised = train(name, real("data/fashion"), tmp_path / "run")
    assert set(raised) == TRUE_ALARMS.get(f"fashion_{name}", set())
