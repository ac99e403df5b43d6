"""Steps of each task, whose batches are divided among pieces and processes."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tests.tasks.small_tasks import SCENES, references, small_backbone, tokenizer
from virtex import distributed
from virtex.data.transforms import ImageConfig
from virtex.engine.optim import OptimConfig
from virtex.engine.run import RunConfig
from virtex.engine.state import TrainingState
from virtex.engine.step import train_step
from virtex.models.backbone import Backbone
from virtex.tasks.base import Batch, Task, TaskConfig, TaskData

ORDERS = [range(8), [3, 6, 1, 3, 0, 7, 5, 2]]
"""Examples of each step; one comes twice, as in a batch across two epochs."""
OPTIM = OptimConfig(lr=0.01, backbone_lr=0.01, lookahead_steps=0)
CPU = torch.device("cpu")


scene = cache(SCENES.__getitem__)


class Step(NamedTuple):
    """What the processes of a step agree on."""

    loss: float
    gradients: dict[str, Tensor]
    state: dict[str, Tensor]
    """All weights and buffers after the step."""


def steps_of(config: TaskConfig, num_pieces: int) -> list[Step]:
    """The first steps of a task, of which this process takes its part."""
    task = small_task(config)
    run = RunConfig(batch_size=8, num_steps=9, device="cpu", accumulation_steps=num_pieces)
    state = TrainingState(task, run=run, optim=OPTIM, device=CPU)
    model, found = distributed.wrap(task), []
    gradients: dict[str, Tensor] = {}

    def note(*_: Any) -> None:
        for parameter_name, parameter in task.named_parameters():
            if parameter.grad is not None:
                gradients[parameter_name] = parameter.grad.clone()

    state.optimizer.register_step_pre_hook(note)
    for step in range(len(ORDERS)):
        loss = train_step(model, pieces_of(task, step, num_pieces), state, run=run, optim=OPTIM)
        mean = distributed.mean(loss["loss"]).item()
        weights = {key: value.clone() for key, value in task.state_dict().items()}
        found.append(Step(mean, dict(gradients), weights))
    return found


def small_task(config: TaskConfig) -> Task:
    """A task on a backbone without BatchNorm, but for MoCo, which has it in groups."""
    torch.manual_seed(0)
    options = {} if config.normalizes_in_groups else {"norm_layer": "groupnorm1"}
    data = TaskData(ImageConfig(size=64), tokenizer(), SCENES.categories, len(SCENES), references)
    return config.build(Backbone(small_backbone(config, **options)), data).train()


def pieces_of(task: Task, step: int, num_pieces: int) -> list[Batch]:
    """This process's part of a batch in pieces, each collated by itself."""
    share = distributed.share()
    own = np.array_split(np.array(ORDERS[step]), share.world_size)[share.rank]
    place = share.rank * len(own)
    encoded = [
        task.encode(scene(i), np.random.default_rng([step, place + at]))
        for at, i in enumerate(own.tolist())
    ]
    size = len(own) // num_pieces
    return [
        {**task.collate(encoded[at : at + size]), "index": torch.tensor(own[at : at + size])}
        for at in range(0, len(own), size)
    ]


def save_steps(path: Path, configs: Mapping[str, TaskConfig], pieces: list[int]) -> None:
    """Write the steps of each task, divided into each of these numbers of pieces."""
    found = {
        (name, number): steps_of(config, number)
        for name, config in configs.items()
        for number in pieces
    }
    if distributed.is_main():
        torch.save({key: [tuple(step) for step in steps] for key, steps in found.items()}, path)
