"""Validation: the mean loss over the examples of all processes."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from virtex import distributed
from virtex.engine.device_batches import to_device
from virtex.engine.run import RunConfig, autocast
from virtex.tasks.base import Batch, Task


@torch.no_grad()
def evaluate(
    task: Task, batches: Iterable[Batch], *, run: RunConfig, device: torch.device
) -> dict[str, float]:
    """Return the mean loss and logs over the targets of all processes, in evaluation mode.

    Each batch weighs as its number of targets, the first of `Task.counts`, or of examples. Each
    process passes its own batches, of any number. The random seed is set first, so that a task with
    random numbers gives the same result each time.
    """
    was_training = task.training
    task.eval()
    torch.manual_seed(run.seed)
    names: list[str] = []
    rows = []
    for batch in batches:  # uncompiled, as it would take graphs of its own
        moved = to_device(batch, device, channels_last=run.channels_last)
        with torch.compiler.set_stance("force_eager"), autocast(run.precision, device):
            output = task(moved)
        scalars = {"loss": output.loss, **output.logs}
        names = list(scalars)
        weight = _weight(moved, task)
        rows.append(torch.stack([value.detach().float() * weight for value in scalars.values()]))
        rows[-1] = torch.cat([rows[-1], weight[None]])
    task.train(was_training)
    own = torch.stack(rows).cpu().double().sum(0).tolist() if rows else []  # names and weight
    parts: list[Any] = distributed.gather_objects((names, own))
    total = sum(sums[-1] for _, sums in parts if sums)
    names = next((names for names, _ in parts if names), [])
    return {
        name: sum(sums[index] for _, sums in parts if sums) / max(total, 1e-9)
        for index, name in enumerate(names)
    }


def _weight(batch: Batch, task: Task) -> Tensor:
    """Return the weight of a batch, a float32 scalar on its device."""
    if task.counts:
        return batch[task.counts[0]].float().mean()
    first = next(iter(batch.values()))
    return torch.full((), float(len(first)), device=first.device)
