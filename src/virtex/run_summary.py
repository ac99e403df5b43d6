"""What a user reads before and after training: a block of facts, an estimate, the next commands."""

import logging
import shlex
import time
from collections.abc import Callable, Sequence

import torch

from virtex import config as config_files
from virtex import distributed
from virtex.data.example import Source
from virtex.data.fingerprint import Fingerprint
from virtex.data.tokenizer import Tokenizer
from virtex.engine.device_batches import BatchStream
from virtex.engine.optim import backbone_rates
from virtex.pretrain_config import PretrainConfig
from virtex.tasks.base import Batch, Task
from virtex.zoo.weights_file import AVERAGED_NAME

log = logging.getLogger("virtex")
NUM_LOOKED_AT = 300
"""Number of images whose captions are tokenized to estimate the share that is cut."""
WARM_UP, FEWEST, SECONDS = 5, 10, 5.0
"""Steps before the measurement of speed, and its least number of steps and seconds."""


def before_training(
    config: PretrainConfig,
    task: Task,
    train: Source,
    validation: Source | None,
    *,
    tokenizer: Tokenizer | None,
    fingerprint: Fingerprint,
    device: torch.device,
    step: int,
) -> str:
    """Return a block of facts about a run that is about to train after a step.

    Args:
        fingerprint: That of the training data, which has counted the captions.
    """
    facts = {"run": f"{config.out}, {_state(step, config.run.num_steps)}"}
    facts["images"] = f"{len(train):,} for training from {_origin(config)}"
    facts["images"] += "" if validation is None else f", {len(validation):,} for validation"
    if tokenizer is not None and config.task.needs.captions:
        facts["captions"] = f"{_num_captions(train, fingerprint)}{_cut(config, train, tokenizer)}"
    if tokenizer is not None:
        facts["vocabulary"] = f"{tokenizer.vocab_size:,} pieces"
    backbone = sum(parameter.numel() for parameter in task.backbone.parameters())
    frozen = _frozen(config)
    task_name = config_files.to_dict(config)["task"]["name"]
    facts["parameters"] = (
        f"{_millions(backbone)} in the backbone {config.backbone.name}{frozen}, "
        f"{_millions(_num_in_head(task))} in the head of {task_name}"
    )
    if config.optim.layer_decay != 1:
        facts["lr"] = f"{_rates(task, config)} in the backbone from its stem on"
    facts["device"] = f"{_device(device)}, {config.run.precision}, {_processes()}"
    facts["length"] = _length(config, len(train))
    return "\n".join(f"{name:<11} {text}" for name, text in facts.items())


def _rates(task: Task, config: PretrainConfig) -> str:
    """Return the backbone's peak learning rates, those of its first layers first."""
    return ", ".join(f"{r:.3g}" for r in sorted(set(backbone_rates(task, config.optim).values())))


def _frozen(config: PretrainConfig) -> str:
    """Return what is frozen in the backbone, in brackets."""
    if config.backbone.frozen:
        what = "frozen"
    elif config.backbone.freeze_stages:
        what = f"the first {config.backbone.freeze_stages} of its groups of layers frozen"
    else:
        return ""
    end = config.optim.unfreeze_at
    return f" ({what})" if end is None else f" ({what} for {end:,} steps)"


def after_training(config: PretrainConfig, *, step: int, seconds: float) -> str:
    """Return what a finished run has written, and two commands to go on with."""
    out = config.out
    init, results = shlex.quote(str(out)), shlex.quote(str(out / "results"))
    transfer = f"virtex transfer voc07 --init {init} --data.root VOCDEVKIT --out {results}"
    other = f"virtex transfer linear --init {init} --data.root CLASS_FOLDERS --out {results}"
    if config.task.writes_captions:
        other = f"virtex caption {init} IMAGES --out captions.jsonl"
    facts = (
        ("complete", f"{step:,} steps, {duration(seconds)} since this start"),
        ("weights", str(out / "weights.safetensors")),
        *([("averaged", str(out / AVERAGED_NAME))] if config.optim.ema_decay else []),
        ("next", transfer),
        ("", other),
    )
    return "\n".join(f"{name:<11} {text}" for name, text in facts)


def duration(seconds: float) -> str:
    """Return a time in its two largest units: 45 s, 12 min 5 s, 3 h 20 min, 2 d 4 h."""
    units = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))
    rest, parts = round(seconds), list[str]()
    for size, unit in units:
        if rest >= size or (unit == "s" and not parts):
            parts.append(f"{rest // size} {unit}")
        elif parts:
            break
        rest %= size
    return " ".join(parts[:2])


class TimedBatches:
    """A stream of batches that logs, after the first steps, how long the others will take.

    Args:
        on_step: Called with the number of earlier batches before each.
    """

    def __init__(
        self,
        stream: BatchStream,
        *,
        num_steps: int,
        step: int,
        clock: Callable[[], float] = time.monotonic,
        on_step: Callable[[int], object] | None = None,
    ) -> None:
        self.on_step = on_step
        self.stream, self.num_steps, self.step, self.clock = stream, num_steps, step, clock
        self.first_step, self.start, self.is_done = step, 0.0, False

    def __iter__(self) -> "TimedBatches":
        return self

    def __next__(self) -> list[Batch]:
        if not self.is_done:
            self._measure()
        if self.on_step is not None:
            self.on_step(self.step)
        self.step += 1
        return next(self.stream)

    def _measure(self) -> None:
        num_steps = self.step - self.first_step - WARM_UP
        if num_steps == 0:
            self.start = self.clock()
        elif num_steps >= FEWEST and (seconds := self.clock() - self.start) >= SECONDS:
            self.is_done = True
            rest = self.num_steps - self.step
            if distributed.is_main():
                log.info(
                    "%-11s about %s for the other %s steps, without validation",
                    "time", duration(rest * seconds / num_steps), f"{rest:,}",
                )  # fmt: skip

    def close(self) -> None:
        """Close the stream."""
        self.stream.close()


def _state(step: int, num_steps: int) -> str:
    if step >= num_steps:
        return "complete: nothing to do"
    return f"resuming after step {step:,}" if step else "a new run"


def _origin(config: PretrainConfig) -> str:
    root = "" if config.data.root is None else f" {config.data.root}"
    return f"{config.data.source}{root}"


def _num_captions(train: Source, fingerprint: Fingerprint) -> str:
    if train.shard_counts is not None:
        return "read with the images"
    count = fingerprint.get("captions")
    return f"{len(train) * len(train.captions(0)) if count is None else count:,}"


def _cut(config: PretrainConfig, train: Source, tokenizer: Tokenizer) -> str:
    """Return the share of captions that are cut, estimated from evenly spaced images."""
    options = config_files.flat(config_files.to_dict(config.task))
    limits = [value for name, value in options.items() if name.endswith("max_tokens")]
    if not limits:
        return ""
    indices = range(0, len(train), max(1, len(train) // NUM_LOOKED_AT))
    if train.shard_counts is None:
        captions: Sequence[str] = [text for index in indices for text in train.captions(index)]
    else:
        captions = [*train.sample_captions(NUM_LOOKED_AT, seed=0)]
    num_cut = sum(len(tokenizer.encode(text)) + 2 > limits[0] for text in captions)
    about = "" if len(indices) == len(train) else "about "
    return f", {about}{num_cut / max(1, len(captions)):.1%} of them cut at {limits[0]} tokens"


def _num_in_head(task: Task) -> int:
    """Return the number of trained parameters outside the backbone."""
    own = {id(parameter) for parameter in task.backbone.parameters()}
    return sum(p.numel() for p in task.parameters() if p.requires_grad and id(p) not in own)


def _millions(count: int) -> str:
    return f"{count / 1e6:.1f} M" if count >= 1e6 else f"{count:,}"


def _device(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    threads = torch.get_num_threads()
    return (
        f"{device} ({threads} thread{'s' * (threads > 1)})" if device.type == "cpu" else f"{device}"
    )


def _processes() -> str:
    number = distributed.world_size()
    return "1 process" if number == 1 else f"{number} processes"


def _length(config: PretrainConfig, num_images: int) -> str:
    run = config.run
    epochs = run.num_steps * run.batch_size / num_images
    return f"{run.num_steps:,} steps of {run.batch_size} images, {epochs:,.1f} epochs"
