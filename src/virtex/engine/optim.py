"""Optimizer, parameter groups, and the learning rate schedule.

The learning rate is a function of the step alone, so there is no scheduler state to checkpoint.
"""

import math
from bisect import bisect_right
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import SGD, AdamW, Optimizer

from virtex.engine.checkpoint import REMEDY
from virtex.errors import CheckpointError, ConfigError, listing, raise_all
from virtex.options.dependents import register_dependents
from virtex.tasks.base import Task

WARMUP_FRACTION = 0.02
"""Warm-up steps in the paper: 10,000 of 500,000."""


@dataclass(frozen=True)
class OptimConfig:
    """Options of the optimizer and its learning rate; the defaults are the paper's."""

    optimizer: Literal["sgd", "adamw"] = "sgd"
    """SGD with momentum, or AdamW."""
    lr: float = 1e-3
    """Peak learning rate of all parameters outside the backbone."""
    backbone_lr: float = 0.2
    """Peak learning rate of the backbone."""
    layer_decay: float = 1.0
    """Factor of the backbone's learning rate from each stage (or block of a ViT) to the one before,
    such as 0.75 to fine-tune: the last has `backbone_lr`, the stem the lowest; 1 turns it off."""
    unfreeze_at: int | None = None
    """Number of steps after which `backbone.frozen` or `backbone.freeze_stages` ends; null never
    ends it."""
    momentum: float = 0.9
    """Momentum of SGD."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of AdamW's two running means."""
    weight_decay: float = 1e-4
    """Weight decay of the parameters that the task does not exempt."""
    schedule: Literal["cosine", "linear", "multistep", "constant"] = "cosine"
    """Learning rate after the warm-up: cosine or linear decay to 0, multistep, or constant."""
    warmup_steps: int | None = None
    """Steps of linear warm-up to the peak; null: 2 % of all steps, as in the paper."""
    original: bool = False
    """Start the warm-up at a learning rate of 0, as the released code does."""
    milestones: tuple[int, ...] = ()
    """Multistep: steps after which the learning rate is multiplied by gamma, ascending."""
    gamma: float = 0.1
    """Multistep: factor of the learning rate at each milestone."""
    lookahead_steps: int = 5
    """Lookahead: optimizer steps per update of the slow weights (k); 0 turns Lookahead off."""
    lookahead_alpha: float = 0.5
    """Lookahead: step size of the slow weights towards the fast ones."""
    max_grad_norm: float = 10.0
    """Maximum norm of all gradients together; 0 turns clipping off."""
    ema_decay: float = 0.0
    """Decay per step of an exponential moving average (EMA) of the weights, such as 0.999, written
    to weights_ema.safetensors beside the trained ones; 0 keeps none."""

    def __post_init__(self) -> None:
        rules = {
            "lr": (self.lr >= 0, "at least 0"),
            "backbone_lr": (self.backbone_lr >= 0, "at least 0"),
            "layer_decay": (0 < self.layer_decay <= 1, "above 0 and at most 1"),
            "unfreeze_at": (self.unfreeze_at is None or self.unfreeze_at >= 1, "at least 1"),
            "weight_decay": (self.weight_decay >= 0, "at least 0"),
            "warmup_steps": ((self.warmup_steps or 0) >= 0, "at least 0"),
            "lookahead_steps": (self.lookahead_steps >= 0, "at least 0"),
            "max_grad_norm": (self.max_grad_norm >= 0, "at least 0"),
            "momentum": (0 <= self.momentum < 1, "at least 0 and below 1"),
            "betas": (all(0 <= beta < 1 for beta in self.betas), "at least 0 and below 1"),
            "ema_decay": (0 <= self.ema_decay < 1, "at least 0 and below 1"),
            "lookahead_alpha": (0 < self.lookahead_alpha <= 1, "above 0 and at most 1"),
            "milestones": (list(self.milestones) == sorted(set(self.milestones)), "ascending"),
        }
        problems = [
            f"{name} {getattr(self, name)} must be {rule}"
            for name, (holds, rule) in rules.items()
            if not holds
        ]
        if (self.schedule == "multistep") != bool(self.milestones):
            problems.append(
                f"schedule {self.schedule!r} with milestones {self.milestones}: multistep needs "
                "milestones, and the other schedules have none"
            )
        raise_all(ConfigError, "the optim options cannot work", problems)


READERS = {
    "momentum": ("optimizer", "sgd"),
    "betas": ("optimizer", "adamw"),
    "milestones": ("schedule", "multistep"),
    "gamma": ("schedule", "multistep"),
}
"""The optimizer or schedule that alone reads an option."""


def _keeps(chooser: str, value: str, option: str) -> bool:
    """Return whether an option has a meaning for an optimizer or a schedule."""
    return option not in READERS or READERS[option][0] != chooser or READERS[option][1] == value


register_dependents(
    OptimConfig,
    {
        "lookahead_steps": lambda steps, option: str(steps) != "0" or option != "lookahead_alpha",
        **{chooser: partial(_keeps, chooser) for chooser in ("optimizer", "schedule")},
    },
)


def unread(config: OptimConfig) -> list[str]:
    """Return the names of the options that the optimizer and the schedule do not read."""
    return [name for name, (chooser, value) in READERS.items() if getattr(config, chooser) != value]


def schedule_problems(config: OptimConfig) -> list[str]:
    """Return what is wrong with the milestones and their factor, which earlier versions took."""
    problems = []
    if not 0 < config.gamma <= 1:
        problems.append(f"optim.gamma {config.gamma} must be above 0 and at most 1")
    if config.milestones and config.milestones[0] < 1:
        problems.append(f"optim.milestones {list(config.milestones)} must be at least 1")
    return problems


def scaled_milestones(config: OptimConfig, factor: float) -> tuple[int, ...]:
    """Return the milestones of a run that is `factor` times as long."""
    return tuple(sorted({max(1, int(step * factor)) for step in config.milestones}))


def unread_problems(config: OptimConfig, *, read: Collection[str] = ()) -> list[str]:
    """Return a problem for each option that is set and not read, except for those in `read`."""
    return [
        f"optim.{name} {getattr(config, name)} means nothing to optim.{chooser} "
        f"{getattr(config, chooser)}: leave it out, or give --optim.{chooser} {value}"
        for name, (chooser, value) in READERS.items()
        if name in unread(config) and name not in read
        if getattr(config, name) != getattr(OptimConfig, name)
    ]


def warmup_steps(config: OptimConfig, num_steps: int) -> int:
    """Return the number of warm-up steps, or raise ConfigError if it exceeds `num_steps`."""
    if config.warmup_steps is None:
        return round(WARMUP_FRACTION * num_steps)
    if config.warmup_steps > num_steps:
        raise ConfigError(
            f"optim.warmup_steps {config.warmup_steps} exceeds the run's {num_steps} steps. "
            "Lower it, or leave it out for 2 % of the steps."
        )
    return config.warmup_steps


def lr_scale(config: OptimConfig, *, step: int, num_steps: int) -> float:
    """Return the factor of the peak learning rate after `step` finished steps.

    With w warm-up steps, n steps in all and s = `step`: (s + 1) / w while s < w, or s / w with
    `original`. Then, with p = (s - w) / (n - w): cosine (1 + cos(pi p)) / 2, linear 1 - p,
    constant 1, multistep gamma ** (number of milestones <= s).
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
    """Set each parameter group's learning rate to its peak times `scale`."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(group["peak_lr"] * scale)
        else:
            group["lr"] = group["peak_lr"] * scale


def clip_gradients(parameters: Sequence[Tensor], max_norm: float) -> Tensor:
    """Scale gradients down to a norm of `max_norm`, unless it is 0; return their norm before."""
    norm = get_total_norm([p.grad for p in parameters if p.grad is not None])
    if max_norm:
        clip_grads_with_norm_(parameters, max_norm, norm)
    return norm


def build_optimizer(
    task: Task, config: OptimConfig, *, compiled_on: torch.device | None = None
) -> Optimizer:
    """Return the fused optimizer of a task's trainable parameters.

    Args:
        compiled_on: Device of the weights, for an optimizer that torch.compile can compile: its
            learning rate is a tensor, since a number would be part of the graph.
    """
    groups = parameter_groups(task, config)
    if not groups:
        raise ConfigError("the task has no trainable parameter: everything is frozen.")
    options: dict[str, Any] = {"fused": compiled_on is None, "foreach": compiled_on is not None}
    if compiled_on is not None:
        groups = [{**group, "lr": torch.tensor(0.0, device=compiled_on)} for group in groups]
    if config.optimizer == "adamw":
        options["capturable"] = compiled_on is not None  # which a learning rate as a tensor needs
        return AdamW(groups, betas=config.betas, **options)
    optimizer = SGD(groups, momentum=config.momentum, **options)
    if config.momentum:
        # torch's fused SGD leaves momenta uninitialised if the loss scaler skips the first step
        # (seen in 2.15); zeros give the same first step as no momenta.
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def parameter_groups(task: Task, config: OptimConfig) -> list[dict[str, Any]]:
    """Group named parameters by (in the backbone or not), layers, and (weight decay or not).

    Frozen parameters are left out. A parameter with two names (tied weights) counts once, and has
    no weight decay if one of its names is exempt.
    """
    exempt = task.no_weight_decay()
    peaks = backbone_rates(task, config)
    names: dict[nn.Parameter, list[str]] = {}
    for name, parameter in task.named_parameters(remove_duplicate=False):
        names.setdefault(parameter, []).append(name)
    unknown = exempt.difference(*names.values())
    assert not unknown, f"no_weight_decay names unknown parameters: {sorted(unknown)}"
    groups: dict[tuple[bool, float, bool], list[tuple[str, nn.Parameter]]] = {}
    for parameter, aliases in names.items():
        if parameter.requires_grad:
            key = (
                parameter in peaks,
                peaks.get(parameter, config.lr),
                exempt.isdisjoint(aliases),
            )
            groups.setdefault(key, []).append((aliases[0], parameter))
    return [
        {
            "params": members,
            "peak_lr": peak,
            "weight_decay": config.weight_decay if decayed else 0.0,
        }
        for (_, peak, decayed), members in sorted(groups.items(), key=_in_order, reverse=True)
    ]


def _in_order(group: tuple[tuple[bool, float, bool], Any]) -> tuple[bool, float, bool]:
    """Return what groups are sorted by: the backbone's come first, its last layers' before all."""
    return group[0]


def backbone_rates(task: Task, config: OptimConfig) -> dict[nn.Parameter, float]:
    """Return the peak learning rate of each of the backbone's parameters."""
    if config.layer_decay == 1:
        return dict.fromkeys(task.backbone.parameters(), config.backbone_lr)
    groups = task.backbone.layer_groups()
    last = max(groups.values())
    return {
        parameter: config.backbone_lr * config.layer_decay ** (last - groups[name])
        for name, parameter in task.backbone.named_parameters()
    }


def load_optimizer(optimizer: Optimizer, saved: dict[str, Any]) -> None:
    """Restore momenta; learning rates and all other options stay those of the present config.

    Raises:
        CheckpointError: The saved optimizer is of another kind, or has other parameters.
    """
    present = optimizer.state_dict()
    before, now = _indices(saved), _indices(present)
    if changed := sorted(before.keys() ^ now.keys()):
        raise CheckpointError(
            f"the checkpoint's optimizer has other parameters: {listing(changed)}. {REMEDY}"
        )
    if ("betas" in saved["param_groups"][0]) != ("betas" in present["param_groups"][0]):
        raise CheckpointError(f"the checkpoint was written with another optim.optimizer. {REMEDY}")
    state = {
        now[name]: saved["state"][index]
        for name, index in before.items()
        if index in saved["state"]
    }
    optimizer.load_state_dict({**present, "state": state})
    _match_layout(optimizer)


def _indices(state: dict[str, Any]) -> dict[str, int]:
    """Return the index of each parameter's state, by name: groups may have changed since."""
    return {
        name: index
        for group in state["param_groups"]
        for name, index in zip(group["param_names"], group["params"], strict=True)
    }


def _match_layout(optimizer: Optimizer) -> None:
    """Give momenta the strides of their parameters, which fused kernels need.

    They differ if a run is resumed with another value of channels_last.
    """
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if torch.is_tensor(value) and value.shape == parameter.shape:
                state[name] = torch.empty_like(parameter).copy_(value)
