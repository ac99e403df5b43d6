"""A step of a task in two processes, each with half a batch, beside the same step in one."""

import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.engine.processes import CONTEXT, exit_codes
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
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    processes = [
        CONTEXT.Process(target=_half, args=(make, folder, rank, port), daemon=True)
        for rank in range(2)
    ]
    for process in processes:
        process.start()
    assert exit_codes(*processes) == [0, 0]
    return [torch.load(folder / f"rank_{rank}.pt") for rank in range(2)]


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


def _half(make: Callable[[], tuple[Task, Batch]], folder: Path, rank: int, port: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    torch.set_num_threads(1)
    with distributed.process_group(torch.device("cpu")):
        task, batch = make()
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
