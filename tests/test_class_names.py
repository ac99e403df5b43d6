"""Files in which tasks bear the names of their classes, as all had before tasks had names."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.small_run import OPTIONS, small_config
from virtex import load_captioner
from virtex.config import parse, to_dict, with_recipes
from virtex.errors import CheckpointError
from virtex.pretrain import PretrainConfig, parse_pretrain, pretrain
from virtex.study import StudyConfig
from virtex.study.plan import planned_runs
from virtex.tasks.captioning import CaptioningConfig
from virtex.tasks.classification import TokenClassificationConfig
from virtex.zoo.init import open_init
from virtex.zoo.weights_file import save_weights


def by_class(config: PretrainConfig) -> dict[str, Any]:
    """The config as files had it."""
    options = to_dict(config.task)
    return {**to_dict(config), "task": {"class_path": "CaptioningConfig", "init_args": options}}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("small") / "run"
    pretrain(small_config(out))
    return out


def test_a_run_is_resumed_from_its_config_file(run: Path) -> None:
    written = (run / "config.yaml").read_text()
    assert yaml.safe_load(written)["task"]["name"] == "bicaptioning"
    (run / "config.yaml").write_text(yaml.safe_dump(by_class(small_config(run))))
    assert parse_pretrain(["--out", str(run)]) == small_config(run)
    assert pretrain(small_config(run)).step == 6
    assert (run / "config.yaml").read_text() == written


def write_weights(run: Path, path: Path, config: dict[str, Any]) -> None:
    weights = open_init(run / "weights.safetensors")
    save_weights(path, weights.state, config=config, tokenizer=weights.tokenizer, step=weights.step)


def test_a_weights_file_is_read(run: Path, tmp_path: Path) -> None:
    assert open_init(run / "weights.safetensors").config["task"]["name"] == "bicaptioning"
    path = tmp_path / "weights.safetensors"
    write_weights(run, path, by_class(small_config(run)))
    models = [load_captioner(source).captioner for source in (run, path)]
    assert asdict(models[0].config) == asdict(models[1].config)


@pytest.mark.parametrize(
    "hostile",
    [
        {"task": "helper.Config"},
        {"image": "helper.Config"},
        {"task": {"class_path": "helper.Config"}},
        {"task": {"name": "bicaptioning", "head": {"class_path": "helper.Config"}}},
        {"task": {"name": "bicaptioning", "head": {"hidden_size": 1 << 20}}},
        {"task": {"name": "bicaptioning", "head": {"max_tokens": 10**9}}},
        {"image": {"size": float("inf")}},
    ],
    ids=str,
)
def test_a_weights_file_imports_nothing_and_builds_nothing_absurd(
    hostile: dict[str, Any], run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "helper.py").write_text("class Config:\n    pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    path = tmp_path / "weights.safetensors"
    write_weights(run, path, {**to_dict(small_config(run)), **hostile})
    with pytest.raises(CheckpointError):
        load_captioner(path)
    assert "helper" not in sys.modules


def test_a_recipe_is_read(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        "extends: base\ntask:\n  class_path: CaptioningConfig\n"
        "  init_args: {bidirectional: false, head: {hidden_size: 128}}\n"
    )
    task = parse_pretrain(["--config", str(recipe), "--out", str(tmp_path / "run")]).task
    assert isinstance(task, CaptioningConfig)
    assert (task.bidirectional, task.original, task.head.hidden_size) == (False, True, 128)
    flags = ["--config", "base", "--out", str(tmp_path / "run"), "--task"]
    bce = [*flags, "TokenClassificationConfig", "--task.loss", "bce", "--task.init_args.idf=false"]
    assert parse_pretrain(bce).task == TokenClassificationConfig("bce", False, 30, True)


def test_a_study_is_read(tmp_path: Path) -> None:
    rows = [
        {"name": "one direction", "pretrain": {"task": {"init_args": {"bidirectional": False}}}},
        {"name": "tokens", "pretrain": {"task": {"class_path": "TokenClassificationConfig"}}},
    ]
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump({"rows": rows, "pretrain": yaml.safe_load(OPTIONS)}))
    arguments = with_recipes(["--config", str(path), "--out", str(tmp_path / "out")], "study")
    tasks = [run.options.task for run in planned_runs(parse(StudyConfig, arguments, prog="s"))]
    assert isinstance(tasks[0], CaptioningConfig)
    assert not tasks[0].bidirectional
    assert isinstance(tasks[1], TokenClassificationConfig)
