"""What a run is: its length, device, precision and seeds, and the folder it writes."""

import json
import logging
import math
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
import yaml

from virtex import distributed, files
from virtex.engine.checkpoint import CheckpointFolder
from virtex.engine.progress import Record
from virtex.errors import ConfigError, VirTexError, out_of_range, raise_all

log = logging.getLogger(__name__)
Precision = Literal["fp32", "bf16", "fp16"]
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class RunConfig:
    """How long to train, on what, and what to keep."""

    seed: int = 0
    """Seed of the initial weights, the order of the data, augmentation and dropout."""
    num_steps: int = 500_000
    """Training ends after this many steps, counted from the run's very beginning."""
    batch_size: int = 256
    """Examples in a step, over all processes together."""
    accumulation_steps: int = 1
    """Take each process's share of a batch in this many pieces, to save memory."""
    device: str = "auto"
    """auto (the GPU if there is one), cpu, cuda, cuda:1, mps."""
    precision: Precision = "fp32"
    """Arithmetic of forward and backward; weights are always kept in fp32."""
    channels_last: bool = True
    """Keep images and convolutions in the layout that most hardware prefers."""
    sync_batch_norm: bool = False
    """Take BatchNorm's statistics over the images of all processes, not of each alone."""
    compile: bool = False
    """Compile the task with torch.compile: slow to start, faster steps."""
    deterministic: bool = False
    """On a GPU: only deterministic kernels, so that a resumed run is bit-identical there too."""
    cudnn_benchmark: bool = True
    """On a GPU: choose the fastest convolutions for each new size of images; slower where sizes
    vary from batch to batch."""
    log_every: int = 20
    """Steps between two records in log.jsonl and TensorBoard."""
    validate_every: int = 2000
    """Steps between two validations; 0 validates at the end only."""
    checkpoint_every: int = 2000
    """Steps between two checkpoints; 0 writes one at the end only."""
    keep_checkpoints: int = 3
    """How many of the newest checkpoints to keep; 0 keeps all."""
    keep_every: int = 0
    """Also keep each checkpoint whose step is a multiple of this; 0 for none."""
    tensorboard: bool = True
    """Write TensorBoard events beside log.jsonl."""

    def __post_init__(self) -> None:
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
        raise_all(ConfigError, "the run options cannot work", problems)


def check_batch_size(config: RunConfig) -> None:
    """Raise ConfigError where a batch cannot be cut into equal shares."""
    shares = distributed.world_size() * config.accumulation_steps
    if config.batch_size % shares:
        raise ConfigError(
            f"run.batch_size {config.batch_size} cannot be shared equally by "
            f"{distributed.world_size()} processes in {config.accumulation_steps} pieces each: "
            f"choose a multiple of {shares}."
        )


def choose_device(name: str) -> torch.device:
    """The device that `run.device` names; `auto` and `cuda` give each process its own GPU."""
    try:
        device = torch.device(_default_device() if name == "auto" else name)
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", distributed.local_rank())
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"device {name!r} cannot be used: {reason}\n"
            f"This machine has {_devices()}; `auto` chooses by itself."
        ) from error
    return device


def _default_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _devices() -> str:
    gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    return ", ".join(["cpu", *gpus, *(["mps"] if torch.backends.mps.is_available() else [])])


def due(step: int, every: int, num_steps: int) -> bool:
    """Whether something done `every` steps (0: never) and at the end is to be done after `step`."""
    return step == num_steps or (every > 0 and step % every == 0)


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """The context in which forward passes run at a precision."""
    return torch.autocast(device.type, DTYPES.get(precision), enabled=precision in DTYPES)


def choose_precision(precision: Literal["auto", "fp32", "bf16"], device: torch.device) -> Precision:
    """The precision that is named; `auto`: bf16 where the device computes with it, else fp32."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        gains = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        able = torch.cpu.get_capabilities() if device.type == "cpu" else {}
        gains = any(able.get(name) for name in ("amx_bf16", "avx512_bf16"))
    return "bf16" if gains else "fp32"


def configure_torch(config: RunConfig, device: torch.device) -> None:
    """Set this process's GPU, and choose between the fastest kernels and deterministic ones."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
    torch.backends.cudnn.benchmark = config.cudnn_benchmark and not config.deterministic
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(config.deterministic)


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed torch's global generators as a function of (seed, step, rank).

    Dropout then needs no generator state in checkpoints, and nothing that happens between two steps
    (validation, sampled captions) can change what follows.
    """
    entropy = np.random.SeedSequence((seed, step, rank))
    torch.manual_seed(int(entropy.generate_state(1, np.uint64)[0]))


class _Writer(Protocol):
    def add_scalar(self, tag: str, value: float, step: int) -> None: ...

    def close(self) -> None: ...


class RunFolder:
    """Where a run writes; only the main process may write."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_path = path / "config.yaml"
        self.log_path = path / "log.jsonl"
        self.checkpoints = CheckpointFolder(path / "checkpoints")
        self._writer: _Writer | None = None

    def has_begun(self) -> bool:
        """Whether there is something to resume: a start that failed before that binds nobody."""
        return self.config_path.is_file() and bool(self.checkpoints.steps())

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other runs from training here; reading is free. All processes of a run enter it.

        Raises:
            ConfigError: Another run trains here; names its process and host.
            DataError: The folder cannot be written.
        """
        refusal: object = None
        with ExitStack() as stack:
            if distributed.is_main():
                lock = files.locked(self.path / ".lock", subject=f"the run {self.path}")
                try:
                    stack.enter_context(lock)
                except VirTexError as error:
                    refusal = error
            refusal = distributed.gather_objects(refusal)[0]
            if isinstance(refusal, VirTexError):
                raise refusal
            yield

    def write_config(self, values: dict[str, Any]) -> None:
        """Write config.yaml."""
        files.write(self.config_path, yaml.safe_dump(values, sort_keys=False))

    def begin(self, step: int, *, tensorboard: bool) -> None:
        """Prepare to go on after `step`; records of later steps are cut off: they will return."""
        with files.telling(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        self.checkpoints.remove_temporary()
        if self.log_path.exists():
            lines = self.log_path.read_text().splitlines(keepends=True)
            kept = [line for line in lines if (found := _step(line)) is not None and found <= step]
            if kept != lines:
                files.write(self.log_path, "".join(kept))
        if tensorboard:
            self._writer = _open_tensorboard(self.path / "tensorboard", step)

    def log(self, record: Record) -> None:
        """Append one record, with its `step`, to log.jsonl and its numbers to TensorBoard.

        Numbers that are not finite become null: JSON has none. A record that cannot be written is
        reported as lost; it is not worth the run.
        """
        finite = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in record.items()
        }
        try:
            with self.log_path.open("ab", buffering=0) as file:
                files.append(file, (json.dumps(finite) + "\n").encode())
            if self._writer is not None:
                for name, value in record.items():
                    if name != "step" and not isinstance(value, str):
                        self._writer.add_scalar(name, value, int(record["step"]))
        except OSError as error:
            log.error("cannot write the record of step %s: %s", record["step"], error)

    def close(self) -> None:
        """Close the TensorBoard file."""
        if self._writer is not None:
            try:
                self._writer.close()
            except OSError as error:
                log.error("cannot close TensorBoard's file: %s", error)
            self._writer = None


def _step(line: str) -> int | None:
    """The step of a record; None for a line that a kill cut short."""
    try:
        return int(json.loads(line)["step"]) if line.endswith("\n") else None
    except (ValueError, KeyError, TypeError):
        return None


def _open_tensorboard(path: Path, step: int) -> _Writer:
    """A writer whose events replace those of the same folder after `step`."""
    from torch.utils.tensorboard import SummaryWriter  # slow to import, and not always wanted

    return SummaryWriter(str(path), purge_step=step + 1)
