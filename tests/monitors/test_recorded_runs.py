"""The numbers of runs of test_seeded_runs.py: failures are named, and runs that learn are not."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.monitors.toy_runs import FAILURES, NUM_STEPS, TRUE_ALARMS
from virtex.monitors.history import Chance, Facts
from virtex.monitors.monitors import Monitors

RUNS: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parent / "recorded_runs.json").read_text()
)
SEEN_AT_ONCE = ("duplicate_captions",)
"""Alarms about the data, which a series does not show."""
NAMED = [name for name in RUNS if name in FAILURES and FAILURES[name].alarms != SEEN_AT_ONCE]
GOOD = [name for name in RUNS if name not in FAILURES]


def records(run: dict[str, Any]) -> Iterator[dict[str, float]]:
    """Yield a run's records in the order of its log: every 20 steps, and validation every 100."""
    series, validation = run["series"], run["validation"]
    for number in range(len(series["train/loss"])):
        step = 20 * (number + 1)
        yield {"step": step, **{name: values[number] for name, values in series.items()}}
        if step % 100 == 0:
            index = step // 100 - 1
            yield {"step": step, **{name: values[index] for name, values in validation.items()}}


def alarms(name: str) -> dict[str, int]:
    """Steps of a run's alarms by name."""
    run = RUNS[name]
    facts = Facts(
        chance={key: Chance(value, "chance") for key, value in run["chance"].items()},
        warmup_steps=NUM_STEPS // 50,
        settled_step=run["settled_step"],
        is_comparable=run["is_comparable"],
        follows_norm=run["follows_norm"],
        max_grad_norm=10.0,
    )
    monitors, found = Monitors(facts), dict[str, int]()
    for record in records(run):
        for alarm in monitors.observe(record):
            assert alarm.name not in found
            found[alarm.name] = alarm.step
    return found


@pytest.mark.parametrize("name", NAMED)
def test_a_recorded_failure_is_named(name: str) -> None:
    found = alarms(name)
    assert set(found) & set(FAILURES[name].alarms), found


@pytest.mark.parametrize("name", GOOD)
def test_a_recorded_run_that_learned_raises_no_alarm(name: str) -> None:
    assert set(alarms(name)) == TRUE_ALARMS.get(name, set())


def test_enough_runs_were_recorded() -> None:
    assert len(NAMED) >= 9
    assert len(GOOD) >= 10
