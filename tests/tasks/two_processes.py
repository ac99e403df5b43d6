"""Functions in several processes at once, such as a step of a task, each with half a batch."""

import os
import socket
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.engine.processes import CONTEXT, TIMEOUT, exit_codes
from virtex import distributed
from virtex.engine.step import with_mean_counts
from virtex.tasks.base import Batch, Task

Step = dict[str, Any]


def in_one_process(make: Callable[[], tuple[Task, Batch]]) -> Step:
    """Loss, logs, gradients and state of a training step on the whole batch.

    Args:
        make: Builds a task, in training mode, and a batch; a function of a module.
    """
    return _step(*make())


def in_two_processes(make: Callable[[], tuple[Task, Batch]], folder: Path) -> list[Step]:
    """The same as each of two processes sees it that share the batch; gradients are averaged."""
    in_processes(2, partial(_half, make, folder))
    return [torch.load(folder / f"rank_{rank}.pt") for rank in range(2)]


def in_processes(number: int, function: Callable[[], None], *, timeout: float = TIMEOUT) -> None:
    """Call a function of a module in each process of a group."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(number)}
    processes = [
        CONTEXT.Process(target=_in_group, args=(function, {**shared, "RANK": str(rank)}))
        for rank in range(number)
    ]
    for process in processes:
        process.daemon = True
        process.start()
    assert exit_codes(*processes, timeout=timeout) == [0] * number


def check_gradients(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Check that gradients are equal but for rounding.

    The tolerance is a part of the largest gradient: that of a bias before BatchNorm, or of an
    attention's key bias, is zero but for rounding, which differs between processors.
    """
    scale = max(gradient.abs().max().item() for gradient in expected.values())
    for name, gradient in expected.items():
        torch.testing.assert_close(
            found[name], gradient, rtol=1e-4, atol=1e-5 * scale, msg=lambda m, n=name: f"{n}: {m}"
        )


def _in_group(function: Callable[[], None], environment: Mapping[str, str]) -> None:
    os.environ |= {**environment, "LOCAL_RANK": environment["RANK"]}
    torch.set_num_threads(1)
    with distributed.process_group(torch.device("cpu")):
        function()


def _half(make: Callable[[], tuple[Task, Batch]], folder: Path) -> None:
    task, batch = make()
    rank = distributed.rank()
    share = {name: value.chunk(2)[rank] for name, value in batch.items()}
    torch.save(_step(task, share), folder / f"rank_{rank}.pt")


def _step(task: Task, batch: Batch) -> Step:
    model = distributed.wrap(task)
    (piece,) = task.prepare_step([batch], seed=0)
    (piece,) = with_mean_counts([piece], task.counts)
    output = model(piece)
    output.loss.backward()
    return {
        "loss": output.loss.item(),
        "logs": {name: value.item() for name, value in output.logs.items()},
        "gradients": {name: parameter.grad for name, parameter in task.named_parameters()},
        "state": task.state_dict(),
    }
