"""Parts of a study that fail, that came from other calls, or that do not belong together."""

import json
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from tests.test_study import RECIPE, parsed
from tests.test_study_page import log, score
from virtex import cli
from virtex.config import parse, with_recipes
from virtex.engine.checkpoint import CheckpointFolder
from virtex.engine.loop import FitResult
from virtex.errors import ConfigError, DataError, DivergedError
from virtex.run_data import RunData
from virtex.study import StudyConfig, study, tuning
from virtex.study.checks import check_all, check_same_images
from virtex.study.plan import Run, is_to_run, planned_runs
from virtex.study.scores import Measurement, measurements
from virtex.study.summary import num_images_seen, summarize
from virtex.study.table import table
from virtex.study.tuning import trials, tune, tuned
from virtex.transfer.identities import same_data
from virtex.transfer.protocol import Result

RANDOM = {"name": "random", "pretrain": None}
RESULT = Result(
    protocol="multilabel-svm", headline="mAP", numbers={"mAP": 1.0}, settings={},
    initialisation={"init": "x"}, data={}, seed=0, versions={}, device="cpu", seconds=1.0,
)  # fmt: skip


def extended(tmp_path: Path, first: dict[str, object], second: dict[str, object]) -> StudyConfig:
    """The study of a file that extends another one."""
    for name, values in (("first", first), ("second", {"extends": "first.yaml", **second})):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(values))
    arguments = ["--config", str(tmp_path / "second.yaml"), "--out", str(tmp_path / "out")]
    return parse(StudyConfig, with_recipes(arguments, "study"), prog="virtex study")


def test_rows_and_scores_replace_those_of_an_extended_file(tmp_path: Path) -> None:
    few = {"name": "few", "options": {"shots": 5}, "draws": 2, "numbers": ["mAP"], "root": "a"}
    row = {**RANDOM, "seeds": [3], "times": 2.0, "recipes": ["a"], "annotation_hours": 1.0}
    first = {"rows": [row, {"name": "b", "init": "x"}], "scores": [few, few | {"name": "other"}]}
    second = {
        "rows": [{"name": "c"}, {"name": "d"}],
        "scores": [{"name": "all"}, {"name": "e", "protocol": "linear"}],
    }
    alone = parse(
        StudyConfig, ["--config", yaml.safe_dump(second), "--out", str(tmp_path)], prog="study"
    )
    config = extended(tmp_path, first, second)
    assert (config.rows, config.scores) == (alone.rows, alone.scores)


def test_data_of_the_same_rule_are_the_same_and_others_are_not() -> None:
    drawn = {"root": "a", "drawn": "shots 5", "subset": "1", "subset_sha256": "2", "names": "x"}
    data = {"train": drawn, "test": {"root": "a", "names": "y"}}
    assert same_data(data, {**data, "train": drawn | {"subset": "3", "subset_sha256": "4"}})
    assert not same_data(data, {**data, "test": {"root": "a", "names": "z"}})
    assert not same_data(data, {**data, "train": drawn | {"drawn": "shots 4"}})
    assert not same_data(data, {**data, "train": drawn | {"names": "z"}})
    whole = {"test": {"subset_sha256": "1"}}
    assert not same_data(whole, {"test": {"subset_sha256": "2"}})


def test_a_row_is_as_many_times_as_long_whatever_the_length(tmp_path: Path) -> None:
    rows = [{"name": "a"}, {"name": "b", "times": 2.5}]
    for steps, expected in ((6, [6, 15]), (20, [20, 50])):
        pretrain = {**RECIPE["pretrain"], "run": RECIPE["pretrain"]["run"] | {"num_steps": steps}}
        runs = planned_runs(parsed(tmp_path, rows=rows, pretrain=pretrain))
        assert [run.options.run.num_steps for run in runs] == expected
    epochs = {"run": {"num_epochs": 2}}
    rows = [{"name": "b", "times": 2.5, "pretrain": epochs}]
    [run] = planned_runs(parsed(tmp_path, rows=rows))
    assert run.options.run.num_epochs == 5
    with pytest.raises(ConfigError, match=r"times 0\.0 must be at least 0\.001"):
        planned_runs(parsed(tmp_path, rows=[{"name": "b", "times": 0}]))


def test_milestones_follow_the_length_of_longer_rows_and_of_trials(tmp_path: Path) -> None:
    cut = {"optim": {"schedule": "multistep", "milestones": [10, 15]}, "run": {"num_steps": 20}}
    rows = [{"name": str(times), "times": times, "pretrain": cut} for times in (5, 0.5, 1)]
    config = parsed(tmp_path, rows=rows, tune={"factors": [1], "num_steps": 5})
    runs = planned_runs(config)
    assert [run.options.optim.milestones for run in runs] == [(50, 75), (5, 7), (10, 15)]
    tried = [trial.options.optim.milestones for run in runs for trial in trials(config, run)]
    assert tried == [(2, 3), (2, 3), (2, 3)]
    check_all(config, runs)


def test_a_begun_row_that_is_longer_stays_as_it_was(tmp_path: Path) -> None:
    config = parsed(tmp_path, rows=[{"name": "a", "times": 2}])
    study(config)
    [run] = planned_runs(config)
    assert run.options.run.num_steps == 12
    assert num_images_seen(run) == 96
    study(config)


def test_the_domain_s_study_takes_length_and_size_from_flags(tmp_path: Path) -> None:
    flags = ["--init=resnet18.a1_in1k", "--pretrain.run.num_steps=50", "--image_size=64"]
    flags += ["--pretrain.backbone.name=resnet18", "--pretrain.image.size=64"]
    flags += [f"--data.root={tmp_path}", f"--target.root={tmp_path}", f"--out={tmp_path}"]
    arguments = with_recipes(["--config", "domain", *flags], "study")
    runs = planned_runs(config := parse(StudyConfig, arguments, prog="virtex study"))
    lengths = {run.row.name: run.options.run.num_steps for run in runs}
    assert lengths.pop("token classification, 5 times as long") == 250
    assert lengths.pop("given weights, then token classification, 5 times as long") == 250
    assert set(lengths.values()) == {50}
    [finetuned] = [one for one in measurements(config, runs[0]) if one.score.protocol == "finetune"]
    assert (finetuned.options.image.size, finetuned.options.image.scale) == (64, (0.4, 1.0))


def test_a_rate_that_diverges_is_lost_and_the_others_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = parsed(tmp_path, rows=[{"name": "a"}], tune={"factors": [0.5, 100], "num_steps": 2})
    [run] = planned_runs(config)
    tried = []

    def diverging(options: object, processes: object) -> FitResult:
        tried.append(options.out.name)
        if options.out.name == "factor_100":
            raise DivergedError("training diverged: loss not finite")
        return FitResult(2, "finished")

    monkeypatch.setattr(tuning, "pretrain_in_team", diverging)
    monkeypatch.setattr(tuning, "_score", lambda config, trial: RESULT)
    for _ in range(2):  # the second time nothing is left to try
        tune(config, run, 1)
        assert tried == ["factor_0.5", "factor_100"]
    assert "row 'a', factor 100 is lost: training diverged" in caplog.text
    assert tuned(config, run).optim.lr == 0.5 * run.options.optim.lr
    trials(config, run)[0].path.unlink()
    trials(config, run)[0].lost_path.write_text("as well")
    with pytest.raises(DivergedError, match=r"at all factors \[0.5, 100.0\]"):
        tune(config, run, 1)


def test_a_row_that_fails_leaves_the_others_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump({**RECIPE, "rows": [{"name": "bad"}, RANDOM]}))
    command = ["study", str(path), "--out", str(tmp_path / "out")]

    def failing(options: object, processes: object) -> FitResult:
        raise DivergedError("training diverged: loss not finite")

    with monkeypatch.context() as patched:
        patched.setattr(import_module("virtex.study.study"), "pretrain_in_team", failing)
        assert cli.main(command) == 2
    shown = capsys.readouterr()
    assert "row 'bad', seed 0: training diverged" in shown.err
    assert "the same command tries again" in shown.err
    assert "| random | 0 |" in (tmp_path / "out" / "table.md").read_text()
    assert cli.main(command) == 0
    assert "| bad | 48 |" in (tmp_path / "out" / "table.md").read_text()


def test_a_draw_that_fails_leaves_the_other_columns_to_measure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = [{"name": "few", "options": {"shots": 3}, "draws": 2}, {"name": "all"}]
    config = parsed(tmp_path, rows=[RANDOM], scores=scores)
    run_protocol = Measurement.carry_out

    def failing(self: object) -> None:
        if self.path.name == "draw_1.json":
            raise DataError("cannot train an SVM for 1 of 3 classes")
        run_protocol(self)

    monkeypatch.setattr(Measurement, "carry_out", failing)
    with pytest.raises(DataError, match=r"seed 0, draw_1 of score 'few': cannot train an SVM"):
        study(config)
    [run] = planned_runs(config)
    assert [one.path.exists() for one in measurements(config, run)] == [True, False, True]


def with_data(run: Run, num_images: int) -> None:
    run.folder.mkdir(parents=True)
    RunData({"images": num_images, "images sha256": str(num_images)}).write(run.folder)


def test_rows_pretrained_on_data_that_changed_are_refused(tmp_path: Path) -> None:
    rows = [{"name": "a"}, {"name": "b"}, {"name": "half", "pretrain": {"data": {"share": 0.5}}}]
    runs = planned_runs(parsed(tmp_path, rows=rows))
    for run, num_images in zip(runs, (40, 40, 20), strict=True):
        with_data(run, num_images)
    check_same_images(runs)
    with_data(replace(runs[1], folder=tmp_path / "out" / "b" / "seed_1"), 32)
    runs = planned_runs(parsed(tmp_path, rows=rows))  # which finds the other seed
    with pytest.raises(DataError, match=r"rows 'a' and 'b': images: 40 before, 32 now"):
        check_same_images(runs)


def test_a_score_of_weights_before_their_pretraining_is_refused(tmp_path: Path) -> None:
    config = parsed(tmp_path, rows=[{"name": "a"}])
    [run] = planned_runs(config)
    study(config)
    path = run.folder / "result.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "initialisation": {"init": "given.pth", "sha256": "x"}}))
    with pytest.raises(ConfigError, match=r"init given\.pth, now a pretraining"):
        study(config)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"scores": [{"name": "x", "root": "target"}]}, "leave root out: target is the data"),
        (
            {"scores": [{"name": "x", "draws": 2}], "rows": [{**RANDOM, "seeds": [0, 1000]}]},
            "draw the same labels twice",
        ),
        ({"rows": [{"name": "一" * 34}]}, "at most 100 bytes"),
        ({"rows": [{"name": "a\nb"}]}, "without line breaks"),
        (
            {"scores": [{"name": "x", "numbers": ["mAP", "knn_mAP"]}, {"name": "x, mAP"}]},
            "two columns are called 'x, mAP'",
        ),
    ],
)
def test_what_would_mislead_is_refused(
    tmp_path: Path, changes: dict[str, object], part: str
) -> None:
    with pytest.raises(ConfigError, match=part):
        study(parsed(tmp_path, **changes))
    seeds = {"rows": [{**RANDOM, "seeds": [0, 1000]}]}
    planned_runs(parsed(tmp_path, **seeds))  # without draws they are as good as others


def test_the_table_shows_scores_of_seeds_that_another_call_ran(tmp_path: Path) -> None:
    config = parsed(tmp_path, rows=[{**RANDOM, "seeds": [0, 2]}])
    for run, value in zip(planned_runs(config), (10.0, 20.0), strict=True):
        score(run, value)
    later = parsed(tmp_path, rows=[{**RANDOM, "seeds": [1]}])
    runs = planned_runs(later)
    assert [(run.seed, is_to_run(later, run)) for run in runs] == [
        (1, True), (0, False), (2, False),
    ]  # fmt: skip
    assert "| **15.00** ± 7.07 | 2 |" in table(summarize(later, runs))


def test_cells_of_fewer_seeds_and_runs_that_ended_early_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = [{"name": "one"}, {"name": "two"}]
    config = parsed(tmp_path, rows=[{"name": "a", "seeds": [0, 1]}], scores=scores)
    first, second = planned_runs(config)
    for run, names in ((first, ("one", "two")), (second, ("one",))):
        for name in names:
            score(run, 10.0, path=run.folder / "scores" / name / "draw_0.json")
    monkeypatch.setattr(CheckpointFolder, "steps", lambda _: [2, 4])
    monkeypatch.setattr("virtex.study.summary.with_stored_choices", lambda options, _: options)
    line = table(summarize(config, [first, second])).splitlines()[2]
    assert line.startswith("| a | 32 | ")
    assert line.endswith("| 1 to 2 |")


def test_the_figure_joins_rows_that_differ_in_the_number_of_images_alone(tmp_path: Path) -> None:
    rows = [
        {"name": "half", "pretrain": {"data": {"share": 0.5}}},
        {"name": "whole"},
        {"name": "longer", "times": 2},
        {
            "name": "wide",
            "pretrain": {"task": {"name": "bicaptioning", "head": {"hidden_size": 128}}},
        },
    ]
    config = parsed(tmp_path, rows=rows)
    runs = planned_runs(config)
    for run in runs:
        score(run, 10.0)
        log(run, key="train/loss", num_images=8)
    recipes = [row.recipe for row in summarize(config, runs).rows]
    assert recipes[0] == recipes[1]
    assert len(set(recipes)) == 3


def test_a_report_does_not_replace_the_page_of_a_study(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = parsed(tmp_path, rows=[{**RANDOM, "seeds": [0]}])
    study(config)
    page = (config.out / "report.html").read_bytes()
    assert cli.main(["report", str(config.out)]) == 2
    assert "is the folder of a study, whose page report.html" in capsys.readouterr().err
    assert (config.out / "report.html").read_bytes() == page
