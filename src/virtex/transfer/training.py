"""Training of a whole task, or of a layer on a frozen backbone, and its predictions.

The loop is pretraining's: a training is a run folder, resumes by itself and ends bit-identical. The
folder is named by a hash of everything that the weights depend on, so that the same command finds
it again and no other command resumes it.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from virtex import distributed
from virtex.data.example import Source
from virtex.data.loader import LoaderConfig, TrainingBatches, training_batches, validation_batches
from virtex.engine.device_batches import to_device
from virtex.engine.evaluation import evaluate
from virtex.engine.loop import fit
from virtex.engine.optim import OptimConfig, schedule_problems, unread_problems
from virtex.engine.precision import choose_precision
from virtex.engine.run import RunConfig, RunFolder, autocast, check_batch_size, choose_device
from virtex.engine.signals import StopSignals
from virtex.engine.tf32 import tf32_kept
from virtex.engine.tracking import check_tracker
from virtex.engine.work import work_of_run
from virtex.errors import ConfigError, raise_all
from virtex.models.any_size import of_any_size
from virtex.models.backbone import Backbone
from virtex.processes import Work
from virtex.progress import tracked
from virtex.tasks.base import Batch, Encode, Task, TaskOutput
from virtex.transfer.protocol import digest

Prediction = TypeVar("Prediction")
Repeats = NDArray[np.float64] | None
log = logging.getLogger("virtex")
FREE = frozenset(
    {"seed", "device", "log_every", "validate_every", "checkpoint_every", "keep_checkpoints",
     "keep_every", "tensorboard", "compile", "compile_mode", "channels_last", "deterministic",
     "cudnn_benchmark", "track", "project"}
)  # fmt: skip
"""Options of a run that are not settings of the protocol."""
LAYOUT = 1
"""Version of the folders; raise it where the same key would mean other weights."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """How and where a protocol trains."""

    folder: Path
    """Folder of the run folders."""
    optim: OptimConfig
    run: RunConfig
    loader: LoaderConfig
    epochs: int | None = None
    """Passes over the training images; None: `run.num_steps` applies."""
    drop_epochs: tuple[int, ...] = ()
    """Epochs after which the learning rate is cut; with `epochs` alone."""

    @property
    def device(self) -> torch.device:
        return choose_device(self.run.device)

    def settings(self) -> dict[str, Any]:
        """Return what may change the numbers, as plain values."""
        run = {name: value for name, value in asdict(self.run).items() if name not in FREE}
        if self.run.float32_matmul == RunConfig.float32_matmul:
            del run["float32_matmul"]  # which results of earlier versions do not name
        optim = asdict(self.optim)
        for name in ("layer_decay", "ema_decay", "unfreeze_at"):  # nor these
            if optim[name] == getattr(OptimConfig, name):
                del optim[name]
        settings = {**run, **optim}
        if self.epochs is not None:
            settings |= {"epochs": self.epochs, "drop_epochs": list(self.drop_epochs)}
            del settings["num_steps"]
        if self.drop_epochs:
            settings["schedule"] = "multistep"
        return settings

    def for_images(self, num_images: int, *, seed: int) -> "Training":
        """Return the same training with epochs converted to steps.

        Raises:
            ConfigError: A batch cannot be divided evenly among the processes.
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


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """Options of every protocol that trains a network."""

    optim: OptimConfig = field(default_factory=OptimConfig)
    run: RunConfig = field(default_factory=RunConfig)
    loader: LoaderConfig = field(default_factory=LoaderConfig)

    def work(self) -> Work:
        """Return what the processes of the command share."""
        return work_of_run(self.run)

    def training(
        self, folder: Path, *, epochs: int | None = None, drop_epochs: tuple[int, ...] = ()
    ) -> Training:
        """Return the training in a folder of results.

        Raises:
            ConfigError: Options that contradict each other.
        """
        device = choose_device(self.run.device)
        precision = choose_precision(self.run.precision, device, option="run.precision")
        training = Training(
            folder=folder / "training",
            optim=self.optim,
            run=replace(self.run, precision=precision),
            loader=self.loader,
            epochs=epochs,
            drop_epochs=drop_epochs,
        )
        check_training(training)
        return training


def check_training(training: Training) -> None:
    """Refuse training options that contradict each other.

    Raises:
        ConfigError: All problems.
    """
    problems = _problems_of_options(training) + _problems_of_length(training)
    raise_all(ConfigError, "the training options cannot work", problems)
    check_tracker(training.run)


def _problems_of_options(training: Training) -> list[str]:
    """Return what is wrong with options that a protocol has no use for, or has others for."""
    optim, epochs, drops = training.optim, training.epochs, training.drop_epochs
    problems = unread_problems(optim, read=("gamma",) if drops else ())
    problems += schedule_problems(optim)
    if training.run.seed != RunConfig.seed:
        problems.append("the seed of a protocol is `--seed`, not run.seed: leave run.seed out")
    if drops and epochs is None:
        problems.append(
            f"drop_epochs {list(drops)} count in epochs: with `--epochs null` give `--drop_epochs "
            "[] --optim.schedule multistep --optim.milestones` in steps"
        )
    if optim.ema_decay or optim.unfreeze_at:
        problems.append(
            "optim.ema_decay and optim.unfreeze_at are for pretraining: leave them out, since a "
            "protocol tests the trained weights"
        )
    if epochs is not None and optim.milestones:
        problems.append("optim.milestones counts in steps: give drop_epochs, or `--epochs null`")
    return problems


def _problems_of_length(training: Training) -> list[str]:
    """Return what is wrong with the length, and with where the learning rate is cut."""
    num_steps, epochs, drops = training.run.num_steps, training.epochs, training.drop_epochs
    length, cuts, name, unit = num_steps, training.optim.milestones, "optim.milestones", "steps"
    if epochs is not None:
        length, cuts, name, unit = epochs, drops, "drop_epochs", "epochs"
    problems = []
    if length < 1:
        problems.append(f"epochs {epochs} must be at least 1")
    if epochs is not None and num_steps != RunConfig.num_steps:
        problems.append(
            f"epochs {epochs} and run.num_steps {num_steps} both set the length of the training: "
            "give `--epochs null` to count in steps"
        )
    if list(drops) != sorted({max(1, epoch) for epoch in drops}):
        problems.append(f"drop_epochs {list(drops)} must be at least 1 and rise")
    if cuts and max(cuts) >= length > 0:
        problems.append(
            f"{name} {list(cuts)} lie beyond the {length} {unit} of this training, so that the "
            "learning rate would never fall; give others"
        )
    return problems


def run_training(
    task: Task,
    training: Training,
    *,
    train: Source,
    test: Source,
    key: Sequence[object],
    repeats: Repeats = None,
) -> Path:
    """Train a task, or resume an interrupted training of it.

    Args:
        training: Its length must be in steps.
        train: Images to train on.
        test: Images whose loss is logged every `run.validate_every` steps, unless that is 0.
        key: What the trained weights depend on besides the training's settings and seed.
        repeats: (N,) how often each training image occurs in an epoch; None: once.

    Returns:
        The run folder.

    Raises:
        ConfigError: Another process trains in the same folder.
        KeyboardInterrupt: The training was interrupted and saved; the same call resumes it.
    """
    settings = training.settings()
    path = training.folder / digest([LAYOUT, settings, training.run.seed, *key])
    folder = RunFolder(path)
    config = {"training": settings, "seed": training.run.seed}
    validate = None
    if training.run.validate_every > 0:
        validate = partial(_loss, task, test, training)
    with folder.locked(), tf32_kept():
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
        log.info("stopped after step %d; the same command resumes there", outcome.step)
        raise KeyboardInterrupt
    return path


def predict_all(
    task: Task,
    source: Source,
    predict: Callable[[Batch], Sequence[Prediction]],
    training: Training,
    *,
    encode: Encode | None = None,
    images_at_once: int | None = None,
) -> dict[int, Prediction]:
    """Return a task's prediction for each readable image, by its index in `source`.

    Args:
        predict: Maps a batch (B) on the device to B predictions; called in evaluation mode.
        encode: Encoder of an image; by default that of validation.
        images_at_once: Batch size of each process; by default that of a piece in training.

    Returns:
        All predictions in the order of `source` on the main process, none on the others.
    """
    device, channels_last = training.device, training.run.channels_last
    task.to(device).eval()
    world_size = distributed.world_size()
    batch_size = world_size * images_at_once if images_at_once else training.run.piece_size
    batches = _validation(source, task, training, encode=encode, batch_size=batch_size)
    own: dict[int, Prediction] = {}
    with torch.inference_mode():
        for batch in tracked(batches, "testing", len(source), each=batch_size):
            indices = batch["index"].tolist()
            moved = to_device(batch, device, channels_last=channels_last)
            with autocast(training.run.precision, device):
                own |= zip(indices, predict(moved), strict=True)
    parts = distributed.gather_on_main(own)
    return dict(sorted((pair for part in parts for pair in part.items()), key=lambda pair: pair[0]))


def trainable_copy(
    backbone: Backbone, *, frozen: bool = False, frozen_norm: bool = False, any_size: bool = False
) -> Backbone:
    """Return a copy to train: all of it, all but its BatchNorm, or nothing.

    Args:
        any_size: Whether the copy is to take images of any size and shape.

    Raises:
        ConfigError: The backbone's own options freeze parts that the protocol does not, or it takes
            images of one size alone.
    """
    own = backbone.config
    if (own.frozen and not frozen) or (own.frozen_norm and not (frozen or frozen_norm)):
        raise ConfigError(
            "backbone.frozen and backbone.frozen_norm are set by the protocol: leave them out, and "
            "use its --frozen or --frozen_norm."
        )
    config = replace(own, pretrained=False, frozen=frozen, frozen_norm=frozen_norm)
    config = of_any_size(config) if any_size else config
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
    """Return this process's share of each training batch, from a step on."""
    return training_batches(
        source,
        task.encode,
        task.collate,
        seed=training.run.seed,
        batch_size=training.run.batch_size,
        start_step=start_step,
        share=distributed.share(),
        repeats=repeats,
        num_pieces=training.run.accumulation_steps,
        config=training.loader,
    )


def forward(task: Task, training: Training, batch: Batch) -> TaskOutput:
    """Return a task's output for a batch of the loader."""
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


def _loss(
    task: Task, source: Source, training: Training, step: int, stop: StopSignals
) -> dict[str, float]:
    del step
    batch_size = training.run.piece_size
    batches = _validation(source, task, training, encode=None, batch_size=batch_size)
    return evaluate(task, stop.each(batches), run=training.run, device=training.device)
