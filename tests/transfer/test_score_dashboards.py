from dataclasses import replace
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.report.conftest import make_result
from virtex.engine.tracked_run import TrackedRun
from virtex.transfer.score_dashboards import show_scores


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder, as far as scores look at it."""
    out = tmp_path / "run"
    (out / "checkpoints").mkdir(parents=True)
    (out / "tensorboard").mkdir()
    for name in ("log.jsonl", "weights.safetensors", "checkpoints/step_00000003.pt"):
        (out / name).touch()
    return out


@pytest.mark.parametrize("init", [".", "weights.safetensors", "checkpoints/step_00000003.pt"])
def test_tensorboard_gets_the_mean_scores_of_a_runs_weights(run: Path, init: str) -> None:
    origin = {"init": "run", "step": 3}
    results = [make_result("run", score, initialisation=origin) for score in (80.0, 82.0)]
    show_scores(results, str(run / init))
    events = EventAccumulator(str(run / "tensorboard" / "transfer")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("transfer/voc07/mAP")] == [(3, 81.0)]


def test_scores_of_other_weights_or_labels_have_names_of_their_own(run: Path) -> None:
    origin = {"init": "run", "step": 3}
    (run / "weights_ema.safetensors").touch()
    few = {"train": {"drawn": "shots 5"}}
    for init, score, options in (
        ("weights.safetensors", 70.0, {}),
        ("weights_ema.safetensors", 60.0, {}),
        ("weights_ema.safetensors", 50.0, {"data": few}),
        ("weights.safetensors", 40.0, {"settings": {"layer": "stage3"}}),
    ):
        result = replace(make_result("run", score, initialisation=origin), **options)
        show_scores([result], str(run / init))
    events = EventAccumulator(str(run / "tensorboard" / "transfer")).Reload()
    tags = [tag for tag in events.Tags()["scalars"] if tag.endswith("/mAP")]
    assert {tag: [event.value for event in events.Scalars(tag)] for tag in tags} == {
        "transfer/voc07/mAP": [70.0],
        "transfer/voc07_averaged/mAP": [60.0],
        "transfer/voc07_averaged_shots_5/mAP": [50.0],
        "transfer/voc07_stage3/mAP": [40.0],
    }


def test_scores_of_weights_that_are_no_run_go_nowhere(tmp_path: Path) -> None:
    show_scores([make_result("imagenet", 80.0)], "imagenet")
    show_scores([make_result("a", 80.0)], str(tmp_path / "weights.safetensors"))
    assert list(tmp_path.iterdir()) == []


def test_a_dashboard_that_is_not_installed_is_named(
    run: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("virtex.engine.tracking.is_installed", lambda package: False)
    TrackedRun.create(run, tracker="trackio", project="p", options="").write(run)
    show_scores([make_result("run", 80.0)], str(run))
    assert "pip install trackio" in caplog.text
    assert not (run / "tracking.log").exists()
