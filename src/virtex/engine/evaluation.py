"""Validation: the mean loss over the examples of all processes."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

import torch
from torch import Tensor

from virtex import distributed
from virtex.engine.device_batches import to_device
from virtex.engine.run import RunConfig, autocast
from virtex.errors import VirTexError
from virtex.tasks.base import Batch, PairwiseTask, Task, TaskOutput


@dataclass
class _Sums:
    """Sums over the batches of a process."""

    names: list[str] = field(default_factory=list)
    terms: dict[str, float] = field(default_factory=dict)
    values: list[list[float]] = field(default_factory=list)
    """Weighted sum and sum of weights of each name."""
    failure: str | None = None
    """Text of the error that ended them."""


@torch.no_grad()
def evaluate(
    task: Task, batches: Iterable[Batch], *, run: RunConfig, device: torch.device
) -> dict[str, float]:
    """Return the mean loss and logs over the targets of all processes, in evaluation mode.

    What has no target is left out.

    Each batch weighs as its number of targets, the first of `Task.counts`, or of examples, unless
    the task says otherwise: see `TaskOutput`. Each process passes its own batches, of any number
    and each a piece of a batch, which a `PairwiseTask` compares whole. The random seed is set
    first, so that a task with random numbers gives the same result each time.

    Raises:
        Exception: There is no next batch, or the task fails; in all processes.
    """
    was_training = task.training
    task.eval()
    torch.manual_seed(run.seed)
    own, failure = _Sums(), None
    try:
        own = _summed(_weighed(task, batches, run=run, device=device))
    except Exception as error:  # any kind: other processes wait for this one
        failure = error
        own.failure = str(error)
    finally:
        task.train(was_training)
    parts = distributed.gather_objects(own)
    if failure is not None:
        raise failure
    for rank, part in enumerate(parts):
        if part.failure is not None:
            raise VirTexError(f"process {rank} of the run failed: {part.failure}")
    return _means(parts)


def _weighed(
    task: Task, batches: Iterable[Batch], *, run: RunConfig, device: torch.device
) -> Iterator[tuple[TaskOutput, Tensor]]:
    """Yield the output of each batch and the weight of its loss, a scalar on the device."""
    num_pieces = run.accumulation_steps if isinstance(task, PairwiseTask) else 1
    moved = (to_device(batch, device, channels_last=run.channels_last) for batch in batches)
    while pieces := list(islice(moved, num_pieces)):
        # uncompiled, as it would take graphs of its own
        with torch.compiler.set_stance("force_eager"), autocast(run.precision, device):
            output = _compared(task, pieces) if isinstance(task, PairwiseTask) else task(pieces[0])
        yield output, torch.stack([_weight(piece, task) for piece in pieces]).sum()


def _compared(task: PairwiseTask, pieces: list[Batch]) -> TaskOutput:
    """Return the output of a batch, given its pieces."""
    embedded = [task.embed(piece) for piece in pieces]
    return task.compare({name: torch.cat([one[name] for one in embedded]) for name in embedded[0]})


def _weight(batch: Batch, task: Task) -> Tensor:
    """Return the weight of a batch, a float32 scalar on its device."""
    if task.counts:
        return batch[task.counts[0]].float().mean()
    first = next(iter(batch.values()))
    return torch.full((), float(len(first)), device=first.device)


def _summed(outputs: Iterable[tuple[TaskOutput, Tensor]]) -> _Sums:
    """Return the sums of outputs and their weights."""
    sums, rows = _Sums(), []
    for output, weight in outputs:
        scalars = {"loss": output.loss, **output.logs}
        weights = torch.stack([output.weights.get(name, weight).float() for name in scalars])
        values = torch.stack([value.detach().float() for value in scalars.values()])
        rows.append(torch.stack([values * weights, weights], dim=1))
        sums.names, sums.terms = list(scalars), output.terms
    sums.values = torch.stack(rows).cpu().double().sum(0).tolist() if rows else []
    return sums


def _means(parts: list[_Sums]) -> dict[str, float]:
    """Return the means over all processes, given the sums of each."""
    parts = [part for part in parts if part.names]
    if not parts:
        return {}
    totals = torch.tensor([part.values for part in parts], dtype=torch.float64).sum(0).tolist()
    named = zip(parts[0].names, totals, strict=True)
    numbers = {name: total / weight for name, (total, weight) in named if weight > 0}
    if parts[0].terms:
        numbers.pop("loss", None)
        terms = [
            factor * numbers[name] for name, factor in parts[0].terms.items() if name in numbers
        ]
        numbers |= {"loss": sum(terms)} if terms else {}
    return numbers
