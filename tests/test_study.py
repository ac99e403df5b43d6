"""A study end to end on a few drawn scenes."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

from tests.small_run import OPTIONS
from virtex import cli
from virtex.config import parse
from virtex.errors import ConfigError
from virtex.study import StudyConfig, study
from virtex.study.checks import check_all
from virtex.study.plan import planned_runs
from virtex.study.scores import empty_cells, measurements
from virtex.study.summary import summarize
from virtex.study.table import table
from virtex.transfer.protocol import Result

RECIPE = {
    "rows": [
        {"name": "random", "pretrain": None, "seeds": [0, 1]},
        {"name": "two directions"},
        {"name": "one direction", "pretrain": {"task": {"init_args": {"bidirectional": False}}}},
    ],
    "pretrain": {**yaml.safe_load(OPTIONS), "data": {}},
    "image_size": 32,
    "leave_out_rare": True,
    "data": {"num_images": 24, "num_val_images": 8, "image_size": 64},
    "target": {"source": "scenes", "num_images": 60, "num_val_images": 40, "image_size": 64},
    "num_workers": 0,
}


def options(tmp_path: Path, **changes: object) -> list[str]:
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump({**RECIPE, **changes}))
    return [str(path), "--out", str(tmp_path / "out")]


def parsed(tmp_path: Path, **changes: object) -> StudyConfig:
    return parse(StudyConfig, ["--config", *options(tmp_path, **changes)], prog="study")


def test_a_study_runs_what_is_missing_and_writes_its_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = options(tmp_path)
    assert cli.main(["study", *arguments, "--only", '["random", "one direction"]']) == 0
    first = capsys.readouterr().out
    assert "| random | 0 |" in first
    assert "| one direction | 48 |" in first
    assert "two directions" not in first
    out = tmp_path / "out"
    before = (out / "random" / "seed_1" / "result.json").stat().st_mtime_ns
    assert cli.main(["study", *arguments]) == 0
    assert (out / "random" / "seed_1" / "result.json").stat().st_mtime_ns == before
    lines = (out / "table.md").read_text().splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == [
        "random", "two directions", "one direction",
    ]  # fmt: skip
    assert "| mAP on scenes |" in lines[0]
    assert not any("**" in line for line in lines)  # all lie within the first one's deviation
    config = json.loads((out / "one_direction" / "seed_0" / "result.json").read_text())
    assert config["initialisation"]["step"] == 6


def test_the_table_gives_mean_and_deviation_of_several_seeds(tmp_path: Path) -> None:
    config = parsed(tmp_path, rows=RECIPE["rows"][:1])
    study(config)
    runs = planned_runs(config)
    scores = [
        json.loads((run.folder / "result.json").read_text())["numbers"]["mAP"] for run in runs
    ]
    mean, half = sum(scores) / 2, abs(scores[0] - scores[1]) / 2
    assert scores[0] != scores[1]
    assert f"**{mean:.2f}** ± {2**0.5 * half:.2f} | 2 |" in table(summarize(config, runs))


def test_a_row_may_have_data_of_its_own(tmp_path: Path) -> None:
    rows = [{"name": "half", "pretrain": {"data": {"share": 0.5}}, "seeds": [3]}]
    [run] = planned_runs(parsed(tmp_path, rows=rows))
    assert (run.options.data.share, run.options.data.num_images) == (0.5, 24)
    assert run.options.run.seed == 3


def test_a_row_may_name_a_task_with_options(tmp_path: Path) -> None:
    rows = [{"name": "thin", "pretrain": {"task": {"name": "bicaptioning", "grid_share": 0.3}}}]
    [run] = planned_runs(parsed(tmp_path, rows=rows))
    assert run.options.task.grid_share == 0.3


def test_single_rows_and_scores_may_be_changed_by_name(tmp_path: Path) -> None:
    config = parsed(
        tmp_path,
        rows=[{"name": "a, b", "pretrain": {"run": {"num_steps": 9}}}, {"name": "c"}],
        scores=[{"name": "few", "options": {"shots": 3}}, {"name": "all"}],
        row_options={"a, b": {"run": {"num_steps": 7}}},
        score_options={"few": {"shots": 2}},
    )
    runs = planned_runs(config)
    assert [run.options.run.num_steps for run in runs] == [7, 6]
    few, whole = measurements(config, runs[0])
    assert (few.options.shots, whole.options.shots) == (2, None)


def test_a_study_does_not_resume_with_other_options(tmp_path: Path) -> None:
    study(parsed(tmp_path, rows=RECIPE["rows"][:2]))
    longer = [{"name": "two directions", "pretrain": {"run": {"num_steps": 9}}}]
    with pytest.raises(ConfigError, match="num_steps was 6, now 9"):
        study(parsed(tmp_path, rows=longer))
    with pytest.raises(ConfigError, match="image_size 32, now 64"):
        study(parsed(tmp_path, rows=RECIPE["rows"][:2], image_size=64))


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"only": ["nobody"]}, "nobody"),
        ({"only": []}, "only is empty"),
        ({"only": ""}, "no row is called"),
        ({"rows": []}, "rows is empty"),
        ({"rows": [{"name": ""}]}, "letters or digits"),
        ({"rows": [{"name": "../x" * 200}]}, "at most 100 bytes"),
        ({"rows": [{"name": "x", "seeds": []}]}, "seeds of 0 or more"),
        ({"rows": [{"name": "x", "seeds": [-1]}]}, "seeds of 0 or more"),
        ({"rows": [{"name": "x", "seeds": list(range(501))}]}, "501 runs"),
        ({"rows": [{"name": "+x"}, {"name": "-X"}]}, "name of its own"),
        ({"rows": [{"name": "x", "seeds": [1, 1]}]}, "seeds once"),
        ({"tune": {"factors": [1, 0]}}, "tune: factors"),
        ({"tune": {"factors": [1], "held_out": 1.0}}, "tune: held_out"),
        ({"scores": [{"name": "x", "protocol": "voc08"}]}, "unknown protocol 'voc08'"),
        ({"scores": [{"name": "x", "options": {"shot": 1}}]}, "score 'x'"),
        (
            {"scores": [{"name": "x", "options": {"init": "random"}}]},
            "score 'x'.* has init: weights",
        ),
        ({"scores": [{"name": "x"}], "score_options": {"x": {"seed": 1}}}, "has seed.*draws"),
        ({"scores": [{"name": "x", "draws": 0}]}, "score 'x': draws 0"),
        ({"scores": [{"name": "x"}, {"name": "X"}]}, "score 'X': give it a name of its own"),
        ({"recipes": ["cpu_small"], "data": {}}, "trains on data of your own, and none are named"),
        ({"row_options": {"Random": {}}}, "row 'Random'.*Did you mean random"),
        ({"score_options": {"x": {}}}, "score 'x', which there is not"),
        (
            {"rows": [{"name": "y", "score_recipes": {"x": "imagenet"}}]},
            "row 'y': score_recipes names the score 'x', which there is not",
        ),
        (
            {
                "rows": [{"name": "y", "score_recipes": {"x": "imagenet_moc"}}],
                "scores": [{"name": "x", "protocol": "imagenet"}],
            },
            "score 'x', by recipe imagenet_moc of row 'y'.*imagenet_moco",
        ),
        (
            {"rows": [{"name": "y"}, {"name": "x", "pretrain": {"backbone": {"name": "resnet5"}}}]},
            "unknown backbone",
        ),
        ({"rows": [{"name": "x", "pretrain": {"task": {"class_path": "NoTask"}}}]}, "row 'x'"),
    ],
)
def test_problems_are_reported_before_anything_runs(
    tmp_path: Path, changes: dict[str, object], part: str
) -> None:
    with pytest.raises(ConfigError, match=part):
        study(parsed(tmp_path, **changes))
    assert not (tmp_path / "out").exists()


def test_scores_are_columns_with_options_of_their_own(tmp_path: Path) -> None:
    scores = [
        {"name": "all"},
        {"name": "few", "options": {"shots": 3, "leave_out_rare": True}, "draws": 2},
        {"name": "both", "numbers": ["mAP", "knn_mAP"]},
    ]
    config = parsed(tmp_path, rows=RECIPE["rows"][:1], scores=scores)
    lines = study(config).read_text().splitlines()
    assert (
        lines[0] == "| pretraining | images seen | all | few | both, mAP | both, knn_mAP | seeds |"
    )
    few = config.out / "random" / "seed_1" / "scores" / "few"
    drawn = [Result.read(few / f"draw_{draw}.json") for draw in (0, 1)]
    assert [result.seed for result in drawn] == [1, 1001]
    assert {result.data["train"]["drawn"] for result in drawn} == {"shots 3"}
    scores[1]["options"]["shots"] = 4
    with pytest.raises(ConfigError, match="shots 3, now 4"):
        study(parsed(tmp_path, rows=RECIPE["rows"][:1], scores=scores))


def test_rows_and_columns_whose_data_are_not_given_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ["--num_train", "60", "--num_val", "20", "--image_size", "64", "--layout", "imagenet"]
    assert cli.main(["scenes", "--out", str(tmp_path / "classes"), *few]) == 0
    rows = [
        RECIPE["rows"][0] | {"seeds": [0]},
        {"name": "labels", "root": "labels", "annotation_hours": 12},
    ]
    rows[1]["pretrain"] = {"task": "label_classification", "data": {"source": "classes"}}
    linear = {"name": "linear", "protocol": "linear", "root": "labels"}
    linear["options"] = {"neighbors": {"num_neighbors": 3}}
    changes = {"rows": rows, "scores": [{"name": "mAP"}, linear]}
    lines = study(parsed(tmp_path, **changes)).read_text().splitlines()
    assert "--roots.labels DIR" in capsys.readouterr().err
    assert lines[0] == "| pretraining | images seen | mAP | seeds |"
    assert len(lines) == 3
    roots = {"labels": str(tmp_path / "classes")}
    lines = study(parsed(tmp_path, **changes, roots=roots)).read_text().splitlines()
    assert lines[0] == "| pretraining | images seen | annotation hours | mAP | linear | seeds |"
    assert lines[3].startswith("| labels | 48 | 12 | ")
    with pytest.raises(ConfigError, match=r"row 'labels': give --roots.labels DIR"):
        planned_runs(parsed(tmp_path, **changes, only="labels"))
    with pytest.raises(ConfigError, match="roots names photos, which no row or score has"):
        study(parsed(tmp_path, **changes, roots={"photos": "."}))


def test_the_best_checkpoint_is_scored_where_the_study_says_so(tmp_path: Path) -> None:
    rows = [{"name": "a", "pretrain": {"run": {"checkpoint_every": 3}}}]
    study(parsed(tmp_path, rows=rows, best_from=0))
    folder = tmp_path / "out" / "a" / "seed_0"
    scores = {
        result.initialisation["step"]: result.score
        for result in map(Result.read, (folder / "results").glob("*.json"))
    }
    assert sorted(scores) == [3, 6]
    best = max(scores, key=scores.__getitem__)
    assert Result.read(folder / "result.json").initialisation["step"] == best


def test_mistakes_of_all_rows_and_scores_are_reported_together(tmp_path: Path) -> None:
    rows = [{"name": name, "pretrain": {"run": {name: 1}}} for name in ("a", "b")]
    with pytest.raises(ConfigError, match=r"(?s)- row 'a': .*- row 'b': "):
        planned_runs(parsed(tmp_path, rows=rows))
    rows = [{"name": name, "pretrain": {"backbone": {"name": name}}} for name in ("r5", "r6")]
    scores = [{"name": name, "options": {name: 1}} for name in ("c", "d")]
    names = ("score 'c'", "score 'd'", "row 'r5'", "row 'r6'")
    config = parsed(tmp_path, rows=rows, scores=scores)
    with pytest.raises(ConfigError, match="(?s)" + ".*".join(f"- {name}: " for name in names)):
        check_all(config, planned_runs(config))


def test_a_score_of_other_weights_is_refused(tmp_path: Path) -> None:
    def of(**row: object) -> StudyConfig:
        return parsed(tmp_path, rows=[{"name": "a", "pretrain": None, **row}])

    first, second = (tmp_path / f"{name}.safetensors" for name in "ab")
    for value, path in enumerate((first, second)):
        save_file({"x": torch.full((1,), value)}, path)
    study(of())
    study(of())
    slim = {"name": "resnet18", "options": {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}}
    pretrain = RECIPE["pretrain"] | {"backbone": slim}
    with pytest.raises(ConfigError, match=r"backbone.options .*16, 16.*, now .*8, 8\]"):
        study(parsed(tmp_path, rows=[{"name": "a", "pretrain": None}], pretrain=pretrain))
    with pytest.raises(ConfigError, match=f"init random, now {first}"):
        study(of(init=str(first)))
    with pytest.raises(ConfigError, match="init random, now a pretraining"):
        study(of(pretrain={}))
    result = Result.read(path := tmp_path / "out" / "a" / "seed_0" / "result.json")
    origin = {"init": str(first), "sha256": hashlib.sha256(first.read_bytes()).hexdigest()}
    replace(result, initialisation=origin).write(path)
    study(of(init=str(first)))
    with pytest.raises(ConfigError, match=r"a.safetensors of SHA-256 .*, now .*b.safetensors"):
        study(of(init=str(second)))
    moved = second.rename(first)
    with pytest.raises(ConfigError, match=r"a.safetensors of SHA-256 .*, now .*a.safetensors"):
        study(of(init=str(moved)))
    moved.unlink()
    study(of(init=str(moved)))  # weights of a finished row need not be there


def test_a_number_that_a_protocol_does_not_give_leaves_its_column_empty(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [RECIPE["rows"][0] | {"seeds": [0]}]
    scores = [{"name": "both", "numbers": ["mAP", "mAPP"]}]
    lines = study(parsed(tmp_path, rows=rows, scores=scores)).read_text().splitlines()
    assert lines[0] == "| pretraining | images seen | both, mAP | both, mAPP | seeds |"
    assert lines[2].endswith(" |  | 1 |")
    assert caplog.text.count("has no number 'mAPP'") == 1
    assert "it gives mAP, " in caplog.text


def test_cells_of_rows_without_captions_stay_empty(tmp_path: Path) -> None:
    scores = [{"name": "mAP"}, {"name": "captions", "protocol": "captioning"}]
    config = parsed(tmp_path, scores=scores)
    assert empty_cells(config, planned_runs(config)) == {"captions": ["random"]}
