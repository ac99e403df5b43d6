"""Runs of the `virtex` command, read while they go on and ended in time."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.gpu.jobs import Row
from benchmarks.gpu.settings import Settings

POLL = 0.2
ENDING = 60.0
"""Seconds that a command gets to save what it has after SIGTERM."""
SKIPPED_RECORDS = 2
"""Records of a log that are not measured: kernels are chosen and workers start."""
TOY = """
backbone: {name: resnet18, options: {layers: [1, 1, 1, 1], channels: [8, 8, 16, 16]}}
task: {name: bicaptioning, head: {hidden_size: 64}}
tokenizer: {vocab_size: 300}
"""
"""Networks of a few channels."""


def num_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def pretrain_flags(settings: Settings, *, is_tiny: bool = False) -> list[str]:
    """Return the options of all pretraining here: `gpu_small` on the device, or a tiny network."""
    flags = ["--config", "gpu_small", "--processes", "1", "--run.device", settings.device]
    flags += ["--image.size", str(settings.image_size), "--run.precision", settings.precision]
    flags += ["--run.batch_size", str(settings.batch_size), "--run.tensorboard", "false"]
    flags += ["--run.validate_every", "0", "--run.checkpoint_every", "0", "--num_samples", "0"]
    flags += ["--loader.num_workers", str(2 if settings.is_toy else num_cores())]
    return [*flags, "--config", TOY] if is_tiny or settings.is_toy else flags


def virtex(
    arguments: Sequence[str], *, seconds: float, is_over: Callable[[], bool] = lambda: False
) -> bool:
    """Run a command of virtex; see `run_module`."""
    return run_module(["virtex.cli", *arguments], seconds=seconds, is_over=is_over)


def run_module(
    arguments: Sequence[str], *, seconds: float, is_over: Callable[[], bool] = lambda: False
) -> bool:
    """Run a Python module until it ends, `is_over`, or its time is up.

    Returns:
        Whether it ended by itself.

    Raises:
        RuntimeError: It failed by itself.
    """
    name = " ".join(arguments[:2])
    process = subprocess.Popen([sys.executable, "-m", *arguments])
    deadline, was_ended = time.monotonic() + seconds, False
    while process.poll() is None:
        time.sleep(POLL)
        if is_over() or time.monotonic() > deadline:
            process.terminate()
            was_ended = True
            break
    try:
        code = process.wait(ENDING)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise RuntimeError(f"{name} did not end after SIGTERM") from None
    if code and not was_ended:
        raise RuntimeError(f"{name} ended with exit code {code}; the log says why")
    return not was_ended


def records(run: Path) -> list[dict[str, float]]:
    """Return the records of training in a run's log, without the first."""
    path = run / "log.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    found = [json.loads(line) for line in lines if line.endswith("\n")]
    return [record for record in found if "train/loss" in record]


def measure_run(out: Path, flags: Sequence[str], *, seconds: float, window: float) -> Row:
    """Train until `window` seconds are measured; return images/s and the fraction of waiting.

    Args:
        seconds: Limit of the whole run.
    """
    began: list[float] = []

    def is_over() -> bool:
        if len(records(out)) > SKIPPED_RECORDS and not began:
            began.append(time.monotonic())
        return bool(began) and time.monotonic() > began[0] + window

    start = time.monotonic()
    virtex(["pretrain", *flags, "--out", str(out)], seconds=seconds, is_over=is_over)
    measured = records(out)[SKIPPED_RECORDS:]
    if not measured:
        raise RuntimeError(f"no record after {time.monotonic() - start:.0f} s")
    return speeds(measured)


def speeds(measured: Sequence[dict[str, float]]) -> Row:
    """Return the figures of records that stand for as many images each."""
    rates = [record["speed/images_per_second"] for record in measured]
    per_record = [1 / rate for rate in rates]
    waits = [record["speed/data_wait"] for record in measured]
    waited = sum(wait * time_of for wait, time_of in zip(waits, per_record, strict=True))
    return {
        "images_per_second": len(rates) / sum(per_record),
        "data_wait": waited / sum(per_record),
        "slowest_record": min(rates),
        "records": len(rates),
        "last_step": int(measured[-1]["step"]),
    }
