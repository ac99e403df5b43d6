"""The average of weights: against a slow twin, through kills, in several processes, and as INIT."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.amp import GradScaler

from tests.engine.processes import exit_codes, launch, launch_two, wait_for_file
from tests.engine.test_resume import RUN, assert_identical, content
from tests.engine.toy import ToyTask, toy_batch, toy_fit, toy_task
from tests.engine.toy_run import toy_config
from tests.small_run import small_config
from tests.test_early_stopping import give_scores, options
from virtex.engine.optim import OptimConfig
from virtex.engine.run import RunConfig, RunFolder
from virtex.engine.state import TrainingState
from virtex.engine.step import train_step
from virtex.engine.weight_average import WeightAverage
from virtex.errors import CheckpointError, ConfigError
from virtex.predict.loading import load_captioner
from virtex.pretrain import pretrain
from virtex.zoo.backbones import load_backbone
from virtex.zoo.init import open_init

OPTIM = OptimConfig(lr=0.05, backbone_lr=0.1, ema_decay=0.5, lookahead_steps=2)
CPU = torch.device("cpu")


def floats(task: nn.Module) -> dict[str, Tensor]:
    return {
        name: value.detach().double().clone()
        for name, value in task.state_dict().items()
        if value.is_floating_point()
    }


def steps_of(state: TrainingState, run: RunConfig, optim: OptimConfig) -> Iterator[int]:
    for step in range(8):
        train_step(state.task, [toy_batch(step, batch_size=8)], state, run=run, optim=optim)
        yield step + 1


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_averages_follow_the_formula_also_over_steps_that_fp16_skips(precision: str) -> None:
    task, run = toy_task(), RunConfig(batch_size=8, precision=precision)
    state = TrainingState(task, run=run, optim=OPTIM, device=CPU)
    assert state.average is not None
    if precision == "fp16":
        state.scaler = GradScaler("cpu", init_scale=2.0**20)  # of which the first steps overflow
    expected = floats(task)
    for step in steps_of(state, run, OPTIM):
        decay = min(0.5, (1 + step) / (10 + step))
        for name, value in floats(task).items():
            expected[name] = decay * expected[name] + (1 - decay) * value
    assert state.average.values.keys() == expected.keys()
    for name, value in state.average.values.items():
        torch.testing.assert_close(value.double(), expected[name], rtol=1e-5, atol=1e-6)


def test_training_is_the_same_to_the_bit_with_and_without_an_average(tmp_path: Path) -> None:
    states = []
    for decay in (0.0, 0.9):
        folder = RunFolder(tmp_path / str(decay))
        toy_fit(toy_task(), folder, RUN, optim=OptimConfig(lr=0.05, ema_decay=decay))
        states.append(content(folder, RUN.num_steps))
    assert "ema" not in states[0]
    averages = states[1].pop("ema")
    assert not torch.equal(averages["head.weight"], states[1]["task"]["head.weight"])
    assert_identical(*states)


def test_what_is_not_trained_is_that_of_the_latest_step() -> None:
    task = toy_task()
    task.register_buffer("queue", torch.zeros(3))
    task.head.requires_grad_(False)
    average = WeightAverage(task, decay=0.9)
    norm = {"weight", "bias", "running_mean", "running_var"}
    conv = {"backbone.0.weight", "backbone.0.bias"}
    assert average.values.keys() == conv | {f"backbone.1.{name}" for name in norm}


def test_tied_weights_share_an_average() -> None:
    class Tied(ToyTask):
        def __init__(self) -> None:
            super().__init__()
            self.again = self.head

    average = WeightAverage(Tied(), decay=0.9)
    assert average.values["again.weight"] is average.values["head.weight"]


def test_an_average_is_refused_that_was_not_kept_or_is_of_other_weights(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    toy_fit(toy_task(), folder, RUN)
    with pytest.raises(CheckpointError, match=r"ema_decay 0\. Resume"):
        toy_fit(toy_task(), folder, RUN, optim=OptimConfig(ema_decay=0.9))
    with pytest.raises(CheckpointError, match="EMA does not fit"):
        WeightAverage(toy_task(), decay=0.9).load_state_dict({"head.weight": torch.zeros(2)})


def test_a_decay_of_one_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"ema_decay 1\.0 must be at least 0 and below 1"):
        OptimConfig(ema_decay=1.0)


def test_a_killed_run_resumes_with_the_average_of_the_whole_one(tmp_path: Path) -> None:
    whole, cut = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "cut")
    process = launch(cut.path, sleep=0.01, ema_decay=0.9)
    wait_for_file(cut.checkpoints.at(12), process)
    process.kill()
    exit_codes(process)
    assert exit_codes(launch(cut.path, ema_decay=0.9)) == [0]
    toy_fit(
        toy_task(), whole, toy_config(), optim=OptimConfig(backbone_lr=0.1, lr=0.05, ema_decay=0.9)
    )
    assert_identical(content(whole, 40), content(cut, 40))


def test_one_and_two_processes_have_the_same_average(tmp_path: Path) -> None:
    one, two = RunFolder(tmp_path / "one"), RunFolder(tmp_path / "two")
    options = {"ema_decay": 0.9, "plain": True, "num_steps": 12}
    assert exit_codes(launch(one.path, **options), *launch_two(two.path, **options)) == [0, 0, 0]
    averages = [content(folder, 12)["ema"] for folder in (one, two)]
    for name, value in averages[0].items():
        torch.testing.assert_close(averages[1][name], value, rtol=1e-4, atol=1e-6)


def test_the_averaged_weights_of_a_run_are_an_init(tmp_path: Path) -> None:
    out = tmp_path / "run"
    pretrain(small_config(out, "--optim.ema_decay", "0.5", "--num_samples", "0"))
    path = out / "weights_ema.safetensors"
    averaged, trained = open_init(path), open_init(out)
    assert trained.path.name == "weights.safetensors"
    assert (averaged.step, averaged.state.keys()) == (6, trained.state.keys())
    expected = {**trained.state, **content(RunFolder(out), 6)["ema"]}
    assert_identical(dict(averaged.state), {name: expected[name] for name in averaged.state})
    first, second = (next(load_backbone(init).parameters()) for init in (out, path))
    assert not torch.equal(first, second)
    assert load_captioner(path).captioner.bidirectional


def test_early_stopping_keeps_the_average_of_the_step_that_it_keeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    give_scores(monkeypatch, {2: 90.0, 4: 10.0, 6: 5.0})
    pretrain(options(out, "--optim.ema_decay", "0.5"))
    averaged = open_init(out / "weights_ema.safetensors")
    assert averaged.step == open_init(out).step == 2
    assert torch.equal(
        averaged.state["captioner.head.output_bias"],
        content(RunFolder(out), 2)["ema"]["captioner.head.output_bias"],
    )
