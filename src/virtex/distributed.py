"""Rank, world size and the few collectives we need: the only door to torch.distributed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed
from torch import Tensor, nn

PATIENCE = timedelta(hours=12)
"""How long processes wait for the main one, which alone trains vocabularies and runs protocols."""


Item = TypeVar("Item")
_alone: ContextVar[bool] = ContextVar("alone", default=False)


class Share(NamedTuple):
    """The part of the work that one of several processes does."""

    rank: int = 0
    """This process's number, from 0."""
    world_size: int = 1
    """How many processes work together."""


def share() -> Share:
    """Return this process's share of the work."""
    return Share(rank(), world_size())


def rank() -> int:
    """This process's number, 0 where there is one process."""
    return torch.distributed.get_rank() if _is_one_of_several() else 0


def world_size() -> int:
    """How many processes work together."""
    return torch.distributed.get_world_size() if _is_one_of_several() else 1


def _is_one_of_several() -> bool:
    return torch.distributed.is_initialized() and not _alone.get()


@contextmanager
def alone() -> Iterator[None]:
    """Work as if there were no other processes, for what one of them does while the others wait."""
    token = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(token)


def is_main() -> bool:
    """Whether this process writes files and talks to the user."""
    return rank() == 0


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Join the processes that torchrun or srun started; nothing to do where there is one."""
    if num_started() == 1 or torch.distributed.is_initialized():
        yield
        return
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    torch.distributed.init_process_group(backend, timeout=PATIENCE)
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()


def num_started() -> int:
    """How many processes torchrun or srun started, whether or not they work together yet."""
    _adopt_slurm()
    return int(os.environ.get("WORLD_SIZE", "1"))


def local_rank() -> int:
    """This process's number on its machine: the index of its GPU."""
    _adopt_slurm()
    return int(os.environ.get("LOCAL_RANK", "0"))


def wrap(module: nn.Module) -> nn.Module:
    """The module with gradients averaged over processes; itself where there is one process."""
    if world_size() == 1:
        return module
    # Without device_ids it moves no inputs: lengths are to stay on the host.
    return nn.parallel.DistributedDataParallel(module)


def mean(value: Tensor) -> Tensor:
    """The mean of a tensor over all processes."""
    if world_size() == 1:
        return value
    return total(value) / world_size()


def gather(value: Tensor) -> Tensor:
    """Every process's (B, ...), in rank order, as one (world_size * B, ...), without gradient."""
    if world_size() == 1:
        return value.detach()
    parts = [torch.empty_like(value) for _ in range(world_size())]
    torch.distributed.all_gather(parts, value.detach().contiguous())
    return torch.cat(parts)


def gather_with_gradient(value: Tensor) -> Tensor:
    """As `gather`; each process's part gets the gradients of all processes' losses, summed.

    `wrap` then divides by the number of processes, so that a loss which is a mean over each
    process's own rows has the gradient of the mean over all rows.
    """
    if world_size() == 1:
        return value
    gathered: Tensor = _Gather.apply(value)
    return gathered


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return gather(value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return total(gradient).chunk(world_size())[rank()]


def total(value: Tensor) -> Tensor:
    """The sum of a tensor over all processes, without gradient."""
    if world_size() == 1:
        return value.detach()
    summed = value.detach().clone()
    torch.distributed.all_reduce(summed)
    return summed


def total_with_gradient(value: Tensor) -> Tensor:
    """As `total`; each process's part gets the gradients of all processes' losses, summed."""
    if world_size() == 1:
        return value
    summed: Tensor = _Total.apply(value)
    return summed


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return total(value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return total(gradient)


@torch.no_grad()
def share_buffers(module: nn.Module) -> None:
    """Give every process the main one's buffers, the running statistics of BatchNorm among them."""
    if world_size() > 1:
        for buffer in module.buffers():
            torch.distributed.broadcast(buffer, 0)


def any_true(flag: bool, device: torch.device) -> bool:
    """Whether `flag` is true on any process."""
    if world_size() == 1:
        return flag
    value = torch.tensor([int(flag)], device=device)
    torch.distributed.all_reduce(value, op=torch.distributed.ReduceOp.MAX)
    return bool(value.item())


def gather_objects(value: Item) -> list[Item]:
    """Return each process's small, picklable value, in rank order, in every process."""
    values = [value] * world_size()
    if len(values) > 1:
        torch.distributed.all_gather_object(values, value)
    return values


def gather_on_main(value: Item) -> list[Item]:
    """Return each process's picklable value, in rank order, in the main one; [] in the others."""
    values = [value] * world_size() if is_main() else []
    if world_size() > 1:
        torch.distributed.gather_object(value, values or None)
    return values


def _adopt_slurm() -> None:
    """srun names rank and size in its own words; torch reads torchrun's."""
    names = {"RANK": "SLURM_PROCID", "WORLD_SIZE": "SLURM_NTASKS", "LOCAL_RANK": "SLURM_LOCALID"}
    if "RANK" not in os.environ and "SLURM_PROCID" in os.environ and "MASTER_ADDR" in os.environ:
        for ours, theirs in names.items():
            os.environ[ours] = os.environ[theirs]
