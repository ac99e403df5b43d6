"""The toy task of the engine's tests, with batches that are a function of (seed, step)."""

from collections.abc import Callable, Generator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from virtex import distributed
from virtex.engine.loop import FitResult, Validate, fit
from virtex.engine.optim import OptimConfig
from virtex.engine.recording import OnWritten
from virtex.engine.run import RunConfig, RunFolder, choose_device
from virtex.models.backbone import Backbone, BackboneConfig
from virtex.monitors.monitors import Monitors
from virtex.tasks.base import Batch, Task, TaskOutput

SIDE = 8


class ToyTask(Task):
    """A convolution and a linear layer that regress the mean brightness of an image.

    Args:
        frozen_stages: Number of the first stages that are frozen of a slim ResNet, which then
            stands in place of the convolution; 0 for the convolution.
    """

    def __init__(
        self,
        *,
        width: int = 8,
        dropout: float = 0.1,
        batch_norm: bool = True,
        frozen_stages: int = 0,
    ) -> None:
        super().__init__()
        if frozen_stages:
            sizes = {"layers": [1] * 4, "channels": [width] * 4}
            self.backbone = Backbone(
                BackboneConfig("resnet18", freeze_stages=frozen_stages, options=sizes)
            )
        else:
            norm = nn.BatchNorm2d(width) if batch_norm else nn.Identity()
            self.backbone = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), norm)  # type: ignore[assignment]
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, 1)
        self.steps_seen: list[int] = []

    def forward(self, batch: Batch) -> TaskOutput:
        grid = self.backbone(batch["image"].float() / 255)  # (B, C, H, W)
        features = self.dropout(grid.relu().mean((2, 3)))  # (B, C)
        error = self.head(features).squeeze(1) - batch["target"]
        loss = error.square().mean()
        return TaskOutput(loss, {"toy_square": loss.detach(), "toy_absolute": error.abs().mean()})

    def no_weight_decay(self) -> set[str]:
        own = {"backbone.0.bias"} if isinstance(self.backbone, nn.Sequential) else set()
        return {"head.bias", *own}

    def after_step(self, step: int, kept: Sequence[Mapping[str, Tensor]]) -> None:
        self.steps_seen.append(step)


def toy_task(**options: int | float | bool) -> ToyTask:
    """Return a toy task with fixed initial weights."""
    torch.manual_seed(0)
    return ToyTask(**options)


def toy_batch(step: int, *, batch_size: int) -> Batch:
    """Return this process's part of the batch of a step."""
    generator = np.random.default_rng((1, step))
    images = torch.from_numpy(
        generator.integers(0, 256, (batch_size, 3, SIDE, SIDE), dtype=np.uint8)
    )
    target: Tensor = images.float().mean((1, 2, 3)) / 255 + step % 3
    world, rank = distributed.world_size(), distributed.rank()
    return {"image": images.chunk(world)[rank], "target": target.chunk(world)[rank]}


def toy_batches(batch_size: int, start_step: int, *, pieces: int = 1) -> Generator[list[Batch]]:
    """Yield the pieces of batches from `start_step` on, without end."""
    step = start_step
    while True:
        yield split(toy_batch(step, batch_size=batch_size), pieces)
        step += 1


def split(batch: Batch, num_pieces: int) -> list[Batch]:
    """Cut each tensor of a batch into equal pieces along its first dimension."""
    pieces = {name: tensor.chunk(num_pieces) for name, tensor in batch.items()}
    return [{name: cut[i] for name, cut in pieces.items()} for i in range(num_pieces)]


def toy_fit(
    task: Task,
    folder: RunFolder,
    run: RunConfig,
    *,
    optim: OptimConfig | None = None,
    batches: Callable[[int], Generator[list[Batch]]] | None = None,
    validate: Validate | None = None,
    on_checkpoint: Callable[[int], None] | None = None,
    on_written: OnWritten | None = None,
    is_over: Callable[[int], bool] | None = None,
    monitors: Monitors | None = None,
    config: dict[str, Any] | None = None,
) -> FitResult:
    """Call `fit` with toy batches."""
    return fit(
        task,
        batches or partial(toy_batches, run.batch_size, pieces=run.accumulation_steps),
        folder=folder,
        run=run,
        optim=optim or OptimConfig(lr=0.05, backbone_lr=0.1),
        device=choose_device(run.device),
        config=config or {"toy": True},
        validate=validate,
        on_checkpoint=on_checkpoint,
        on_written=on_written,
        is_over=is_over,
        monitors=monitors,
    )
