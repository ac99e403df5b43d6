"""A training of the released code that goes on here, step by step as it would have there."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.oracles.released_training import ReleasedTrainer
from tests.oracles.textual_head import PaddedCaptioner
from tests.tasks.test_trajectory import captioned, captioning, stream
from virtex.data.transforms import normalize
from virtex.engine import checkpoint
from virtex.engine.loop import fit
from virtex.engine.optim import OptimConfig
from virtex.engine.run import RunConfig, RunFolder
from virtex.engine.state import TrainingState
from virtex.errors import CheckpointError, ConfigError
from virtex.zoo.init import open_init
from virtex.zoo.released_resume import released_checkpoint

NUM_STEPS, WARMUP, MORE = 48, 22, 24
RUN = RunConfig(
    num_steps=NUM_STEPS, batch_size=8, device="cpu", log_every=1, checkpoint_every=0,
    tensorboard=False,
)  # fmt: skip
OPTIM = OptimConfig(warmup_steps=WARMUP, original=True)
PROJECTIONS = ("query", "key_value")
SCALER = {
    "scale": 1024.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 2000,
    "_growth_tracker": 17,
}  # fmt: skip


def trainer(optimizer: str = "sgd") -> ReleasedTrainer:
    model = PaddedCaptioner(captioning().captioner)
    return ReleasedTrainer(model, num_steps=NUM_STEPS, warmup=WARMUP, optimizer=optimizer)


def batches(first: int, last: int) -> list[Any]:
    found = [captioned(step) for step in range(first, last)]
    return [(normalize(images), tokens, lengths) for images, tokens, lengths in found]


def converted(path: Path, *, run: RunConfig = RUN, optim: OptimConfig = OPTIM) -> dict[str, Any]:
    return released_checkpoint(captioning(), open_init(path), run=run, optim=optim)


def go_on(path: Path, folder: RunFolder, optim: OptimConfig = OPTIM) -> list[float]:
    """Loss and gradient norm of each further step here, in one row."""
    values = converted(path, optim=optim)
    checkpoint.save(folder.checkpoints.at(values["step"]), {**values, "config": {}})
    device = torch.device("cpu")
    fit(captioning(), stream, folder=folder, run=RUN, optim=optim, device=device, config={})
    records = [json.loads(line) for line in folder.log_path.read_text().splitlines()][:MORE]
    return [one[name] for one in records for name in ("train/loss", "train/grad_norm")]


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[int, Path], list[float]]:
    """Files of a released training after 20 and 23 steps, and what it goes on with after 20."""
    folder = tmp_path_factory.mktemp("released")
    training = trainer()
    training.train(batches(0, 20))
    paths = {20: training.save(folder / "checkpoint_20.pth")}
    losses = training.train(batches(20, 23))
    paths[23] = training.save(folder / "checkpoint_23.pth")
    return paths, losses + training.train(batches(23, 20 + MORE))


def test_the_next_steps_are_those_of_the_released_loop(
    released: tuple[dict[int, Path], list[float]], tmp_path: Path
) -> None:
    paths, expected = released
    found = go_on(paths[20], RunFolder(tmp_path))
    assert found == pytest.approx(expected, rel=1e-4)


def test_lookahead_starts_again_as_when_the_released_code_resumes(
    released: tuple[dict[int, Path], list[float]],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = released[0][23]
    there = trainer()
    there.load(path)
    found = go_on(path, RunFolder(tmp_path))[:16]
    assert found == pytest.approx(there.train(batches(23, 31)), rel=1e-4)
    assert "no multiple of optim.lookahead_steps 5" in caplog.text


def small_trainer(optimizer: str = "sgd") -> ReleasedTrainer:
    """After two steps, whose momenta and running means are all different."""
    training = trainer(optimizer)
    training.train(batches(0, 2))
    return training


@pytest.fixture(scope="module")
def after_two() -> ReleasedTrainer:
    return small_trainer()


def test_adamw_keeps_both_means_and_the_step_of_each_parameter(tmp_path: Path) -> None:
    training = small_trainer("adamw")
    optim = replace(OPTIM, optimizer="adamw", weight_decay=1e-4)
    values = converted(training.save(tmp_path / "a.pth"), optim=optim)
    task = captioning()
    state = TrainingState(task, run=RUN, optim=optim, device=torch.device("cpu"))
    state.load_state_dict(values)
    names = dict(task.named_parameters())
    name = "captioner.head.decoders.1.layers.0.grid_attention"
    theirs = dict(training.model.named_parameters())
    stacked = theirs["backward_textual.transformer.layers.0.multihead_attn.in_proj_weight"]
    for mean in ("exp_avg", "exp_avg_sq"):
        ours = [state.optimizer.state[names[f"{name}.{part}.weight"]] for part in PROJECTIONS]
        assert [one["step"].item() for one in ours] == [2, 2]
        expected = training.optimizer.state[stacked][mean]
        assert torch.equal(torch.cat([one[mean] for one in ours]), expected)


def test_the_loss_scaler_goes_on_in_fp16_alone(after_two: ReleasedTrainer, tmp_path: Path) -> None:
    path = after_two.save(tmp_path / "a.pth", scaler=SCALER)
    assert converted(path)["scaler"] == {}
    fp16 = replace(RUN, precision="fp16")
    state = TrainingState(captioning(), run=fp16, optim=OPTIM, device=torch.device("cpu"))
    state.load_state_dict(converted(path, run=fp16))
    assert state.scaler.get_scale() == 1024
    assert state.scaler.state_dict() == SCALER
    assert state.step == 2
    lacking = after_two.values()
    del lacking["scaler"]  # as before torch's own mixed precision
    torch.save(lacking, path)
    assert converted(path, run=fp16)["scaler"]["scale"] == 65536


WRONG = {
    "weights": ({"optimizer": None}, r"no optimizer, scheduler, iteration, but model"),
    "iteration": ({"iteration": -1}, r"ValueError: iteration -1 is no number of steps"),
    "optimizer": ({"optimizer": {"state": {}, "param_groups": []}}, r"has no parameters"),
    "groups": ({"optimizer": {"state": {}, "param_groups": [{"params": [0]}]}}, r"KeyError: 'lr'"),
    "scheduler": ({"scheduler": 3}, r"scheduler, scaler or iteration cannot be read"),
    "scaler": ({"scaler": {"scale": 1.0}}, r"the scaler must have the numbers"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_no_training_checkpoint_is_refused(
    after_two: ReleasedTrainer, tmp_path: Path, kind: str
) -> None:
    changes, message = WRONG[kind]
    values = after_two.values(**changes)
    torch.save({"model": values["model"]} if kind == "weights" else values, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=message):
        converted(tmp_path / "a.pth")


def test_an_optimizer_of_another_model_is_refused(
    after_two: ReleasedTrainer, tmp_path: Path
) -> None:
    optimizer = after_two.values()["optimizer"]
    state = {**optimizer["state"], 1: {"momentum_buffer": torch.zeros(3)}}
    groups = optimizer["param_groups"][:-1]
    path = after_two.save(tmp_path / "a.pth", optimizer={"state": state, "param_groups": groups})
    with pytest.raises(CheckpointError) as caught:
        converted(path)
    number = len(groups) + 1
    assert f"- {number - 1} parameters, and the model has {number}" in str(caught.value)
    assert "momentum_buffer of captioner.backbone.cnn.bn1.weight, which must be" in str(
        caught.value
    )


class Code:
    """An object, for whose class a file would have to import this module."""


def test_a_file_that_holds_objects_is_not_loaded(
    after_two: ReleasedTrainer, tmp_path: Path
) -> None:
    path = after_two.save(tmp_path / "a.pth", scheduler=Code())
    with pytest.raises(CheckpointError, match=r"holds more than weights .*might run code"):
        open_init(path)


def test_all_options_that_differ_are_named_with_the_file_s(
    after_two: ReleasedTrainer, tmp_path: Path
) -> None:
    path = after_two.save(tmp_path / "a.pth")
    optim = replace(OPTIM, lr=0.002, backbone_lr=0.1, momentum=0.8, warmup_steps=3)
    with pytest.raises(ConfigError) as caught:
        converted(path, optim=replace(optim, weight_decay=0.0), run=replace(RUN, num_steps=90))
    for text in (
        "optim.lr is 0.002, and the file's is 0.001, for captioner.head.",
        "optim.backbone_lr is 0.1, and the file's is 0.2, for captioner.backbone.",
        "optim.momentum is 0.8, and the file's is 0.9",
        "optim.weight_decay is 0.0, and the file's is 0.0001",
        "run.num_steps is 90, and the file's is 48",
        "optim.warmup_steps is 3, and the file's is 22",
    ):
        assert text in str(caught.value), text
    rate = r"rate of step 3 would be 0\.136\d* of its peak, and the file's is 0\.0909"
    with pytest.raises(ConfigError, match=rate):
        converted(path, optim=replace(OPTIM, original=False))
    with pytest.raises(ConfigError, match=r"optim.optimizer is adamw, and the file's is sgd"):
        converted(path, optim=replace(OPTIM, optimizer="adamw"))
    with pytest.raises(ConfigError, match=r"num_steps is 48, and the file has 50 steps already"):
        converted(after_two.save(path, iteration=50))
