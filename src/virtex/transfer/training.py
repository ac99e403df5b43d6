"""Training a whole task, or a layer on a frozen backbone, for a protocol; then asking it.

The loop is pretraining's: a training is a run folder, resumes by itself and ends bit-identical. Its
name is a hash of all that its weights depend on, so that the same command finds it again and
another one never goes on with it.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from virtex import distributed
from virtex.data.example import Source
from virtex.data.loader import LoaderConfig, TrainingBatches, training_batches, validation_batches
from virtex.engine.loop import evaluate, fit, to_device
from virtex.engine.optim import OptimConfig
from virtex.engine.run import RunConfig, RunFolder, autocast, choose_device
from virtex.errors import ConfigError
from virtex.models.backbone import Backbone
from virtex.tasks.base import Batch, Task, TaskOutput
from virtex.transfer.protocol import digest

Answer = TypeVar("Answer")
Repeats = NDArray[np.float64] | None
log = logging.getLogger("virtex")
FREE = frozenset(
    {"seed", "device", "log_every", "validate_every", "checkpoint_every", "keep_checkpoints",
     "keep_every", "tensorboard", "compile", "channels_last", "deterministic",
     "cudnn_benchmark"}
)  # fmt: skip
"""Options of a run that are no choice of the protocol's."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """How a protocol trains, and where it keeps that."""

    folder: Path
    """The trainings lie in it, a run folder each."""
    optim: OptimConfig
    run: RunConfig
    loader: LoaderConfig
    epochs: int | None = None
    """Passes over the training images; null: `run.num_steps` counts."""
    drop_epochs: tuple[int, ...] = ()
    """With `epochs`: where the learning rate is cut."""

    @property
    def device(self) -> torch.device:
        return choose_device(self.run.device)

    def settings(self) -> dict[str, Any]:
        """What may change the numbers, as plain values."""
        run = {name: value for name, value in asdict(self.run).items() if name not in FREE}
        lengths = {"epochs": self.epochs, "drop_epochs": list(self.drop_epochs)}
        if self.epochs is not None:
            del run["num_steps"]
        return {**run, **lengths, **asdict(self.optim)}

    def for_images(self, num_images: int, *, seed: int) -> "Training":
        """The same with epochs counted in steps."""
        run = replace(self.run, seed=seed)
        if self.epochs is None:
            return replace(self, run=run)
        steps = -(-num_images // run.batch_size)
        optim = self.optim
        if self.drop_epochs:
            milestones = tuple(steps * epoch for epoch in self.drop_epochs)
            optim = replace(optim, schedule="multistep", milestones=milestones)
        run = replace(run, num_steps=steps * self.epochs)
        return replace(self, run=run, optim=optim, epochs=None, drop_epochs=())


def check_training(training: Training) -> None:
    """Find the mistakes in what only goes together or not at all.

    Raises:
        ConfigError: All of them.
    """
    problems = []
    if training.epochs is None and training.drop_epochs:
        problems.append("drop_epochs counts in epochs: give epochs, or optim.milestones in steps")
    if training.run.seed != RunConfig.seed:
        problems.append("the seed of a protocol is `--seed`, not run.seed: leave the latter out")
    if training.epochs is not None and training.epochs < 1:
        problems.append(f"epochs {training.epochs} must be at least 1")
    if training.epochs is not None and training.run.num_steps != RunConfig.num_steps:
        problems.append(
            f"epochs {training.epochs} and run.num_steps {training.run.num_steps} both say how "
            "long to train: give `--epochs null` to count in steps"
        )
    if training.epochs is not None and training.optim.milestones:
        problems.append("optim.milestones counts in steps: give drop_epochs, or `--epochs null`")
    if list(training.drop_epochs) != sorted(set(training.drop_epochs)):
        problems.append(f"drop_epochs {list(training.drop_epochs)} must rise")
    if problems:
        raise ConfigError("\n- ".join(["the training options cannot work:", *problems]))


def train(
    task: Task,
    training: Training,
    *,
    train: Source,
    test: Source | None,
    key: Sequence[object],
    repeats: Repeats = None,
) -> Path:
    """Train a task, or go on where a call before was cut.

    Args:
        training: In steps.
        train: What it trains on.
        test: Whose loss is told every `run.validate_every` steps, where that is not 0.
        key: With the training's own settings, all that the trained weights depend on.
        repeats: (N,) how often each training image comes in an epoch; null: once.

    Returns:
        The run folder.

    Raises:
        KeyboardInterrupt: The run was told to stop; it is saved, and the same call resumes it.
    """
    settings = training.settings()
    place = training.folder / digest([settings, training.run.seed, *key])
    folder = RunFolder(place)
    config = {"training": settings, "seed": training.run.seed}
    if distributed.is_main():
        folder.write_config(config)
    validate = None
    if test is not None and training.run.validate_every > 0:
        validate = partial(_loss, task, test, training)
    outcome = fit(
        task,
        partial(batches_of, train, task, training, repeats=repeats),
        folder=folder,
        run=training.run,
        optim=training.optim,
        device=training.device,
        config=config,
        validate=validate,
    )
    if outcome.reason == "interrupted":
        log.info("stopped after step %d; the same command goes on from there", outcome.step)
        raise KeyboardInterrupt
    return place


def ask(
    task: Task,
    source: Source,
    answer: Callable[[Batch], Sequence[Answer]],
    training: Training,
    *,
    name: str,
) -> dict[int, Answer]:
    """What a task answers about each image that can be read, by the image's place in `source`.

    Args:
        answer: A batch (B) on the device to B answers; called in evaluation mode.
        name: What the progress bar calls the images.

    Returns:
        Those of all processes, on every process.
    """
    task.to(training.device).eval()
    own: dict[int, Answer] = {}
    with torch.inference_mode():
        for batch in _with_progress(_validation(source, task, training), source, training, name):
            indices = batch["index"].tolist()
            moved = to_device(batch, training.device, channels_last=training.run.channels_last)
            with autocast(training.run.precision, training.device):
                own |= zip(indices, answer(moved), strict=True)
    everyone: list[Any] = distributed.gather_objects(own)
    return {index: part[index] for part in everyone for index in part}


def copied(backbone: Backbone, *, frozen: bool = False, frozen_norm: bool = False) -> Backbone:
    """A copy that may be trained: all of it, all but its BatchNorm, or nothing."""
    weights = backbone.state_dict()
    config = replace(backbone.config, pretrained=False, frozen=frozen, frozen_norm=frozen_norm)
    with torch.random.fork_rng(devices=[]):
        backbone = Backbone(config)
    backbone.load_state_dict(weights)
    return backbone


def batches_of(
    source: Source,
    task: Task,
    training: Training,
    start_step: int = 0,
    *,
    repeats: Repeats = None,
) -> TrainingBatches:
    """This process's share of each training batch from a step on."""
    return training_batches(
        source,
        task.encode,
        task.collate,
        seed=training.run.seed,
        batch_size=training.run.batch_size,
        start_step=start_step,
        rank=distributed.rank(),
        world_size=distributed.world_size(),
        repeats=repeats,
        config=training.loader,
    )


def forward(task: Task, training: Training, batch: Batch) -> TaskOutput:
    """What a task makes of a batch that the loader gave."""
    with autocast(training.run.precision, training.device):
        return task(to_device(batch, training.device, channels_last=training.run.channels_last))


def _validation(source: Source, task: Task, training: Training) -> Iterator[Batch]:
    return validation_batches(
        source,
        task.encode_validation,
        task.collate,
        batch_size=training.run.batch_size,
        rank=distributed.rank(),
        world_size=distributed.world_size(),
        config=training.loader,
    )


def _loss(task: Task, source: Source, training: Training, step: int) -> dict[str, float]:
    del step
    batches = _validation(source, task, training)
    return evaluate(task, batches, run=training.run, device=training.device)


def _with_progress(
    batches: Iterator[Batch], source: Source, training: Training, name: str
) -> Iterator[Batch]:
    console = Console(stderr=True)
    yield from track(
        batches,
        f"testing on {name}",
        -(-len(source) // training.run.batch_size),
        console=console,
        transient=True,
        disable=not (console.is_terminal and distributed.is_main()),
    )
