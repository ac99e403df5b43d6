"""The choice of each row's learning rate in a study, and its refusals."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from PIL import Image

from tests.test_study import RECIPE, parsed
from virtex import files
from virtex.config import to_dict
from virtex.data.source import open_source
from virtex.early_stopping import LABELS
from virtex.errors import ConfigError, DataError
from virtex.study import StudyConfig, study, tuning
from virtex.study.plan import Run, planned_runs
from virtex.study.study_config import Row
from virtex.study.tuning import Trial, check_trials, trials
from virtex.transfer.protocol import Result


def test_a_row_s_learning_rate_is_chosen_on_held_out_training_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tune = {"factors": [0.5, 2], "num_steps": 3}
    config = parsed(tmp_path, rows=[RECIPE["rows"][0], {"name": "a", "seeds": [1]}], tune=tune)
    lines = study(config).read_text().splitlines()
    results = {
        factor: Result.read(config.out / "a" / "tuning" / f"factor_{factor:g}" / "result.json")
        for factor in (0.5, 2)
    }
    numbers = {
        result.numbers["num_train"] + result.numbers["num_test"] for result in results.values()
    }
    assert numbers == {60.0}  # all are the target's training images
    best = max(results, key=lambda factor: results[factor].score)
    run = planned_runs(config)[-1]
    stored = yaml.safe_load((run.folder / "config.yaml").read_text())
    assert stored["optim"]["lr"] == best * run.options.optim.lr
    assert stored["optim"]["backbone_lr"] == best * run.options.optim.backbone_lr
    assert stored["run"]["num_steps"] == 6
    assert f"| {stored['optim']['lr']:.2g} |" in lines[3]
    assert "| random | 0 |  |" in lines[2]
    monkeypatch.setattr("virtex.study.tuning.pretrain_in_team", None)  # nothing is left to do
    assert study(config).read_text().splitlines() == lines


def test_the_target_s_test_images_take_no_part_in_trials(tmp_path: Path) -> None:
    tune = {"factors": [1], "num_steps": 2}
    [run] = planned_runs(config := parsed(tmp_path, rows=[{"name": "a"}], tune=tune, best_from=4))
    [trial] = trials(config, run)
    assert run.options.early_stopping.first_step == 4
    assert trial.options.early_stopping.protocol == "none"


def test_checkpoints_are_chosen_on_a_target_that_is_given(tmp_path: Path) -> None:
    target = {"source": "voc"}
    with pytest.raises(ConfigError, match=r"best_from .* give --target\.root"):
        planned_runs(parsed(tmp_path, rows=[{"name": "a"}], target=target, best_from=4))


def write_trial(config: StudyConfig, trial: Trial, **changes: object) -> None:
    """Write a result as if the trial had been scored."""
    train, test = tuning._halves(config)
    protocol = tuning._protocol(config, trial.options.out, num_train=len(train))
    values = {
        "protocol": protocol.name, "headline": protocol.headline, "settings": protocol.settings(),
        "numbers": {protocol.headline: 1.0}, "initialisation": {"init": "x"}, "seed": 0,
        "data": {"train": train.identity(), "test": test.identity()},
        "versions": {}, "device": "cpu", "seconds": 1.0,
    }  # fmt: skip
    Result(**{**values, **changes}).write(trial.path)


def test_trials_scored_with_other_settings_are_refused(tmp_path: Path) -> None:
    rows, tune = [{"name": "a"}], {"factors": [1], "num_steps": 2}
    [run] = planned_runs(config := parsed(tmp_path, rows=rows, tune=tune))
    write_trial(config, *trials(config, run))
    check_trials(config, [run])
    for changes, what in (
        ({"image_size": 64}, "image_size 32, now 64"),
        ({"target": {**RECIPE["target"], "num_images": 50}}, "other data"),
    ):
        with pytest.raises(ConfigError, match=what):
            check_trials(parsed(tmp_path, rows=rows, tune=tune, **changes), [run])


def of_classes(tmp_path: Path, *classes: int) -> StudyConfig:
    """A study tuned by a linear probe, on images of these classes."""
    for index, label in enumerate(classes):
        for split in ("train", "val"):
            path = tmp_path / "classes" / split / f"class_{label}" / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (32, 32), (8 * index, 8 * label, 0)).save(path)
    tune = {"factors": [1, 2], "num_steps": 2, "protocol": "linear"}
    target = {"source": "classes", "root": str(tmp_path / "classes")}
    return parsed(tmp_path, rows=[{"name": "a"}], tune=tune, target=target)


def test_a_row_of_the_target_tries_rates_without_the_images_that_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = Row("a", root="target", pretrain={"task": "label_classification"})
    config = replace(of_classes(tmp_path, *[index % 2 for index in range(30)]), rows=[row])
    [run] = planned_runs(config)
    written = SimpleNamespace(write=lambda path: None, reason="finished")
    monkeypatch.setattr(tuning, "pretrain_in_team", lambda *_: written)
    monkeypatch.setattr(tuning, "_score", lambda *_: written)
    tuning.tune(config, run, "auto")
    trained = open_source(trials(config, run)[0].options.data, split="train", needs=LABELS)
    ids = [
        {source.image_id(index) for index in range(len(source))}
        for source in (trained, tuning._halves(config)[1])
    ]
    assert not ids[0] & ids[1]
    assert len(ids[0] | ids[1]) == 30
    assert run.options.data.keep is None


def test_a_linear_probe_of_few_images_needs_no_option_to_choose_rates(tmp_path: Path) -> None:
    config = of_classes(tmp_path, *[index % 2 for index in range(30)])
    check_trials(config, planned_runs(config))


def test_images_held_out_must_show_the_classes_of_the_others(tmp_path: Path) -> None:
    config = of_classes(tmp_path, *range(30))
    with pytest.raises(DataError, match="classes of the images held out"):
        check_trials(config, planned_runs(config))


def test_rates_that_score_the_same_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = of_classes(tmp_path, *[index % 2 for index in range(30)])
    [run] = planned_runs(config)
    for trial in trials(config, run):
        write_trial(config, trial)
    tuning.tune(config, run, "auto")
    assert "row 'a': all of its learning rates score the same" in caplog.text


def test_rows_that_differ_in_length_alone_share_their_trials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        {"name": "a"},
        {"name": "longer", "times": 3},
        {"name": "b", "pretrain": {"data": {"num_captions": 1}}},
    ]
    tune = {"factors": [0.5, 2], "num_steps": 2}
    config = parsed(tmp_path, rows=rows, seeds=[1], tune=tune)
    runs = planned_runs(config)
    tried = list[tuple[str, float]]()

    def scored(config: StudyConfig, run: Run, trial: Trial, processes: object) -> None:
        tried.append((run.row.name, trial.factor))
        if trial.factor == 2:
            files.write(trial.lost_path, "training diverged")
        else:
            write_trial(config, trial, seed=len(tried))

    monkeypatch.setattr(tuning, "_try", scored)
    for run in runs:
        tuning.tune(config, run, 1, runs)
    assert tried == [("a", 0.5), ("a", 2), ("b", 0.5), ("b", 2)]
    half, twice = trials(config, runs[1])
    assert Result.read(half.path).seed == 1
    assert twice.lost_path.read_text() == "training diverged"


def test_a_row_that_has_begun_keeps_its_factors(tmp_path: Path) -> None:
    rows = [{"name": "a", "pretrain": {"run": {"num_steps": 1}}}]
    tune = {"factors": [0.5, 2], "num_steps": 2}
    changes = {"rows": rows, "tune": tune}
    [run] = planned_runs(config := parsed(tmp_path, **changes))
    for trial in trials(config, run):
        write_trial(config, trial)
    options_path = run.folder.parent / "tuning" / "options.json"
    for is_known in (True, False):  # and as earlier versions left it
        study(config)
        assert options_path.exists()
        if not is_known:
            options_path.unlink()
        for other in ([0.5, 2, 3], [0.5], []):
            with pytest.raises(ConfigError, match=r"(?s)keep `tune` as it was.*row 'a'.*, now "):
                study(parsed(tmp_path, **changes | {"tune": {**tune, "factors": other}}))
    study(config)
    options_path.write_text(json.dumps(to_dict(config.tune)))
    with pytest.raises(ConfigError, match="num_steps 2, now 3"):
        study(parsed(tmp_path, **changes | {"tune": {**tune, "num_steps": 3}}))
