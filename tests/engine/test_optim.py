import math

import pytest
import torch
from torch import nn

from tests.engine.toy import ToyTask, toy_batch, toy_task
from tests.oracles.optim import SlowSgd
from tests.tasks.small_tasks import build
from virtex.engine.optim import (
    OptimConfig,
    build_optimizer,
    load_optimizer,
    lr_scale,
    parameter_groups,
    set_lr,
    unread_problems,
)
from virtex.engine.run import RunConfig
from virtex.engine.state import TrainingState
from virtex.engine.step import train_step
from virtex.errors import CheckpointError, ConfigError
from virtex.models.textual_head import HeadConfig
from virtex.tasks.base import Task
from virtex.tasks.captioning import CaptioningConfig

CPU = torch.device("cpu")


def names_of(groups: list[dict]) -> list[list[str]]:
    return [[name for name, _ in group["params"]] for group in groups]


def test_groups_cross_backbone_with_decay() -> None:
    groups = parameter_groups(toy_task(), OptimConfig(lr=1.0, backbone_lr=2.0, weight_decay=0.5))
    assert names_of(groups) == [
        ["backbone.0.weight", "backbone.1.weight", "backbone.1.bias"],
        ["backbone.0.bias"],
        ["head.weight"],
        ["head.bias"],
    ]
    assert [group["peak_lr"] for group in groups] == [2.0, 2.0, 1.0, 1.0]
    assert [group["weight_decay"] for group in groups] == [0.5, 0.0, 0.5, 0.0]


def test_frozen_parameters_are_left_out() -> None:
    task = toy_task()
    task.backbone.requires_grad_(False)
    assert names_of(parameter_groups(task, OptimConfig())) == [["head.weight"], ["head.bias"]]


def test_each_group_of_layers_has_a_lower_rate_than_the_one_after_it() -> None:
    task = build(CaptioningConfig(head=HeadConfig(hidden_size=64)))
    config = OptimConfig(lr=1.0, backbone_lr=0.5, layer_decay=0.5)
    rates = {
        name: group["peak_lr"]
        for group in parameter_groups(task, config)
        for name, _ in group["params"]
    }
    assert rates.keys() == dict(task.named_parameters()).keys()
    prefix = "captioner.backbone.cnn."
    assert rates[f"{prefix}conv1.weight"] == rates[f"{prefix}bn1.bias"] == 0.5**5
    assert [rates[f"{prefix}layer{n}.0.conv1.weight"] for n in (1, 2, 3, 4)] == [
        0.0625, 0.125, 0.25, 0.5,
    ]  # fmt: skip
    assert rates["captioner.head.output_bias"] == 1.0


def test_momenta_follow_their_parameters_into_groups_of_layers() -> None:
    task = build(CaptioningConfig(head=HeadConfig(hidden_size=64)))
    saved = stepped_optimizer(task, OptimConfig()).state_dict()
    optimizer = build_optimizer(task, OptimConfig(layer_decay=0.7))
    load_optimizer(optimizer, saved)
    found = [state["momentum_buffer"] for state in optimizer.state.values()]
    assert len(found) == len(list(task.parameters()))
    assert all(momentum.any() for momentum in found)


def test_a_fully_frozen_task_is_refused() -> None:
    with pytest.raises(ConfigError, match="frozen"):
        build_optimizer(toy_task().requires_grad_(False), OptimConfig())


class TiedTask(ToyTask):
    """Its output weight is its embedding, exempt from decay under its second name."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.output = nn.Linear(3, 5, bias=False)
        self.output.weight = self.embedding.weight

    def no_weight_decay(self) -> set[str]:
        return {"output.weight"}


def test_a_tied_parameter_counts_once_and_is_exempt_by_either_name() -> None:
    groups = parameter_groups(TiedTask(), OptimConfig())
    names = [name for group in names_of(groups) for name in group]
    assert names.count("embedding.weight") == 1
    assert "output.weight" not in names
    assert ["embedding.weight"] in names_of(groups)


def test_a_backbone_inside_another_module_is_still_the_backbone() -> None:
    class Nested(ToyTask):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.ModuleDict({"cnn": nn.Conv2d(3, 4, 1)})
            del self.backbone

        @property
        def backbone(self) -> nn.Module:
            return self.inner["cnn"]

        def no_weight_decay(self) -> set[str]:
            return set()

    groups = parameter_groups(Nested(), OptimConfig())
    assert names_of(groups)[0] == ["inner.cnn.weight", "inner.cnn.bias"]


def test_warmup_rises_from_the_first_step_to_the_peak() -> None:
    config = OptimConfig(warmup_steps=4)
    assert [lr_scale(config, step=s, num_steps=10) for s in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_cosine_equals_the_released_rule_after_warmup() -> None:
    config, warmup, total = OptimConfig(warmup_steps=3), 3, 20
    for step in range(warmup, total):
        expected = 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))
        assert lr_scale(config, step=step, num_steps=total) == pytest.approx(expected, abs=1e-12)
    assert lr_scale(config, step=total - 1, num_steps=total) > 0


def test_the_default_warmup_is_that_of_the_paper() -> None:
    config = OptimConfig()
    assert lr_scale(config, step=4_999, num_steps=500_000) == 0.5
    assert lr_scale(config, step=9_999, num_steps=500_000) == 1.0
    assert lr_scale(config, step=0, num_steps=10) == 1.0


def test_linear_falls_evenly() -> None:
    config = OptimConfig(schedule="linear", warmup_steps=0)
    assert [lr_scale(config, step=s, num_steps=4) for s in range(4)] == [1.0, 0.75, 0.5, 0.25]


def test_multistep_cuts_after_each_milestone() -> None:
    config = OptimConfig(schedule="multistep", milestones=(2, 4), gamma=0.5, warmup_steps=0)
    scales = [lr_scale(config, step=s, num_steps=6) for s in range(6)]
    assert scales == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]


def test_all_problems_are_reported_at_once() -> None:
    wrong = r"(?s)momentum 1.5.*lookahead_alpha 0.*milestones"
    with pytest.raises(ConfigError, match=wrong) as error:
        OptimConfig(momentum=1.5, lookahead_alpha=0, schedule="multistep")
    assert "max_grad_norm" not in str(error.value)


def test_a_warmup_longer_than_the_run_is_refused() -> None:
    with pytest.raises(ConfigError, match="exceeds the run's 5 steps"):
        lr_scale(OptimConfig(warmup_steps=6), step=0, num_steps=5)


@pytest.mark.parametrize("max_grad_norm", [0.05, 1e9])
def test_training_steps_follow_the_slow_sgd(max_grad_norm: float) -> None:
    optim = OptimConfig(
        lr=0.05, backbone_lr=0.1, weight_decay=0.01, lookahead_steps=0, max_grad_norm=max_grad_norm
    )
    run = RunConfig(num_steps=6, batch_size=8, channels_last=True)
    task, twin = toy_task(dropout=0.0), toy_task(dropout=0.0)
    state = TrainingState(task, run=run, optim=optim, device=CPU)
    exempt = twin.no_weight_decay()
    named = dict(twin.named_parameters())
    slow = SlowSgd(
        list(named.values()),
        [0.1 if name.startswith("backbone") else 0.05 for name in named],
        [0.0 if name in exempt else 0.01 for name in named],
    )
    for step in range(6):
        batch = toy_batch(step, batch_size=8)
        set_lr(state.optimizer, 0.3 + step / 10)
        train_step(task, [batch], state, run=run, optim=optim)
        twin.zero_grad()
        twin(batch).loss.backward()
        slow.step(scale=0.3 + step / 10, momentum=0.9, max_grad_norm=max_grad_norm)
    for weight, expected in zip(task.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(weight, expected, rtol=1e-4, atol=1e-6)


def test_a_skipped_first_step_leaves_no_trace_in_the_momenta() -> None:
    task = toy_task()
    optimizer = build_optimizer(task, OptimConfig())
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(torch.tensor(1.0))
    for parameter in task.parameters():
        parameter.grad = torch.full_like(parameter, torch.inf)
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    momenta = [state["momentum_buffer"] for state in optimizer.state.values()]
    assert len(momenta) == 6
    assert not any(momentum.any() for momentum in momenta)


def test_adamw_decays_only_what_is_decayed() -> None:
    task = toy_task()
    optimizer = build_optimizer(task, OptimConfig(optimizer="adamw", weight_decay=0.1, lr=0.5))
    set_lr(optimizer, 1.0)
    before = {name: p.detach().clone() for name, p in task.named_parameters()}
    for parameter in task.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert torch.equal(task.head.bias, before["head.bias"])
    torch.testing.assert_close(task.head.weight.detach(), before["head.weight"] * (1 - 0.5 * 0.1))


def stepped_optimizer(task: Task, config: OptimConfig) -> torch.optim.Optimizer:
    optimizer = build_optimizer(task, config)
    for number, parameter in enumerate(task.parameters()):
        parameter.grad = torch.arange(parameter.numel()).view_as(parameter).float() + number
    optimizer.step()
    return optimizer


def test_momenta_take_the_layout_of_the_parameters_they_are_loaded_for() -> None:
    contiguous, permuted = toy_task(), toy_task().to(memory_format=torch.channels_last)
    saved = stepped_optimizer(contiguous, OptimConfig()).state_dict()
    optimizer = build_optimizer(permuted, OptimConfig())
    load_optimizer(optimizer, saved)
    weight = permuted.backbone[0].weight
    momentum = optimizer.state[weight]["momentum_buffer"]
    assert momentum.stride() == weight.stride()
    assert momentum.stride() != contiguous.backbone[0].weight.stride()
    torch.testing.assert_close(momentum, saved["state"][0]["momentum_buffer"])


def test_loading_momenta_keeps_the_present_options() -> None:
    saved = stepped_optimizer(toy_task(), OptimConfig(lr=1.0, weight_decay=0.5)).state_dict()
    optimizer = build_optimizer(toy_task(), OptimConfig(lr=2.0, weight_decay=0.25))
    load_optimizer(optimizer, saved)
    assert optimizer.param_groups[2]["peak_lr"] == 2.0
    assert optimizer.param_groups[2]["weight_decay"] == 0.25
    assert len(optimizer.state) == 6


def test_momenta_follow_their_parameters_into_other_groups() -> None:
    """A task that exempts other parameters from weight decay resumes an earlier run."""
    task = toy_task()
    saved = stepped_optimizer(task, OptimConfig()).state_dict()
    task.no_weight_decay = lambda: {"head.weight"}
    optimizer = build_optimizer(task, OptimConfig())
    load_optimizer(optimizer, saved)
    names, now = (
        [name for group in groups for name in group["param_names"]]
        for groups in (saved["param_groups"], optimizer.param_groups)
    )
    assert sorted(names) == sorted(now)
    assert names != now
    parameters = dict(task.named_parameters())
    for index, name in enumerate(names):
        found = optimizer.state[parameters[name]]["momentum_buffer"]
        assert torch.equal(found, saved["state"][index]["momentum_buffer"])


def test_momenta_of_other_parameters_are_refused_by_name() -> None:
    saved = stepped_optimizer(toy_task(), OptimConfig()).state_dict()
    task = toy_task()
    task.head.weight.requires_grad_(False)
    with pytest.raises(CheckpointError, match=r"head\.weight"):
        load_optimizer(build_optimizer(task, OptimConfig()), saved)


def test_momenta_of_another_optimizer_are_refused() -> None:
    saved = stepped_optimizer(toy_task(), OptimConfig()).state_dict()
    adamw = build_optimizer(toy_task(), OptimConfig(optimizer="adamw"))
    with pytest.raises(CheckpointError, match=r"optim\.optimizer"):
        load_optimizer(adamw, saved)


@pytest.mark.parametrize(
    ("options", "problems"),
    [
        (OptimConfig(betas=(0.9, 0.98)), ["optim.betas (0.9, 0.98) means nothing to optim.opti"]),
        (OptimConfig(optimizer="adamw", momentum=0.5), ["optim.momentum 0.5 means nothing to"]),
        (OptimConfig(gamma=0.5), ["optim.gamma 0.5 means nothing to optim.schedule cosine: leave"]),
        (OptimConfig(optimizer="adamw", betas=(0.9, 0.98)), []),
        (OptimConfig(schedule="multistep", milestones=(3,), gamma=0.5, momentum=0.0), []),
    ],
)
def test_options_that_are_not_read_are_problems(options: OptimConfig, problems: list[str]) -> None:
    found = unread_problems(options)
    assert [one[: len(start)] for one, start in zip(found, problems, strict=True)] == problems
