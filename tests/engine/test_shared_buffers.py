"""What the processes of a run share besides gradients: BatchNorm's statistics, no queue or bank."""

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from tests.tasks.small_tasks import build, scenes_batch
from tests.tasks.two_processes import in_processes
from virtex import distributed
from virtex.engine.optim import OptimConfig
from virtex.engine.run import RunConfig
from virtex.engine.state import TrainingState
from virtex.engine.step import train_step
from virtex.models.state_dict import state_digest
from virtex.tasks.base import Task, TaskConfig
from virtex.tasks.moco import MocoConfig
from virtex.tasks.pirl import PirlConfig

MEMORIES = {MocoConfig(dim=16, queue_size=20): "queue", PirlConfig(dim=16): "memory"}


def train(config: TaskConfig) -> Task:
    """Take three steps, each process with half of each batch, and no exchange of buffers."""
    task, run, optim = build(config), RunConfig(batch_size=8), OptimConfig(warmup_steps=0)
    state = TrainingState(task.train(), run=run, optim=optim, device=torch.device("cpu"))
    model = distributed.wrap(task)
    assert isinstance(model, DistributedDataParallel)
    assert not model.will_sync_module_buffers()
    first = 4 * distributed.rank()
    for _ in range(3):
        batch = scenes_batch(task, range(first, first + 4))
        batch["index"] = torch.arange(first, first + 4)
        train_step(model, [batch], state, run=run, optim=optim)
    return task


def digests(module: torch.nn.Module) -> list[str]:
    return distributed.gather_objects(state_digest(module.state_dict()))


def bytes_shared(task: Task) -> int:
    """Share a task's buffers, and return how many bytes are broadcast."""
    moved, broadcast = [], torch.distributed.broadcast

    def count(buffer: torch.Tensor, source: int) -> None:
        moved.append(buffer.nbytes)
        broadcast(buffer, source)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.distributed, "broadcast", count)
        distributed.share_buffers(task)
    return sum(moved)


def check_in_each() -> None:
    for config, name in MEMORIES.items():
        before = state_digest(build(config).get_submodule(name).state_dict())
        task = train(config)
        memory = task.get_submodule(name)
        mine, theirs = digests(memory)
        assert mine == theirs != before
        assert 0 < bytes_shared(task) == bytes_of(task) - bytes_of(memory)
        mine, theirs = digests(task)
        assert mine == theirs


def bytes_of(module: torch.nn.Module) -> int:
    return sum(buffer.nbytes for buffer in module.buffers())


def test_queue_and_bank_are_alike_on_all_processes_without_being_copied() -> None:
    in_processes(2, check_in_each)
