"""Rows of a study that begin with given weights, or learn from the target."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from tests.small_run import small_config
from tests.test_study import RECIPE, parsed
from virtex import cli, config, files
from virtex.engine.run import RunFolder
from virtex.errors import ConfigError
from virtex.pretrain import pretrain
from virtex.run_data import RunData
from virtex.study import StudyConfig, study
from virtex.study.checks import _check_first_weights, _other_weights, _sha256_of
from virtex.study.plan import _network_of, planned_runs

ROWS = [
    {"name": "random", "pretrain": None},
    {"name": "weights", "pretrain": None, "init": "given"},
    {"name": "captions"},
    {"name": "weights, then captions", "init": "given"},
    {"name": "labels", "root": "target", "pretrain": {"task": "label_classification"}},
]
SLIM = "{layers: [1, 1, 1, 1], channels: [8, 8, 16, 24]}"
NORMALIZATION = ["--backbone.image_mean", "[0.5, 0.5, 0.5]", "--backbone.image_std", "[1, 1, 1]"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights") / "run"
    short = ["--run.num_steps", "1", "--optim.warmup_steps", "0"]
    pretrain(small_config(folder, "--backbone.options", SLIM, *NORMALIZATION, *short))
    return folder / "weights.safetensors"


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "classes"
    few = ["--num_train", "60", "--num_val", "20", "--image_size", "64", "--layout", "imagenet"]
    assert cli.main(["scenes", "--out", str(folder), *few]) == 0
    return folder


def of(tmp_path: Path, **changes: object) -> StudyConfig:
    """The options of a study of ROWS, in which no backbone is named."""
    own = {name: value for name, value in RECIPE["pretrain"].items() if name != "backbone"}
    return parsed(tmp_path, **{"rows": ROWS, "pretrain": own, **changes})


def test_all_rows_have_the_network_of_the_given_weights(tmp_path: Path, weights: Path) -> None:
    runs = planned_runs(of(tmp_path, init=str(weights)))
    backbones = [run.options.backbone for run in runs]
    assert all(one.options["channels"] == [8, 8, 16, 24] for one in backbones)
    assert {one.image_mean for one in backbones} == {(0.5, 0.5, 0.5)}
    given = str(weights)
    assert [run.start for run in runs] == ["random", given, "random", given, "random"]
    assert [run.options.init for run in runs[2:]] == ["random", given, "random"]
    named = of(tmp_path, init=str(weights), pretrain=RECIPE["pretrain"])
    assert planned_runs(named)[0].options.backbone.options["channels"] == [8, 8, 16, 16]


def test_rows_begin_with_the_given_weights_and_learn_from_the_target(
    tmp_path: Path, weights: Path, classes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    linear = {"name": "linear", "protocol": "linear"}
    linear["options"] = {"neighbors": {"num_neighbors": 3}}
    target = {"source": "classes", "root": str(classes)}
    rows = [row for row in ROWS if row["name"] not in ("random", "captions")]
    first = tmp_path / "first.safetensors"
    first.write_bytes(weights.read_bytes())
    options = of(tmp_path, init=str(first), target=target, scores=[linear], rows=rows)
    lines = study(options).read_text().splitlines()
    assert [line.split(" | ")[1] for line in lines[2:]] == ["0", "48", "48"]
    out = options.out
    scored = json.loads((out / "weights/seed_0/scores/linear/draw_0.json").read_text())
    assert scored["initialisation"]["init"] == str(first)
    begun = yaml.safe_load((out / "weights_then_captions/seed_0/config.yaml").read_text())
    assert begun["init"] == str(first)
    labels = yaml.safe_load((out / "labels/seed_0/config.yaml").read_text())
    assert labels["data"]["root"] == str(classes)
    assert labels["data"]["source"] == "classes"
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.json")}
    (tmp_path / "elsewhere").mkdir()
    for folder in (".", "elsewhere"):  # nothing is missing, and what exists is the study's
        monkeypatch.chdir(tmp_path / folder)
        here, init, root = map(os.path.relpath, (out, first, classes))
        target = replace(options.target, root=Path(root))
        study(replace(options, out=Path(here), init=init, target=target))
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*.json")}
    _network_of.cache_clear()
    first.unlink()
    study(options)  # which needs the weights no longer
    with pytest.raises(cli.VirTexError, match=r"first\.safetensors"):
        study(replace(options, seeds=[0, 1]))


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"rows": ROWS[:2]}, "rows weights begin with given weights: give --init"),
        ({"init": "random"}, "init random states no network"),
        ({"rows": [{"name": "x", "pretrain": None, "root": "target"}]}, "'x': root target is data"),
        (
            {"rows": [{"name": "x", "init": "given", "pretrain": {"init": "y"}}], "init": "z"},
            "'x': init and pretrain.init both name weights",
        ),
        (
            {"rows": [{"name": "x", "pretrain": None, "init": "y", "root": "z"}]},
            "'x': without pretraining, root and init both name weights",
        ),
        ({"init": "nowhere.safetensors"}, "nowhere.safetensors"),
    ],
)
def test_contradictory_weights_are_refused(
    tmp_path: Path, changes: dict[str, object], part: str
) -> None:
    with pytest.raises((ConfigError, cli.VirTexError), match=part):
        study(of(tmp_path, **changes))
    assert not (tmp_path / "out").exists()


def test_a_mistake_in_all_rows_is_told_once(tmp_path: Path) -> None:
    with pytest.raises(cli.VirTexError) as raised:
        planned_runs(of(tmp_path, init="nowhere.safetensors"))
    text = str(raised.value)
    assert text.count("no such file") == 1
    assert "- row 'random', row 'weights', row 'captions' and 2 more: 'nowhere" in text


@pytest.mark.parametrize("option", ["backbone", "optim", "run.num_steps"])
def test_null_is_refused_where_an_option_has_a_value(
    tmp_path: Path, weights: Path, option: str
) -> None:
    text = "null" if "." not in option else "{num_steps: null}"
    changes = yaml.safe_load(f"{option.partition('.')[0]}: {text}")
    with pytest.raises(ConfigError, match=f"{option} takes a value, not null"):
        planned_runs(of(tmp_path, init=str(weights), pretrain=changes))


def test_other_weights_at_the_same_path_are_refused(tmp_path: Path, weights: Path) -> None:
    """Rows that begin later would begin with them."""
    path = tmp_path / "first.safetensors"
    path.write_bytes(weights.read_bytes())
    options = of(tmp_path, init=str(path), rows=[ROWS[3]], seeds=[0, 1])
    begun = planned_runs(options)[0]
    RunFolder(begun.folder).write_config(config.to_dict(begun.options))
    RunData({}, files={"init": files.sha256(path)}).write(begun.folder)
    files.write(RunFolder(begun.folder).checkpoints.at(1), "")
    _check_first_weights(begun.options, _sha256_of)
    with pytest.raises(ConfigError, match="and the file now has SHA-256 1f"):
        _check_first_weights(begun.options, lambda init: "1f")
    path.unlink()
    _check_first_weights(begun.options, lambda init: "1f")


def test_other_weights_for_begun_rows_are_refused_with_advice_for_a_study(
    tmp_path: Path, weights: Path
) -> None:
    options = of(tmp_path, init=str(weights), rows=[ROWS[3]])
    begun = planned_runs(options)[0]
    RunFolder(begun.folder).write_config(config.to_dict(begun.options))
    files.write(RunFolder(begun.folder).checkpoints.at(1), "")
    other = tmp_path / "other.safetensors"
    other.write_bytes(weights.read_bytes())
    with pytest.raises(ConfigError, match=r"init was .*other.* as a study has to"):
        study(replace(options, init=str(other)))


def test_flags_and_files_change_single_options_of_a_shipped_recipe(tmp_path: Path) -> None:
    path = tmp_path / "longer.yaml"
    path.write_text(
        "extends: tasks_small\n"
        "pretrain: {run: {num_steps: 7, log_every: 1}}\n"
        "row_options: {CLIP: {run: {num_steps: 9}}}\n"
    )
    flags = ["--config", str(path), "--out", "x", "--pretrain.run.num_steps", "8"]
    flags += ["--pretrain", "{num_samples: 3}", "--row_options.CLIP.optim.lr", "1e-3"]
    options = config.parse(StudyConfig, config.with_recipes(flags, "study"), prog="study")
    assert options.pretrain["image"] == {"size": 64}
    run = options.pretrain["run"]
    assert (run["num_steps"], run["log_every"], run["batch_size"]) == (8, 1, 64)
    assert options.pretrain["num_samples"] == 3
    assert options.row_options == {"CLIP": {"run": {"num_steps": 9}, "optim": {"lr": 1e-3}}}


def test_a_mapping_that_names_another_choice_replaces_the_earlier_one(tmp_path: Path) -> None:
    path = tmp_path / "wide.yaml"
    path.write_text(
        "rows: []\npretrain: {backbone: {name: resnet18, options: {layers: [1, 1, 1, 1]}}}\n"
    )
    flags = ["--config", str(path), "--out", "x", "--pretrain", "{backbone: {name: resnet50}}"]
    options = config.parse(StudyConfig, config.with_recipes(flags, "study"), prog="study")
    assert options.pretrain == {"backbone": {"name": "resnet50"}}


def test_weights_that_are_gone_are_known_however_the_row_spells_them(tmp_path: Path) -> None:
    [run] = planned_runs(parsed(tmp_path, rows=[ROWS[0] | {"init": "./gone/run/"}]))
    assert _other_weights(run, {"init": "gone/run", "sha256": "1f"}, lambda init: None) == ""
    assert "init gone/other" in _other_weights(run, {"init": "gone/other"}, lambda init: None)
