"""Options that were set for another network, task or source than the one named later."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from virtex import config
from virtex.errors import ConfigError
from virtex.pretrain import PretrainConfig, parse_pretrain
from virtex.tasks.base import TaskConfig
from virtex.tasks.captioning import CaptioningConfig
from virtex.tasks.registry import TASKS
from virtex.transfer.voc07 import Voc07Config

STRIDE = {"output_stride": 8}
SLIM = {"layers": [1, 1, 1, 1], "channels": [48, 96, 192, 384]}


def parse(*arguments: str) -> PretrainConfig:
    return parse_pretrain(["--data.root", "x", "--out", "/nowhere/run", *arguments])


@dataclass(frozen=True)
class Holder:
    task: TaskConfig = field(default_factory=CaptioningConfig)


def task(*arguments: str) -> dict[str, Any]:
    return config.to_dict(config.parse(Holder, arguments, prog="x").task)


def test_another_network_is_as_timm_defines_it(caplog: pytest.LogCaptureFixture) -> None:
    backbone = parse("--config", "cpu_small", "--backbone.name", "resnet50").backbone
    assert (backbone.name, backbone.options) == ("resnet50", {})
    assert f"left out backbone.options {SLIM}" in caplog.text
    assert "backbone.name resnet50" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--backbone.name", "resnet18"], SLIM),
        (["--backbone.name=resnet50", "--backbone.options={output_stride: 8}"], STRIDE),
        (["--backbone.options.output_stride=8", "--backbone.name=resnet50"], STRIDE),
        (["--backbone.options.output_stride", "8"], {**SLIM, "output_stride": 8}),
        (["--config", "backbone: {name: resnet50}\n"], {}),
        (["--config", "backbone: {name: resnet50, options: {output_stride: 8}}\n"], STRIDE),
        (["--config", "backbone: {options: {output_stride: 8}}\n"], STRIDE),
        (["--backbone", "{name: resnet50}"], {}),
    ],
)  # fmt: skip
def test_options_beside_the_name_or_without_it_stay(
    arguments: list[str], expected: dict[str, Any]
) -> None:
    assert parse("--config", "cpu_small", *arguments).backbone.options == expected


def test_what_is_given_again_is_not_called_left_out(caplog: pytest.LogCaptureFixture) -> None:
    named = ["--config", "cpu_small", "--backbone.name", "resnet50"]
    parse(*named, "--backbone.options", "{output_stride: 8}")
    parse("--config", "cpu_small", "--backbone.name=resnet18")
    superclip = parse("--config", "own_data", "--task", "superclip").task
    assert superclip.token_weight == 1  # as the recipe's bicaptioning has it
    assert "left out" not in caplog.text


def test_flags_win_over_files_that_stand_after_them() -> None:
    options = parse("--backbone.name", "resnet34", "--run.num_steps=7", "--config", "cpu_small")
    assert (options.backbone.name, options.backbone.options) == ("resnet34", {})
    assert options.run.num_steps == 7


@pytest.mark.parametrize(
    ("before", "now", "lost"),
    [
        ("{name: moco, temperature: 0.2, dim: 64}", "pirl", ["temperature", "dim"]),
        ("{name: icmlm, mask_token_share: 1.0, random_token_share: 0.0}", "masked_lm",
         ["mask_token_share", "random_token_share"]),
        ("superclass", "label_classification", ["idf"]),
        ("{name: token_classification, loss: bce, max_tokens: 9}", "superclass",
         ["loss", "max_tokens"]),
        ("{name: token_classification, loss: bce}", "label_classification", ["loss"]),
    ],
)  # fmt: skip
def test_another_task_keeps_no_options_of_the_one_before(
    before: str, now: str, lost: list[str]
) -> None:
    first, fresh = f"task: {before}\n", task("--task", now)
    for arguments in (["--task", now], ["--config", f"task: {now}\n"]):
        found = task("--config", first, *arguments)
        assert {name: found.get(name) for name in lost} == {name: fresh.get(name) for name in lost}
        assert found == fresh
    [option, *_] = lost
    if option in fresh:
        assert task("--config", first, f"--task.{option}={fresh[option]}", "--task", now) == fresh


def test_sizes_of_a_recipe_hold_for_every_task_that_has_them() -> None:
    head = "task: {name: bicaptioning, original: true, head: {hidden_size: 64}}\n"
    for name in ("captioning", "masked_lm", "cappa"):
        assert task("--config", head, "--task", name)["head"]["hidden_size"] == 64
    assert task("--config", head, "--task", "captioning")["original"]
    assert (
        parse("--config", "clip", "--task", "siglip", "--task.text.causal=false").task
        == parse("--config", "siglip").task
    )


def test_any_task_may_follow_any_other() -> None:
    names = [*TASKS, *list(TASKS)[:3]]
    for before, *others in zip(names, names[1:], names[2:], names[3:], strict=False):
        for now in {*others, "label_classification"} - {before}:
            assert task("--config", f"task: {before}\n", "--task", now) == task("--task", now)


def test_another_source_keeps_no_options_that_it_lacks(caplog: pytest.LogCaptureFixture) -> None:
    scenes = "data: {source: scenes, num_images: 7, image_size: 64, seed: 3, num_captions: 2}\n"
    data = parse("--config", scenes, "--data.source", "folder").data
    fresh = parse("--data.source", "folder", "--data.seed", "3", "--data.num_captions", "2").data
    assert data == fresh
    assert "left out data.num_images 7" in caplog.text
    target = "data: {source: folder, root: x, val_share: 0.5}\n"
    voc = config.parse(
        Voc07Config, ["--config", target, "--data.source=voc", "--init=x", "--out=x"], prog="x"
    )
    assert (voc.data.source, voc.data.root, voc.data.val_share) == ("voc", Path("x"), 0)


def test_a_schedule_keeps_no_milestones_of_another() -> None:
    optim = parse("--config", "moco_coco", "--optim.schedule", "cosine").optim
    assert optim.milestones == ()
    optim = parse("--config", "cpu_small", "--optim.optimizer=sgd", "--optim.momentum=0.5").optim
    assert (optim.optimizer, optim.momentum, optim.lr) == ("sgd", 0.5, 0.002)


def test_a_stored_config_is_one_layer() -> None:
    options = parse("--config", "captioner_small")
    assert config.from_dict(PretrainConfig, config.to_dict(options)) == options
    with pytest.raises(ConfigError, match="holds no run"):
        parse_pretrain(["--out", "/nowhere/run"])
