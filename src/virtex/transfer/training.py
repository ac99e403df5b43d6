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

from virtex import distributed
from virtex.data.example import Source
from virtex.data.loader import LoaderConfig, TrainingBatches, training_batches, validation_batches
from virtex.engine.loop import evaluate, fit, to_device
from virtex.engine.optim import OptimConfig
from virtex.engine.run import RunConfig, RunFolder, autocast, check_batch_size, choose_device
from virtex.errors import ConfigError, raise_all
from virtex.models.backbone import Backbone
from virtex.progress import tracked
from virtex.tasks.base import Batch, Encode, Task, TaskOutput
from virtex.transfer.protocol import digest

Prediction = TypeVar("Prediction")
Repeats = NDArray[np.float64] | None
log = logging.getLogger("virtex")
FREE = frozenset(
    {"seed", "device", "log_every", "validate_every", "checkpoint_every", "keep_checkpoints",
     "keep_every", "tensorboard", "compile", "channels_last", "deterministic",
     "cudnn_benchmark"}
)  # fmt: skip
"""Options of a run that are no choice of the protocol's."""
LAYOUT = 1
"""Raise it where the same key would come to mean other weights."""


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
        settings = {**run, **asdict(self.optim)}
        if self.epochs is not None:
            settings |= {"epochs": self.epochs, "drop_epochs": list(self.drop_epochs)}
            del settings["num_steps"]
        if self.drop_epochs:
            settings["schedule"] = "multistep"
        return settings

    def for_images(self, num_images: int, *, seed: int) -> "Training":
        """The same with epochs counted in steps.

        Raises:
            ConfigError: A batch cannot be cut into equal shares.
        """
        run = replace(self.run, seed=seed)
        check_batch_size(run)
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
    run, optim, epochs, drops = training.run, training.optim, training.epochs, training.drop_epochs
    problems = [text for is_wrong, text in _checks(run, optim, epochs, drops) if is_wrong]
    raise_all(ConfigError, "the training options cannot work", problems)


def _checks(
    run: RunConfig, optim: OptimConfig, epochs: int | None, drops: tuple[int, ...]
) -> list[tuple[bool, str]]:
    counts_epochs, length = epochs is not None, run.num_steps if epochs is None else epochs
    own = drops if counts_epochs else optim.milestones
    cuts, unit = ("drop_epochs", "epochs") if counts_epochs else ("optim.milestones", "steps")
    return [
        (
            run.seed != RunConfig.seed,
            "the seed of a protocol is `--seed`, not run.seed: leave the latter out",
        ),
        (
            bool(drops) and not counts_epochs,
            f"drop_epochs {list(drops)} count in epochs: with `--epochs null` give `--drop_epochs "
            "[] --optim.schedule multistep --optim.milestones` in steps",
        ),
        (length < 1, f"epochs {epochs} must be at least 1"),
        (
            counts_epochs and run.num_steps != RunConfig.num_steps,
            f"epochs {epochs} and run.num_steps {run.num_steps} both say how long to train: give "
            "`--epochs null` to count in steps",
        ),
        (
            counts_epochs and bool(optim.milestones),
            "optim.milestones counts in steps: give drop_epochs, or `--epochs null`",
        ),
        (list(drops) != sorted(set(drops)), f"drop_epochs {list(drops)} must rise"),
        (
            bool(own) and max(own) >= length > 0,
            f"{cuts} {list(own)} lie beyond the {length} {unit} of this training, so that the "
            f"learning rate would never fall; give others",
        ),
    ]


def run_training(
    task: Task,
    training: Training,
    *,
    train: Source,
    test: Source,
    key: Sequence[object],
    repeats: Repeats = None,
) -> Path:
    """Train a task, or go on where a call before was cut.

    Args:
        training: In steps.
        train: What it trains on.
        test: Whose loss is told every `run.validate_every` steps, where that is not 0.
        key: With the training's own settings and seed, all that the trained weights depend on.
        repeats: (N,) how often each training image comes in an epoch; null: once.

    Returns:
        The run folder.

    Raises:
        ConfigError: Another process trains in the same folder.
        KeyboardInterrupt: The run was told to stop; it is saved, and the same call resumes it.
    """
    settings = training.settings()
    place = training.folder / digest([LAYOUT, settings, training.run.seed, *key])
    folder = RunFolder(place)
    config = {"training": settings, "seed": training.run.seed}
    validate = None
    if training.run.validate_every > 0:
        validate = partial(_loss, task, test, training)
    with folder.locked():
        if distributed.is_main():
            folder.write_config(config)
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


def predict_all(
    task: Task,
    source: Source,
    answer: Callable[[Batch], Sequence[Prediction]],
    training: Training,
    *,
    encode: Encode | None = None,
    images_at_once: int | None = None,
) -> dict[int, Prediction]:
    """What a task answers about each image that can be read, by the image's place in `source`.

    Args:
        answer: A batch (B) on the device to B answers; called in evaluation mode.
        encode: How an image is read; by default as in validation.
        images_at_once: On each process; by default its share of a training batch.

    Returns:
        All answers in the order of `source` on the main process, none on the others.
    """
    device, channels_last = training.device, training.run.channels_last
    task.to(device).eval()
    world_size = distributed.world_size()
    batch_size = world_size * images_at_once if images_at_once else training.run.batch_size
    batches = _validation(source, task, training, encode=encode, batch_size=batch_size)
    own: dict[int, Prediction] = {}
    with torch.inference_mode():
        for batch in tracked(batches, "testing", len(source), each=batch_size):
            indices = batch["index"].tolist()
            moved = to_device(batch, device, channels_last=channels_last)
            with autocast(training.run.precision, device):
                own |= zip(indices, answer(moved), strict=True)
    parts: list[Any] = distributed.gather_on_main(own)
    answers = {index: part[index] for part in parts for index in part}
    return {index: answers[index] for index in sorted(answers)}


def trainable_copy(
    backbone: Backbone, *, frozen: bool = False, frozen_norm: bool = False
) -> Backbone:
    """A copy that may be trained: all of it, all but its BatchNorm, or nothing.

    Raises:
        ConfigError: The backbone's own options freeze what the protocol does not.
    """
    own = backbone.config
    if (own.frozen and not frozen) or (own.frozen_norm and not (frozen or frozen_norm)):
        raise ConfigError(
            "backbone.frozen and backbone.frozen_norm are the protocol's to say: leave them out, "
            "and use its --frozen or --frozen_norm."
        )
    config = replace(own, pretrained=False, frozen=frozen, frozen_norm=frozen_norm)
    with torch.random.fork_rng(devices=[]):
        copy = Backbone(config)
    copy.load_state_dict(backbone.state_dict())
    return copy


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
        share=distributed.share(),
        repeats=repeats,
        config=training.loader,
    )


def forward(task: Task, training: Training, batch: Batch) -> TaskOutput:
    """What a task makes of a batch that the loader gave."""
    with autocast(training.run.precision, training.device):
        return task(to_device(batch, training.device, channels_last=training.run.channels_last))


def _validation(
    source: Source, task: Task, training: Training, *, encode: Encode | None, batch_size: int
) -> Iterator[Batch]:
    return validation_batches(
        source,
        encode or task.encode_validation,
        task.collate,
        batch_size=batch_size,
        share=distributed.share(),
        config=training.loader,
    )


def _loss(task: Task, source: Source, training: Training, step: int) -> dict[str, float]:
    del step
    batches = _validation(source, task, training, encode=None, batch_size=training.run.batch_size)
    return evaluate(task, batches, run=training.run, device=training.device)
