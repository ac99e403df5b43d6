"""Runs whose backbone is frozen at first, or throughout (LiT)."""

import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.engine.test_resume import assert_identical
from tests.small_run import small_config
from tests.task_options import task_flags
from tests.tasks.two_processes import in_processes
from tests.test_every_task import SAME, WITHOUT_BATCH_NORM, records
from virtex.engine import checkpoint
from virtex.engine.run import RunFolder
from virtex.errors import ConfigError
from virtex.pretrain import check, parse_pretrain, pretrain

FLAGS = ("--num_samples", "0", "--optim.ema_decay", "0.5")


def content(run: Path, step: int) -> dict:
    return checkpoint.load(RunFolder(run).checkpoints.at(step))


def comparable(run: Path) -> dict:
    """The last checkpoint without paths, the momenta in order."""
    found = content(run, 6)
    momenta = dict(sorted(found["optimizer"]["state"].items()))
    return {**found, "config": None, "optimizer": {**found["optimizer"], "state": momenta}}


def changed(run: Path, *, first: int, last: int) -> set[str]:
    before, after = (content(run, step)["task"] for step in (first, last))
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize(
    ("held", "unfreeze_at"),
    [
        (["--backbone.frozen"], 3),
        (["--backbone.freeze_stages=2"], 4),
        (["--backbone.freeze_stages=2", "--backbone.grad_checkpointing"], 3),
    ],
)
def test_a_run_cut_before_at_or_after_the_step_of_unfreezing_ends_with_the_same_bits(
    tmp_path: Path, held: list[str], unfreeze_at: int
) -> None:
    whole = tmp_path / "whole"
    options = (*held, f"--optim.unfreeze_at={unfreeze_at}", "--optim.layer_decay=0.8")
    pretrain(small_config(whole, *FLAGS, *options))
    stem = "captioner.backbone.cnn.conv1.weight"
    assert stem not in changed(whole, first=2, last=unfreeze_at // 2 * 2)
    assert stem in changed(whole, first=4, last=6)
    for step in (2, 4):
        cut = tmp_path / f"cut_{step}"
        shutil.copytree(whole, cut)
        for later in range(step + 2, 7, 2):
            RunFolder(cut).checkpoints.at(later).unlink()
        pretrain(parse_pretrain(["--out", str(cut)]))
        assert_identical(comparable(cut), comparable(whole))


def two(out: Path, *options: str) -> None:
    pretrain(small_config(out, *options))


def test_one_and_two_processes_agree_after_the_backbone_is_unfrozen(tmp_path: Path) -> None:
    held = ["--backbone.freeze_stages=2", "--optim.unfreeze_at=2"]
    options = [*task_flags("bicaptioning"), *held, *WITHOUT_BATCH_NORM, *FLAGS]
    pretrain(small_config(tmp_path / "one", *options))
    in_processes(2, partial(two, tmp_path / "two", *options))
    one, both = (records(tmp_path / name, "train/loss") for name in ("one", "two"))
    assert both == pytest.approx(one, rel=SAME)
    averages = [content(tmp_path / name, 4)["ema"] for name in ("one", "two")]
    for name, value in averages[0].items():
        torch.testing.assert_close(averages[1][name], value, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("held", ["--backbone.frozen", "--backbone.freeze_stages=2"])
def test_layers_that_are_unfrozen_are_synchronized_too(held: str, tmp_path: Path) -> None:
    options = [*task_flags("token_classification"), held, "--optim.unfreeze_at=2", *FLAGS]
    pretrain(small_config(tmp_path / "one", *options))
    synchronized = [*options, "--run.sync_batch_norm"]
    in_processes(2, partial(two, tmp_path / "two", *synchronized))
    one, both = (records(tmp_path / name, "train/loss") for name in ("one", "two"))
    assert both == pytest.approx(one, rel=1e-3)
    mean = "backbone.cnn.bn1.running_mean"
    first, last = (content(tmp_path / name, 4)["task"][mean] for name in ("one", "two"))
    torch.testing.assert_close(last, first, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("task", ["moco", "clip"])
def test_tasks_with_further_encoders_unfreeze(task: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = ("--backbone.freeze_stages=2", "--optim.unfreeze_at=3")
    pretrain(small_config(run, *task_flags(task), *FLAGS, *options))
    assert "backbone.cnn.bn1.running_mean" in changed(run, first=2, last=6)
    assert (
        content(run, 2)["optimizer"]["param_groups"] != content(run, 6)["optimizer"]["param_groups"]
    )


def test_a_locked_backbone_teaches_a_text_encoder(tmp_path: Path) -> None:
    """Zhai et al., "LiT: Zero-Shot Transfer with Locked-image text Tuning", CVPR 2022."""
    first, run = tmp_path / "first", tmp_path / "run"
    pretrain(small_config(first, "--num_samples", "0"))
    options = ["--run.num_steps=30", "--optim.lr=0.01", "--run.checkpoint_every=0"]
    pretrain(
        small_config(run, *task_flags("clip"), "--init", str(first), "--backbone.frozen", *options)
    )
    before, after = content(first, 6)["task"], content(run, 30)["task"]
    backbone: dict[str, Tensor] = {n: v for n, v in after.items() if n.startswith("backbone.")}
    assert backbone
    for name, value in backbone.items():
        assert torch.equal(value, before[f"captioner.{name}"]), name
    losses = records(run, "train/loss")
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--optim.unfreeze_at=2"], "neither is set"),
        (["--backbone.frozen", "--optim.layer_decay=0.5"], "layer_decay is for a backbone that"),
        (["--backbone.frozen", "--optim.unfreeze_at=6"], "must be below the run's 6 steps"),
        (["--backbone.freeze_stages=7"], "freeze_stages 7 must be from 0 to 4"),
        (["--optim.layer_decay=0"], "above 0 and at most 1"),
        (["--optim.unfreeze_at=0"], "at least 1"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    options: list[str], problem: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=problem):
        check(small_config(tmp_path / "run", *options))
