"""Rank, world size and collectives: with rendezvous.py the only module that imports
torch.distributed."""

import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar, cast

import torch
import torch.distributed
from torch import Tensor, nn

from virtex import connections, rendezvous
from virtex.errors import LostProcessError, VirTexError
from virtex.launcher import Launch, has_terminal, is_started_again, launch_of

STEP_TIMEOUT = timedelta(minutes=10)
"""Maximum wait in a step's collective, after which the other processes count as lost."""
TIMEOUT = timedelta(hours=12)
"""Maximum wait for the main process, which alone trains vocabularies and runs protocols."""
Item = TypeVar("Item")
_patient: torch.distributed.ProcessGroup | None = None
"""Group whose collectives wait for `TIMEOUT`: those of objects, on the host."""
_alone: ContextVar[bool] = ContextVar("alone", default=False)


class Share(NamedTuple):
    """One process's part of work that is divided among processes."""

    rank: int = 0
    """Index of the process, from 0."""
    world_size: int = 1
    """Number of processes."""


def share() -> Share:
    """Return this process's share of the work."""
    return Share(rank(), world_size())


def rank() -> int:
    """Return the index of this process, from 0."""
    return torch.distributed.get_rank() if _has_group() else 0


def world_size() -> int:
    """Return the number of processes."""
    return torch.distributed.get_world_size() if _has_group() else 1


def _has_group() -> bool:
    return torch.distributed.is_initialized() and not _alone.get()


@contextmanager
def alone() -> Iterator[None]:
    """Act as a single process within the block, for work that the others wait for."""
    token = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(token)


def is_main() -> bool:
    """Return whether this is the main process, which alone writes files and messages."""
    return rank() == 0


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Join the processes that torchrun or srun started; do nothing for a single process.

    Raises:
        ConfigError: Their environment variables cannot work, or some do not come.
        LostProcessError: Another process ended within the block.
    """
    launch = _launch()
    if launch.world_size == 1 or torch.distributed.is_initialized():
        yield
        return
    global _patient
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    with _errors_of_others():
        torch.distributed.init_process_group(
            backend,
            store=rendezvous.meet(launch),
            rank=launch.rank,
            world_size=launch.world_size,
            timeout=STEP_TIMEOUT,
        )
        try:
            group = torch.distributed.new_group(timeout=TIMEOUT, backend="gloo")
            _patient = cast(torch.distributed.ProcessGroup, group)
            if is_started_again(os.environ):
                connections.watch()
            yield
        finally:
            _patient = None
            torch.distributed.destroy_process_group()


@contextmanager
def _errors_of_others() -> Iterator[None]:
    """Raise a LostProcessError in place of torch's errors at a process that has gone."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.distributed.DistError) and "gloo" not in str(error):
            raise
        reason = str(error).strip().splitlines()[0].rpartition("] ")[2]
        reason = reason.partition(". ")[0]  # gloo goes on with advice
        raise LostProcessError(
            f"another process of the run has ended or cannot be reached ({reason}); its own "
            "message says why. The same command resumes from the newest checkpoint."
        ) from error


def _launch() -> Launch:
    return launch_of(os.environ, has_terminal=has_terminal())


def num_started() -> int:
    """Return the number of processes that torchrun or srun started, joined or not."""
    return _launch().world_size


def local_rank() -> int:
    """Return the index of this process on its machine, which is that of its GPU."""
    return _launch().local_rank


def num_on_machine() -> int:
    """Return the number of this run's processes on this machine."""
    return _launch().num_on_machine


def on_main(action: Callable[[], Item]) -> Item:
    """Return what the main process gets from a function; all raise its VirTexError or OSError.

    The value must be small and picklable where there are several processes.
    """
    outcome: tuple[Item | None, VirTexError | OSError | None] = (None, None)
    if is_main():
        try:
            outcome = action(), None
        except (VirTexError, OSError) as error:
            outcome = None, error
    value, failure = gather_objects(outcome)[0]
    if failure is not None:
        raise failure
    return cast(Item, value)


def wrap(module: nn.Module) -> nn.Module:
    """Return a module whose gradients are averaged over processes."""
    if world_size() == 1:
        return module
    # Buffers differ between processes until `share_buffers`; no training step depends on that.
    parallel = nn.parallel.DistributedDataParallel
    is_renamed = "forward_sync_buffers" in inspect.signature(parallel).parameters  # after 2.11
    options: dict[str, Any] = {"forward_sync_buffers" if is_renamed else "broadcast_buffers": False}
    return parallel(module, gradient_as_bucket_view=True, **options)


def mean(value: Tensor) -> Tensor:
    """Return the mean of a tensor over all processes, without gradient."""
    return total(value) / world_size()


def total(value: Tensor) -> Tensor:
    """Return the sum of a tensor over all processes, without gradient."""
    summed = value.detach()
    if world_size() > 1:
        summed = summed.clone()
        torch.distributed.all_reduce(summed)
    return summed


def gather(value: Tensor) -> Tensor:
    """Concatenate every process's (B, ...) in rank order, without gradient."""
    if world_size() == 1:
        return value.detach()
    parts = [torch.empty_like(value) for _ in range(world_size())]
    torch.distributed.all_gather(parts, value.detach().contiguous())
    return torch.cat(parts)


def total_with_gradient(value: Tensor) -> Tensor:
    """Return the sum over all processes; its gradient is the sum of all processes' gradients."""
    return value if world_size() == 1 else _Total.apply(value)


def gather_with_gradient(value: Tensor) -> Tensor:
    """Concatenate every process's (B, ...); gradients of all processes' losses are summed.

    `wrap` then divides by the number of processes, so that a loss that is a mean over each
    process's own rows has the gradient of the mean over all rows.
    """
    return value if world_size() == 1 else _Gather.apply(value)


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return total(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return total(gradients[0])


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return gather(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return total(gradients[0]).chunk(world_size())[rank()]


@torch.no_grad()
def share_buffers(module: nn.Module) -> None:
    """Copy the main process's BatchNorm statistics to all processes.

    Other buffers, such as a queue or a memory bank, are alike on all: tasks move them by what they
    gather.
    """
    if world_size() == 1:
        return
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            for buffer in layer.buffers():
                torch.distributed.broadcast(buffer, 0)


def any_true(flag: bool, device: torch.device) -> bool:
    """Return whether `flag` is true on any process."""
    if world_size() == 1:
        return flag
    value = torch.tensor([int(flag)], device=device)
    torch.distributed.all_reduce(value, op=torch.distributed.ReduceOp.MAX)
    return bool(value.item())


def any_true_later(flag: bool) -> Callable[[], bool]:
    """Return a function that waits for the answer of `any_true`, which is asked at once."""
    if world_size() == 1:
        return lambda: flag
    value = torch.tensor([int(flag)])
    work = torch.distributed.all_reduce(value, op=torch.distributed.ReduceOp.MAX, async_op=True)

    def answer() -> bool:
        work.wait()
        return bool(value.item())

    return answer


def gather_objects(value: Item) -> list[Item]:
    """Return each process's small, picklable value, in rank order, in every process."""
    values = [value] * world_size()
    if len(values) > 1:
        torch.distributed.all_gather_object(values, value, group=_patient)
    return values


def gather_on_main(value: Item) -> list[Item]:
    """Return each process's picklable value, in rank order, in the main one; [] in the others."""
    values = [value] * world_size() if is_main() else []
    if world_size() > 1:
        torch.distributed.gather_object(value, values or None, group=_patient)
    return values
