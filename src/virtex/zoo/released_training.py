"""Training checkpoints of the released code: what they hold, and whether our options are the same.

A file is {"model", "optimizer", "scheduler", "scaler", "iteration"}. Its optimizer has a group of
options for each parameter, in the order of the model's parameters. Files from before torch's own
mixed precision have no `scaler`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from virtex.engine.optim import OptimConfig, lr_scale, parameter_groups, warmup_steps
from virtex.engine.run import RunConfig
from virtex.errors import CheckpointError, ConfigError, listing, raise_all
from virtex.tasks.base import Task
from virtex.zoo.init import Opened
from virtex.zoo.tensor_file import read_tensor_file

REQUIRED = ("optimizer", "scheduler", "iteration")
"""Keys beside `model` that a training checkpoint has, whatever its precision."""
SCALER = {"scale", "growth_factor", "backoff_factor", "growth_interval", "_growth_tracker"}
MAX_STEP = 2**40
TOLERANCE = 1e-6
"""Largest relative difference of two rates that count as equal."""
OTHER_OPTIONS = (
    "options differ from those of the released training that is to go on (give the same, or start "
    "a new training from its weights by --init_parts task)"
)


@dataclass(frozen=True)
class ReleasedTraining:
    """What a released training checkpoint holds beside the model."""

    step: int
    options: list[dict[str, Any]]
    """Options of the optimizer for each parameter, in the optimizer's order."""
    moments: list[dict[str, Any]]
    """State of the optimizer for each parameter; empty for one that never had a gradient."""
    schedule: dict[str, Any]
    scaler: dict[str, float]
    """State of the loss scaler; empty if the training had none."""


def read_training(opened: Opened) -> ReleasedTraining:
    """Return what the file of an INIT holds beside the model.

    Raises:
        CheckpointError: It is no training checkpoint of the released code.
    """
    file = read_tensor_file(opened.path)
    if file.sha256 != opened.sha256:
        raise CheckpointError(f"{opened.path} changed while it was read: start again.")
    return parse_training(file.values, opened.path)


def parse_training(values: Mapping[str, Any], path: Path) -> ReleasedTraining:
    """Return what the values of a file hold beside the model.

    Raises: see `read_training`.
    """
    if missing := [key for key in REQUIRED if key not in values]:
        raise CheckpointError(
            f"{path} holds no training to go on with: it has no {', '.join(missing)}, but "
            f"{listing(values)}. A training checkpoint of the released code has model, optimizer, "
            "scheduler, scaler and iteration. Give --init_parts task to start a new training from "
            "its weights."
        )
    try:
        return _parsed(values)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path} is no training checkpoint of the released code: its optimizer, scheduler, "
            f"scaler or iteration cannot be read ({type(error).__name__}: {error})."
        ) from error


def _parsed(values: Mapping[str, Any]) -> ReleasedTraining:
    step, optimizer, scaler = values["iteration"], values["optimizer"], values.get("scaler") or {}
    if isinstance(step, bool) or not isinstance(step, int) or not 0 <= step <= MAX_STEP:
        raise ValueError(f"iteration {step!r} is no number of steps")
    if scaler and not (scaler.keys() == SCALER and all(map(_is_number, scaler.values()))):
        raise ValueError(f"the scaler must have the numbers {', '.join(sorted(SCALER))}")
    options: list[dict[str, Any]] = []
    moments: list[dict[str, Any]] = []
    for group in optimizer["param_groups"]:
        own = {"initial_lr": group["lr"], **group}
        if not all(_is_number(own[name]) for name in ("lr", "initial_lr", "weight_decay")):
            raise ValueError("a group of the optimizer has no learning rate or weight decay")
        options += [own] * len(group["params"])
        moments += [_moments_of(optimizer["state"].get(index, {})) for index in group["params"]]
    if not options:
        raise ValueError("the optimizer has no parameters")
    return ReleasedTraining(step, options, moments, dict(values["scheduler"]), dict(scaler))


def _moments_of(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return a parameter's state, with AdamW's count of steps as a number.

    Raises:
        ValueError: One of AdamW's two moments is missing.
    """
    if ("exp_avg" in state) != ("exp_avg_sq" in state):
        raise ValueError("a parameter has one of AdamW's moments without the other")
    return {**state, "step": float(state["step"])} if "exp_avg" in state else dict(state)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and value >= 0


def check_same_options(
    training: ReleasedTraining,
    task: Task,
    names: list[str],
    *,
    run: RunConfig,
    optim: OptimConfig,
) -> None:
    """Raise a ConfigError that names all options with which the training would not go on.

    Args:
        names: Our name of each parameter of the released optimizer.
    """
    problems = _optimizer_problems(training, task, names, optim)
    problems += _schedule_problems(training, run, optim)
    if not problems:  # a rate that follows from other options
        problems = _rate_problems(training, run, optim)
    raise_all(ConfigError, OTHER_OPTIONS, problems)


def _optimizer_problems(
    training: ReleasedTraining, task: Task, names: list[str], optim: OptimConfig
) -> list[str]:
    kind = "adamw" if "betas" in training.options[0] else "sgd"
    if kind != optim.optimizer:
        return [f"optim.optimizer is {optim.optimizer}, and the file's is {kind}"]
    groups = parameter_groups(task, optim)
    own = {name: group for group in groups for name, _ in group["params"]}
    backbone = {id(parameter) for parameter in task.backbone.parameters()}
    of_all = {"momentum": optim.momentum} if kind == "sgd" else {"betas": optim.betas}
    differing: dict[str, list[str]] = {}
    for name, theirs in zip(names, training.options, strict=True):
        if name not in own:  # frozen now
            continue
        is_in_backbone = id(dict(own[name]["params"])[name]) in backbone
        pairs = {
            "backbone_lr" if is_in_backbone else "lr": (own[name]["peak_lr"], theirs["initial_lr"]),
            "weight_decay": (own[name]["weight_decay"], theirs["weight_decay"]),
            **{option: (value, theirs.get(option)) for option, value in of_all.items()},
        }
        for option, (now, before) in pairs.items():
            if not _is_same(now, before):
                text = f"optim.{option} is {now}, and the file's is {before}"
                differing.setdefault(text, []).append(name)
    return [f"{text}, for {listing(of, limit=2)}" for text, of in differing.items()]


def _schedule_problems(training: ReleasedTraining, run: RunConfig, optim: OptimConfig) -> list[str]:
    """Return the options of the schedule's length and shape that the file states otherwise."""
    now = {
        "run.num_steps": ("tsteps", run.num_steps),
        "optim.warmup_steps": ("wsteps", warmup_steps(optim, run.num_steps)),
        "optim.milestones": ("milestones", list(optim.milestones)),
    }
    if optim.milestones:
        now["optim.gamma"] = ("gamma", optim.gamma)
    problems = [
        f"{option} is {value}, and the file's is {training.schedule[key]}"
        for option, (key, value) in now.items()
        if key in training.schedule and not _is_same(value, training.schedule[key])
    ]
    if training.step > run.num_steps:
        problems.append(
            f"run.num_steps is {run.num_steps}, and the file has {training.step} steps already"
        )
    return problems


def _rate_problems(training: ReleasedTraining, run: RunConfig, optim: OptimConfig) -> list[str]:
    """Return whether the next step would have another learning rate than in the file."""
    theirs = next((one for one in training.options if one["initial_lr"] > 0), None)
    if theirs is None:
        return []
    before = theirs["lr"] / theirs["initial_lr"]
    now = lr_scale(optim, step=training.step, num_steps=run.num_steps)
    if math.isclose(now, before, rel_tol=TOLERANCE, abs_tol=TOLERANCE**2):
        return []
    return [
        f"the learning rate of step {training.step + 1} would be {now:.6g} of its peak, and the "
        f"file's is {before:.6g}: see optim.schedule, which is {optim.schedule}, "
        f"optim.warmup_steps, and optim.original, which is {str(optim.original).lower()} and must "
        "be true during the warm-up of the released code"
    ]


def _is_same(now: Any, before: Any) -> bool:
    """Return whether two options are equal, numbers up to rounding."""
    if isinstance(now, list | tuple) and isinstance(before, list | tuple):
        return len(now) == len(before) and all(map(_is_same, now, before))
    if _is_number(now) and _is_number(before):
        return math.isclose(now, before, rel_tol=TOLERANCE)
    return type(now) is type(before) and bool(now == before)
