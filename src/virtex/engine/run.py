"""Options of a run, its device, precision and random seeds, and its folder."""

import json
import logging
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import yaml

from virtex import distributed, files
from virtex.engine.checkpoint import CheckpointFolder
from virtex.engine.tensorboard_events import TensorBoardEvents
from virtex.engine.tf32 import Float32Matmul, set_tf32
from virtex.errors import ConfigError, out_of_range, raise_all
from virtex.launcher import is_started_again
from virtex.options.choices import once_a_switch

log = logging.getLogger(__name__)
Record = Mapping[str, int | float | str]
"""One line of log.jsonl: the step, and numbers or texts by name."""
Precision = Literal["fp32", "bf16", "fp16"]
AnyPrecision = Literal["auto", "fp32", "bf16", "fp16"]
TrackerName = Literal["none", "trackio", "wandb"]
Compiled = Literal["none", "task", "step"]
CompileMode = Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"]
NOT_IN_PROJECT = "/\\#?%:"
"""Letters that wandb refuses in the name of a project."""
LOCK_PATIENCE = 120.0
"""Seconds for which a restarted run waits for its lock: NFS keeps a dead machine's for up to 90."""
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class RunConfig:
    """Options of the training loop: length, device, precision, logging and checkpoints."""

    seed: int = 0
    """Random seed of the initial weights, the data order, augmentation and dropout."""
    num_steps: int = 500_000
    """Steps of the whole run, those before it was resumed included."""
    batch_size: int = 256
    """Examples in a step, over all processes."""
    accumulation_steps: int = 1
    """Number of pieces that a process splits its part of each batch into, to save memory."""
    device: str = "auto"
    """auto (the GPU if there is one), cpu, cuda, cuda:1, mps."""
    precision: AnyPrecision = "fp32"
    """Precision of the forward and backward passes; auto: bf16 if the device is fast at it, else
    fp32. Weights are always fp32."""
    float32_matmul: Float32Matmul = "default"
    """Products of fp32 numbers on NVIDIA GPUs: high is TF32, highest is fp32, default is torch's
    own choice: TF32 in convolutions, fp32 elsewhere."""
    channels_last: bool = True
    """Keep images and convolutions in channels-last memory format, faster on most hardware."""
    sync_batch_norm: bool = False
    """Compute BatchNorm's statistics over the images of all processes, not of each alone."""
    compile: Compiled = field(default="none", metadata=once_a_switch(true="task", false="none"))
    """What torch.compile compiles, for a slower start and faster steps: none, the task (forward
    pass and loss), or the whole step (backward pass, clipping and optimizer as well)."""
    compile_mode: CompileMode = "default"
    """Mode of torch.compile: reduce-overhead replays CUDA graphs, the max-autotune modes also try
    kernels, for a much slower start."""
    deterministic: bool = False
    """Use deterministic kernels only, so that resuming is bit-identical on a GPU too."""
    cudnn_benchmark: bool = True
    """On a GPU, choose the fastest convolutions for each image size; slower if sizes vary between
    batches."""
    log_every: int = 20
    """Steps between two records in log.jsonl and TensorBoard."""
    validate_every: int = 2000
    """Steps between two validations; 0 validates at the end only."""
    checkpoint_every: int = 2000
    """Steps between two checkpoints; 0 writes one at the end only."""
    keep_checkpoints: int = 3
    """Number of newest checkpoints to keep; 0 keeps all."""
    keep_every: int = 0
    """Also keep checkpoints at multiples of this step; 0 for none."""
    tensorboard: bool = True
    """Write TensorBoard events beside log.jsonl."""
    track: TrackerName = "none"
    """Dashboard that also shows the run: trackio (local, or on the Hugging Face hub) or wandb."""
    project: str = "virtex"
    """Project of the dashboard; the run is named after its folder."""

    def __post_init__(self) -> None:
        if isinstance(self.compile, bool):  # its two values in earlier versions
            object.__setattr__(self, "compile", "task" if self.compile else "none")
        ranges = {
            "seed": (0, 2**63 - 1),
            "num_steps": (1, 2**40),
            "batch_size": (1, 2**20),
            "accumulation_steps": (1, 2**20),
            "log_every": (1, 2**40),
            "validate_every": (0, 2**40),
            "checkpoint_every": (0, 2**40),
            "keep_checkpoints": (0, 2**40),
            "keep_every": (0, 2**40),
        }
        problems = out_of_range(self, ranges)
        if self.compile == "step" and self.precision == "fp16":
            problems.append(
                "compile step compiles the update, which the loss scaler of fp16 may skip: take "
                "compile task, or precision bf16 or fp32"
            )
        if not 0 < len(self.project) <= 128 or set(self.project) & set(NOT_IN_PROJECT):
            problems.append(
                f"project {self.project!r} must have 1 to 128 letters, none of {NOT_IN_PROJECT}"
            )
        raise_all(ConfigError, "the run options cannot work", problems)

    @property
    def piece_size(self) -> int:
        """Images of a piece of each batch, of all processes together."""
        return self.batch_size // self.accumulation_steps


def check_batch_size(config: RunConfig) -> None:
    """Raise ConfigError if a batch cannot be split into equal parts."""
    num_processes, num_pieces = distributed.world_size(), config.accumulation_steps
    num_parts = num_processes * num_pieces
    if config.batch_size % num_parts:
        among = f"{num_processes} process{'es' if num_processes > 1 else ''}"
        raise ConfigError(
            f"run.batch_size {config.batch_size} cannot be split equally among {among} with "
            f"run.accumulation_steps {num_pieces}: choose a multiple of {num_parts}."
        )


def choose_device(name: str) -> torch.device:
    """Return the named device: `auto` is the GPU, or the CPU where there is none.

    `auto` and `cuda` give each process its own GPU.

    Raises:
        ConfigError: This machine lacks the device.
    """
    default = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(default if name == "auto" else name)
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", distributed.local_rank())
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0]
        gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
        mps = ["mps"] if torch.backends.mps.is_available() else []
        raise ConfigError(
            f"device {name!r} cannot be used: {reason}\n"
            f"This machine has {', '.join(['cpu', *gpus, *mps])}; `auto` chooses by itself."
        ) from error
    return device


def due(step: int, every: int, num_steps: int) -> bool:
    """Return whether `step` is a multiple of `every` (0: never) or the last step."""
    return step == num_steps or (every > 0 and step % every == 0)


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Return the context in which forward passes run at a precision."""
    assert precision != "auto", "what auto stands for is chosen before training"
    return torch.autocast(device.type, DTYPES.get(precision), enabled=precision in DTYPES)


def configure_torch(config: RunConfig, device: torch.device) -> None:
    """Set this process's GPU, and whether torch uses the fastest or deterministic kernels."""
    if device.type == "cuda":
        if device.index is not None:  # without one the current GPU is meant
            torch.cuda.set_device(device)
        set_tf32(config.float32_matmul)
    torch.backends.cudnn.benchmark = config.cudnn_benchmark and not config.deterministic
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(config.deterministic)


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed torch's global generators as a function of (seed, step, rank).

    So checkpoints need no generator state, and validation between two steps has no effect on later
    steps.
    """
    torch.manual_seed(_drawn((seed, step, rank)))


def seed_of_step(seed: int, step: int) -> int:
    """Return a random seed that all processes share in a step."""
    return _drawn((seed, step)) >> 1


def _drawn(entropy: tuple[int, ...]) -> int:
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0])


class RunFolder:
    """The folder of a run, to which only the main process writes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_path = path / "config.yaml"
        self.log_path = path / "log.jsonl"
        self.checkpoints = CheckpointFolder(path / "checkpoints")
        self.events: TensorBoardEvents | None = None

    def has_begun(self) -> bool:
        """Whether there is a checkpoint to resume from."""
        return bool(self.checkpoints.steps())

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock of the folder, which training needs; entered by all processes of a run.

        Where torchrun or srun start lost processes again, one that is still ending is waited for.

        Raises:
            ConfigError: Another run holds the lock; names its process and host.
            DataError: The folder cannot be written.
        """
        with ExitStack() as stack:
            patience = LOCK_PATIENCE if is_started_again(os.environ) else 0.0
            lock = files.locked(
                self.path / ".lock", subject=f"the run {self.path}", patience=patience
            )
            distributed.on_main(lambda: stack.enter_context(lock))
            yield

    def write_config(self, values: dict[str, Any]) -> None:
        """Write config.yaml atomically."""
        files.write(self.config_path, yaml.safe_dump(values, sort_keys=False))

    def begin(self, step: int, *, tensorboard: bool) -> None:
        """Prepare to train after `step`: remove the records of later steps, open TensorBoard."""
        with files.write_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        self.checkpoints.remove_temporary()
        if self.log_path.exists():
            lines = self.log_path.read_bytes().splitlines(keepends=True)
            kept = [line for line in lines if (found := _step(line)) is not None and found <= step]
            if kept != lines:
                files.write(self.log_path, b"".join(kept))
        if tensorboard:
            self.events = TensorBoardEvents(self.path / "tensorboard", purge_step=step + 1)

    def has_validation(self, step: int) -> bool:
        """Whether log.jsonl has a record of the validation of a step."""
        return any(b'"val/' in line and _step(line) == step for line in self.lines())

    def lines(self) -> Iterator[bytes]:
        """Yield the lines of log.jsonl."""
        if self.log_path.exists():
            with self.log_path.open("rb") as file:
                yield from file

    def log(self, record: Record) -> None:
        """Append a record, with its `step`, to log.jsonl and its numbers to TensorBoard.

        Numbers that are not finite become null, since JSON lacks them. A failure to write is logged
        as an error and does not stop the run.
        """
        finite = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in record.items()
        }
        try:
            with self.log_path.open("ab", buffering=0) as file:
                files.append(file, (json.dumps(finite) + "\n").encode())
        except OSError as error:
            log.error("cannot write the record of step %s: %s", record["step"], error)
        if self.events is not None:
            numbers = {
                name: value
                for name, value in record.items()
                if name != "step" and not isinstance(value, str)
            }
            self.events.log_numbers(numbers, step=int(record["step"]))

    def close(self) -> None:
        """Close the TensorBoard file."""
        if self.events is not None:
            self.events.close()
            self.events = None


def _step(line: bytes) -> int | None:
    """Return the step of a record; None for a line that a kill truncated."""
    try:
        return int(json.loads(line)["step"]) if line.endswith(b"\n") else None
    except (ValueError, KeyError, TypeError):
        return None
