"""Conversion of a released training checkpoint to one of this package, from which a run goes on.

The released optimizer's parameters are in the order of the model's: that of the names in its state
dict, without buffers and without further copies of shared weights. Momenta are split as the weights
are. The released Lookahead stores neither slow weights nor the number of steps since they were last
updated: the released code starts with the weights of the file and 0, and so does this package.
"""

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from virtex.engine.optim import OptimConfig
from virtex.engine.run import RunConfig
from virtex.engine.state import TrainingState
from virtex.errors import CheckpointError, raise_all
from virtex.tasks.base import Task
from virtex.zoo.init import Opened
from virtex.zoo.released import load_released_task, released_layout
from virtex.zoo.released_training import ReleasedTraining, check_same_options, read_training

log = logging.getLogger("virtex")
MOMENTS = {"sgd": ("momentum_buffer",), "adamw": ("exp_avg", "exp_avg_sq")}
"""State of a parameter in each optimizer, of the parameter's shape."""
Parameters = list[dict[str, int]]
"""Parameters of the released optimizer in its order: our names of the weights that each stacks,
with their lengths."""


def released_checkpoint(
    task: Task, opened: Opened, *, run: RunConfig, optim: OptimConfig
) -> dict[str, Any]:
    """Return the values of a checkpoint from which the training in a released file goes on.

    Args:
        task: The task, on the CPU, which gets the weights of the file.

    Raises:
        CheckpointError: The file is no training checkpoint, or of another task.
        ConfigError: Options differ from those of the training; names each.
    """
    training = read_training(opened)
    load_released_task(task, opened)
    parameters = _parameters(task, opened, training)
    names = [next(iter(parameter)) for parameter in parameters]
    check_same_options(training, task, names, run=run, optim=optim)
    state = TrainingState(task, run=run, optim=optim, device=torch.device("cpu"))
    values = {**state.state_dict(), "step": training.step}
    values["optimizer"]["state"] = _moments(
        values["optimizer"], training, parameters, kind=optim.optimizer
    )
    if run.precision == "fp16" and training.scaler:
        values["scaler"] = training.scaler
    _log(training, opened, run, optim)
    return values


def _parameters(task: Task, opened: Opened, training: ReleasedTraining) -> Parameters:
    """Return the parameters of the released optimizer.

    Raises:
        CheckpointError: It has another number of parameters than the model, or momenta of other
            shapes.
    """
    own = dict(task.named_parameters(remove_duplicate=False))
    layout = released_layout(task.state_dict())
    stacks = dict.fromkeys(tuple(layout[theirs]) for theirs in opened.state)  # no copies
    found = [{name: len(own[name]) for name in ours} for ours in stacks if ours[0] in own]
    problems = []
    if len(found) != len(training.options):
        problems.append(f"{len(training.options)} parameters, and the model has {len(found)}")
    for ours, moments in zip(found, training.moments, strict=False):
        first = next(iter(ours))
        shape = (sum(ours.values()), *own[first].shape[1:])
        problems += [
            f"{moment} of {first}, which must be of shape {shape}"
            for moment in (*MOMENTS["sgd"], *MOMENTS["adamw"])
            if (value := moments.get(moment)) is not None
            and not (isinstance(value, Tensor) and tuple(value.shape) == shape)
        ]
    raise_all(CheckpointError, f"the optimizer in {opened.path} is not of its model", problems[:5])
    return found


def _moments(
    saved: Mapping[str, Any], training: ReleasedTraining, parameters: Parameters, *, kind: str
) -> dict[int, dict[str, Tensor]]:
    """Return the optimizer's state by the indices in `saved`, the state dict of our optimizer.

    Parameters that are frozen now have no index, and those that never had a gradient no state.
    """
    indices = {
        name: index
        for group in saved["param_groups"]
        for name, index in zip(group["param_names"], group["params"], strict=True)
    }
    state: dict[int, dict[str, Tensor]] = {}
    for ours, theirs in zip(parameters, training.moments, strict=True):
        for moment in MOMENTS[kind]:
            if theirs.get(moment) is None:
                continue
            parts = theirs[moment].float().split([*ours.values()])
            for name, part in zip(ours, parts, strict=True):
                if name in indices:
                    state.setdefault(indices[name], {})[moment] = part.clone()
        for name in ours if kind == "adamw" else ():
            if indices.get(name) in state:
                state[indices[name]]["step"] = torch.tensor(theirs["step"])
    return state


def _log(training: ReleasedTraining, opened: Opened, run: RunConfig, optim: OptimConfig) -> None:
    """Say what goes on, and what the file cannot give."""
    log.info("the training in %s goes on after step %d", opened.path, training.step)
    if optim.lookahead_steps and training.step % optim.lookahead_steps:
        log.warning(
            "step %d is no multiple of optim.lookahead_steps %d: the file holds no slow weights, "
            "which start at its weights, as in the released code",
            training.step, optim.lookahead_steps,
        )  # fmt: skip
    if bool(training.scaler) != (run.precision == "fp16"):
        log.info(
            "the file %s a loss scaler, and run.precision is %s: the scaler %s",
            "has" if training.scaler else "has no state of",
            run.precision,
            "is left out" if training.scaler else "starts as in a new run",
        )
