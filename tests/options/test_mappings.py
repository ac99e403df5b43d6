"""Mappings of options, merged by depth."""

from pathlib import Path

import pytest

from virtex import config
from virtex.errors import ConfigError
from virtex.options.mappings import merged
from virtex.study import StudyConfig


@pytest.mark.parametrize(
    ("first", "second", "both"),
    [
        ({"task": "cappa"}, {"task": {"head": {}}}, {"task": {"name": "cappa", "head": {}}}),
        ({"task": "cappa"}, {"task": {"name": "clip"}}, {"task": {"name": "clip"}}),
        (
            {"run": {"num_steps": 400, "batch_size": 8}},
            {"run": {"num_epochs": 2}},
            {"run": {"num_epochs": 2, "batch_size": 8}},
        ),
        (
            {"run": {"num_epochs": 2}},
            {"run": {"num_steps": 400}},
            {"run": {"num_steps": 400}},
        ),
        (
            {"optim": {"optimizer": "adamw", "betas": [0.9, 0.98], "lr": 0.1}},
            {"optim": {"optimizer": "sgd"}},
            {"optim": {"optimizer": "sgd", "lr": 0.1}},
        ),
        (
            {"optim": {"optimizer": "adamw", "betas": [0.9, 0.98]}, "optimizer": "adamw"},
            {"optim": {"optimizer": "adamw"}, "optimizer": "sgd"},
            {"optim": {"optimizer": "adamw", "betas": [0.9, 0.98]}, "optimizer": "sgd"},
        ),
        (
            {"data": {"source": "scenes", "image_size": 64, "share": 0.5}},
            {"data": {"source": "folder", "root": "x"}},
            {"data": {"source": "folder", "root": "x", "share": 0.5}},
        ),
    ],
)
def test_the_second_mapping_wins(first: dict, second: dict, both: dict) -> None:
    assert merged(first, second) == both


def test_a_chain_of_files_keeps_a_task_that_is_given_by_its_name() -> None:
    layers = ["pretrain: {task: cappa}\n", "pretrain: {task: {head: {num_layers: 2}}}\n"]
    flags = ["--config", "rows: []\n", *(part for text in layers for part in ("--config", text))]
    found = config.parse(StudyConfig, [*flags, "--out", "x"], prog="study")
    assert found.pretrain == {"task": {"name": "cappa", "head": {"num_layers": 2}}}


def test_flags_are_one_layer_whose_order_means_nothing(caplog: pytest.LogCaptureFixture) -> None:
    recipe = "rows: []\npretrain: {optim: {optimizer: sgd, momentum: 0.5, lr: 0.1}}\n"
    flags = ["--pretrain.optim.betas=[0.5, 0.9]", "--pretrain.optim.optimizer=adamw"]
    for given in (flags, flags[::-1]):
        caplog.clear()
        arguments = ["--config", recipe, *given, "--out", "x"]
        found = config.parse(StudyConfig, arguments, prog="study").pretrain
        assert found == {"optim": {"optimizer": "adamw", "betas": [0.5, 0.9], "lr": 0.1}}
        [record] = caplog.records
        path = "pretrain.optim"
        assert record.getMessage() == (
            f"left out {path}.momentum 0.5: it was set before {path}.optimizer adamw was named"
        )


def test_a_mapping_may_stand_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "more.yaml"
    path.write_text("optim: {lr: 0.1}\ntask: cappa\n")

    def parse(*flags: str) -> StudyConfig:
        recipe = "rows: []\npretrain: {optim: {lr: 0.2, backbone_lr: 0.3}}\n"
        return config.parse(StudyConfig, ["--config", recipe, *flags, "--out=x"], prog="study")

    changed = {"optim": {"lr": 0.1, "backbone_lr": 0.3}, "task": "cappa"}
    assert parse("--pretrain", str(path)).pretrain == changed
    assert parse("--pretrain", str(path), "--pretrain.optim.lr=4").pretrain["optim"]["lr"] == 4
    assert parse("--row_options.a", str(path)).row_options["a"]["optim"] == {"lr": 0.1}
    assert parse("--pretrain.init", str(path)).pretrain["init"] == str(path)
    for flag in ("--pretrain", "--row_options.a"):
        with pytest.raises(ConfigError, match=f"{flag} takes a YAML file of options or a mapping"):
            parse(flag, "absent.yaml")
