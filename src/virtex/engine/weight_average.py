"""Exponential moving average (EMA) of a task's weights over the steps of training.

Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging" (1992), in the
exponential form of TensorFlow's ExponentialMovingAverage, whose warm-up it has: after step t the
decay is min(decay, (1 + t) / (10 + t)), so that the random initial weights are soon forgotten.

BatchNorm's running statistics are averaged like the weights (as timm does), since they are those of
the weights of their own steps: the latest ones belong to the latest weights. What else is no
trained weight (frozen weights, a queue, counts) is that of the latest step.

The average is a function of the weights after each step, also of a step that the loss scaler of
fp16 skipped: the host need not wait for the device to know which it was.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from virtex.engine.checkpoint import REMEDY
from virtex.errors import CheckpointError
from virtex.models.batch_norm import batch_norms
from virtex.models.state_dict import differences
from virtex.tasks.base import Task


class WeightAverage:
    """The averages of a task's trained weights and of the statistics that belong to them.

    The task itself is left unchanged: it is trained and validated as without an average.
    """

    def __init__(self, task: Task, *, decay: float) -> None:
        self.decay = decay
        self._latest = _averaged_values(task)
        copies = {value: value.detach().clone() for value in self._latest.values()}
        self.values = {name: copies[value] for name, value in self._latest.items()}
        """Averages by their names in the task's state dict; tied weights share one."""
        self._pairs = list(copies.values()), list(copies)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the averages towards the weights after `step` steps."""
        averages, latest = self._pairs
        torch._foreach_lerp_(averages, latest, 1 - decay_after(step, decay=self.decay))

    def take_over(self, other: "WeightAverage") -> None:
        """Continue another average of a part of the same weights; the rest start as they are."""
        self._copy(other.values)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore `values`.

        Raises:
            CheckpointError: They are averages of other weights.
        """
        shapes = ({k: tuple(v.shape) for k, v in values.items()} for values in (self.values, state))
        if problems := differences(*shapes):
            raise CheckpointError(
                f"the checkpoint's EMA does not fit the task: {problems}. {REMEDY}"
            )
        self._copy(state)

    @torch.no_grad()
    def _copy(self, values: Mapping[str, Tensor]) -> None:
        for name, value in values.items():
            self.values[name].copy_(value)


def decay_after(step: int, *, decay: float) -> float:
    """Return the fraction that an average keeps when it takes in the weights after `step` steps."""
    return min(decay, (1 + step) / (10 + step))


def averaged_state(state: Mapping[str, Any]) -> dict[str, Tensor] | None:
    """Return a task's state dict with averages in place of weights; None without averages.

    Args:
        state: The state of training, as a checkpoint stores it.
    """
    return {**state["task"], **state["ema"]} if "ema" in state else None


def _averaged_values(task: Task) -> dict[str, Tensor]:
    """Return trained weights, under all their names, and the statistics of trained BatchNorm."""
    values: dict[str, Tensor] = {
        name: parameter
        for name, parameter in task.named_parameters(remove_duplicate=False)
        if parameter.requires_grad
    }
    trained = {layer for layer in batch_norms(task) if _is_trained(layer.weight)}
    for name, layer in task.named_modules(remove_duplicate=False):
        if layer in trained:
            kinds = {"running_mean": layer.running_mean, "running_var": layer.running_var}
            values |= {f"{name}.{kind}": v for kind, v in kinds.items() if isinstance(v, Tensor)}
    return values


def _is_trained(weight: Tensor | None) -> bool:
    return weight is not None and weight.requires_grad
