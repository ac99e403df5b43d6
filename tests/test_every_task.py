"""What holds for every pretext task: it learns, resumes bit for bit, trains in two processes."""

import json
import shutil
import statistics
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from tests.small_run import small_config
from tests.task_options import TASKS, task_flags
from tests.tasks.two_processes import in_processes
from virtex.data.tokenizer import Tokenizer
from virtex.engine import checkpoint
from virtex.models.backbone import Backbone
from virtex.pretrain import PretrainConfig, parse_pretrain, pretrain
from virtex.tasks import registry
from virtex.zoo.backbones import load_backbone
from virtex.zoo.init import open_init

NUM_LEARNING_STEPS, CUT_AT = 40, 32
LONG_ENOUGH = f"""
run: {{num_steps: {NUM_LEARNING_STEPS}, checkpoint_every: {CUT_AT}, validate_every: {CUT_AT}}}
optim: {{lr: 0.01, backbone_lr: 0.01}}
"""
STILL = (
    "--optim.lr=0",
    "--optim.backbone_lr=0",
    "--optim.weight_decay=0",
    "--run.validate_every=0",
)
DRIFTING = {"moco", "pirl", "clip", "siglip", "superclip", "token_classification_bce"}
"""Tasks whose loss changes by more than 1 % without learning: a queue or bank fills, pieces differ.
Theirs is compared on the same pieces with that of a run whose weights stay."""
WITHOUT_BATCH_NORM = (
    "--config",
    """
backbone: {options: {layers: [1, 1, 1, 1], channels: [8, 8, 16, 16], norm_layer: groupnorm1}}
run: {num_steps: 4, checkpoint_every: 0, validate_every: 0}
optim: {lr: 0.001, backbone_lr: 0.001}
""",
)
SAME = 1e-5
"""How far losses of one and two processes may differ: by rounding, 2e-6 where it was measured."""


def records(run: Path, key: str) -> list[float]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line[key] for line in lines if key in line]


def final_state(run: Path) -> dict[str, torch.Tensor]:
    path = sorted((run / "checkpoints").iterdir())[-1]
    return checkpoint.load(path)["task"]


def test_every_registered_task_is_tested() -> None:
    assert {task["name"] for task in TASKS.values()} == set(registry.TASKS)


@pytest.fixture(scope="module", params=TASKS)
def learned(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a task, long enough to learn something."""
    out = tmp_path_factory.mktemp(request.param) / "run"
    pretrain(small_config(out, *learning_flags(request.param)))
    return out


def learning_flags(name: str) -> list[str]:
    return [*task_flags(name), "--config", LONG_ENOUGH, "--num_samples", "0"]


def test_the_loss_falls_on_scenes(learned: Path, tmp_path: Path) -> None:
    losses, name = records(learned, "train/loss"), learned.parent.name.removesuffix("0")
    before = losses[:10]
    if name in DRIFTING:
        pretrain(small_config(tmp_path / "run", *learning_flags(name), *STILL))
        before = records(tmp_path / "run", "train/loss")[-10:]
    assert statistics.fmean(losses[-10:]) < 0.97 * statistics.fmean(before)


def test_a_run_cut_in_two_ends_with_the_same_bits(learned: Path, tmp_path: Path) -> None:
    cut = tmp_path / "run"
    shutil.copytree(learned, cut)
    (cut / "checkpoints" / f"step_{NUM_LEARNING_STEPS:08}.pt").unlink()
    pretrain(parse_pretrain(["--out", str(cut)]))
    assert records(cut, "train/loss") == records(learned, "train/loss")
    whole, resumed = final_state(learned), final_state(cut)
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_the_backbone_comes_out(learned: Path) -> None:
    backbone = load_backbone(learned)
    assert isinstance(backbone, Backbone)
    weights = open_init(learned / "weights.safetensors")
    assert isinstance(weights.tokenizer, Tokenizer) == (learned / "tokenizer.model").exists()
    trained = [value for name, value in final_state(learned).items() if "backbone.cnn" in name]
    assert any(torch.equal(value, next(backbone.parameters())) for value in trained)


def without_batch_norm(out: Path, name: str) -> PretrainConfig:
    """The options of a task on a backbone whose statistics are not each process's own."""
    flags = [*WITHOUT_BATCH_NORM, *task_flags(name), "--backbone.frozen_norm=false"]
    return small_config(out, *flags)


@pytest.fixture(scope="module")
def by_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of each task by two processes, which are started but once."""
    folder = tmp_path_factory.mktemp("two")
    in_processes(2, partial(train_each, folder), timeout=300)
    return folder


def train_each(folder: Path) -> None:
    """Train each task, in each process of a group."""
    for name in TASKS:
        pretrain(without_batch_norm(folder / name, name))
    assert "sklearn" not in sys.modules  # which takes a second to import


@pytest.mark.parametrize("name", TASKS)
def test_one_and_two_processes_agree(name: str, by_two: Path, tmp_path: Path) -> None:
    pretrain(without_batch_norm(tmp_path / "one", name))
    one, two = (records(run, "train/loss") for run in (tmp_path / "one", by_two / name))
    assert two == pytest.approx(one, rel=SAME)
