"""Optimizer, parameter groups, and the learning rate as a function of the step.

There is no scheduler object: the learning rate of a step follows from the step's number alone, so
a checkpoint needs to hold nothing of it.
"""

import math
from bisect import bisect_right
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from virtex.errors import CheckpointError, ConfigError, listing, raise_all
from virtex.tasks.base import Task

WARMUP_SHARE = 0.02
"""The paper's 10,000 warm-up steps of 500,000."""


@dataclass(frozen=True)
class OptimConfig:
    """How weights follow gradients; the defaults are the paper's recipe."""

    optimizer: Literal["sgd", "adamw"] = "sgd"
    """SGD with momentum, or AdamW."""
    lr: float = 1e-3
    """Peak learning rate of everything but the backbone."""
    backbone_lr: float = 0.2
    """Peak learning rate of the backbone."""
    momentum: float = 0.9
    """Momentum of SGD."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of AdamW's two running means."""
    weight_decay: float = 1e-4
    """Weight decay of the parameters that the task does not exempt."""
    schedule: Literal["cosine", "linear", "multistep", "constant"] = "cosine"
    """The learning rate after warm-up: cosine or linear fall to 0, steps down, or constant."""
    warmup_steps: int | None = None
    """Steps of linear rise to the peak; null is 2 % of all steps, as in the paper."""
    original: bool = False
    """Count the warm-up from 0 as the released code does: its first step changes nothing."""
    milestones: tuple[int, ...] = ()
    """Multistep: numbers of finished steps after which the learning rate is cut."""
    gamma: float = 0.1
    """Multistep: the learning rate is multiplied by this at each milestone."""
    lookahead_steps: int = 5
    """Lookahead: fast steps for each step of the slow weights (k); 0 turns it off."""
    lookahead_alpha: float = 0.5
    """Lookahead: how far the slow weights go towards the fast ones."""
    max_grad_norm: float = 10.0
    """Clip the norm of all gradients together at this; 0 turns clipping off."""

    def __post_init__(self) -> None:
        problems = [text for bad, text in self._checks() if bad]
        raise_all(ConfigError, "the optim options cannot work", problems)

    def _checks(self) -> list[tuple[bool, str]]:
        unit = "must be at least 0 and below 1"
        return [
            (min(self.lr, self.backbone_lr) < 0, "lr and backbone_lr must not be negative"),
            (not 0 <= self.momentum < 1, f"momentum {self.momentum} {unit}"),
            (not all(0 <= beta < 1 for beta in self.betas), f"betas {self.betas} {unit}"),
            (self.weight_decay < 0, f"weight_decay {self.weight_decay} must not be negative"),
            (
                (self.warmup_steps or 0) < 0,
                f"warmup_steps {self.warmup_steps} must not be negative",
            ),
            (self.lookahead_steps < 0, f"lookahead_steps {self.lookahead_steps} is negative"),
            (
                not 0 < self.lookahead_alpha <= 1,
                f"lookahead_alpha {self.lookahead_alpha} must be above 0 and at most 1",
            ),
            (self.max_grad_norm < 0, f"max_grad_norm {self.max_grad_norm} must not be negative"),
            (
                list(self.milestones) != sorted(set(self.milestones)),
                f"milestones {self.milestones} must rise",
            ),
            (
                (self.schedule == "multistep") != bool(self.milestones),
                f"schedule {self.schedule!r} with milestones {self.milestones}: milestones belong "
                "to multistep, which needs at least one",
            ),
        ]


def warmup_steps(config: OptimConfig, num_steps: int) -> int:
    """How many steps the learning rate rises for."""
    if config.warmup_steps is None:
        return round(WARMUP_SHARE * num_steps)
    if config.warmup_steps > num_steps:
        raise ConfigError(
            f"optim.warmup_steps {config.warmup_steps} exceeds the run's {num_steps} steps. "
            "Lower it, or leave it out for 2 % of the steps."
        )
    return config.warmup_steps


def lr_scale(config: OptimConfig, *, step: int, num_steps: int) -> float:
    """What the peak learning rate is multiplied by after `step` finished steps (from 0).

    With w warm-up steps, n steps in all and s = `step`: (s + 1) / w while s < w, so that the first
    step already learns and step w runs at the peak; then, with p = (s - w) / (n - w) in [0, 1),
    cosine (1 + cos(pi p)) / 2, linear 1 - p, constant 1; multistep gamma ** (milestones <= s).
    With `original` the warm-up is s / w; all else is the same.
    """
    warmup = warmup_steps(config, num_steps)
    if step < warmup:
        return (step if config.original else step + 1) / warmup
    progress = (step - warmup) / max(1, num_steps - warmup)
    if config.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * progress))
    if config.schedule == "linear":
        return 1 - progress
    if config.schedule == "multistep":
        return float(config.gamma ** bisect_right(config.milestones, step))
    return 1.0


def set_lr(optimizer: Optimizer, scale: float) -> None:
    """Give each parameter group its peak learning rate times `scale`."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * scale


def build_optimizer(task: Task, config: OptimConfig) -> Optimizer:
    """The optimizer of a task's trainable parameters, fused where the device has it."""
    groups = parameter_groups(task, config)
    if not groups:
        raise ConfigError("the task has no trainable parameter: is all of it frozen?")
    if config.optimizer == "adamw":
        return AdamW(groups, lr=config.lr, betas=config.betas, fused=True)
    optimizer = SGD(groups, lr=config.lr, momentum=config.momentum, fused=True)
    if config.momentum:
        # torch's fused SGD leaves momenta uninitialised if the loss scaler skips the very first
        # step (seen in 2.15); zeros give the same first step as none at all.
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def parameter_groups(task: Task, config: OptimConfig) -> list[dict[str, Any]]:
    """Named parameters by (backbone or rest) and (decayed or not), in the task's own order.

    Frozen parameters are left out; one that bears two names (tied weights) counts once, and is
    exempt from decay if either name is.
    """
    exempt = task.no_weight_decay()
    in_backbone = set(task.backbone.parameters())
    names = _names(task)
    unknown = exempt - {name for aliases in names.values() for name in aliases}
    assert not unknown, f"no_weight_decay names what the task does not have: {sorted(unknown)}"
    groups: dict[tuple[bool, bool], list[tuple[str, nn.Parameter]]] = {
        (backbone, decayed): [] for backbone in (True, False) for decayed in (True, False)
    }
    for parameter, aliases in names.items():
        if parameter.requires_grad:
            key = parameter in in_backbone, exempt.isdisjoint(aliases)
            groups[key].append((aliases[0], parameter))
    return [
        {
            "params": members,
            "peak_lr": config.backbone_lr if backbone else config.lr,
            "weight_decay": config.weight_decay if decayed else 0.0,
        }
        for (backbone, decayed), members in groups.items()
        if members
    ]


def _names(module: nn.Module) -> dict[nn.Parameter, list[str]]:
    """Each parameter with all the names it bears, in the module's order."""
    names: dict[nn.Parameter, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names.setdefault(parameter, []).append(name)
    return names


def load_optimizer(optimizer: Optimizer, saved: dict[str, Any]) -> None:
    """Restore momenta; learning rates and all other options stay as the present config has them.

    Raises:
        CheckpointError: Another optimizer, or other parameters, than those saved.
    """
    present = optimizer.state_dict()
    before, now = (_group_names(state) for state in (saved, present))
    if before != now:
        changed = sorted(set(before) ^ set(now)) or ["their order"]
        raise CheckpointError(
            f"the checkpoint's optimizer trained other parameters: {listing(changed)}. "
            "Resume with the config that the run began with, or start a new run folder."
        )
    if ("betas" in saved["param_groups"][0]) != ("betas" in present["param_groups"][0]):
        raise CheckpointError(
            "the checkpoint was written with another optim.optimizer; set it back, or start a new "
            "run folder."
        )
    optimizer.load_state_dict({**present, "state": saved["state"]})
    _match_layout(optimizer)


def _group_names(state: dict[str, Any]) -> list[str]:
    return [name for group in state["param_groups"] for name in group["param_names"]]


def _match_layout(optimizer: Optimizer) -> None:
    """Lay momenta out as their parameters are: fused kernels walk both as plain memory.

    They differ where a run is resumed with channels_last switched.
    """
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if torch.is_tensor(value) and value.shape == parameter.shape:
                state[name] = torch.empty_like(parameter).copy_(value)
