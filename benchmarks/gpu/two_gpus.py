"""The training step on one GPU, and under DDP on two: `torchrun -m benchmarks.gpu.two_gpus`."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.gpu.commands import run_module
from benchmarks.gpu.jobs import Events, Job, Row, Skipped
from benchmarks.gpu.settings import Settings
from benchmarks.gpu.training import NETWORKS, time_task
from virtex import distributed
from virtex.engine.run import choose_device

NEEDS = 60
"""Seconds for two starts and their steps."""


def jobs(settings: Settings, events: Events) -> list[Job]:
    """Return the one job of the section."""
    return [Job("DDP", lambda seconds: _run(settings, seconds), needs=NEEDS, limit=150)]


def _run(settings: Settings, seconds: float) -> Iterator[Row]:
    """Yield the speed of one process and of two."""
    if settings.device == "cuda" and torch.cuda.device_count() < 2:
        raise Skipped("this machine has one GPU")
    rates = {}
    for number in (1, 2):
        rates[number] = launch(settings, number, seconds=seconds / 2)
        yield {
            "network": NETWORKS[0].name,
            "processes": number,
            "batch_each": settings.batch_size,
            "images_per_second": rates[number],
            "of_one": rates[number] / rates[1],
        }


def launch(settings: Settings, number: int, *, seconds: float) -> float:
    """Return the images/s of all processes together."""
    path, result = settings.work / "settings.json", settings.work / f"processes-{number}.json"
    settings.write(path)
    torchrun = ["torch.distributed.run", "--standalone", "--nproc_per_node", str(number)]
    module = ["-m", "benchmarks.gpu.two_gpus", str(path), str(result)]
    if not run_module([*torchrun, *module], seconds=seconds):
        raise RuntimeError(f"{number} processes did not end within {seconds:.0f} s")
    return float(json.loads(result.read_text()))


def main() -> None:
    """Time the step in as many processes as torchrun started."""
    settings, result = Settings.read(Path(sys.argv[1])), Path(sys.argv[2])
    with distributed.process_group(choose_device(settings.device)):
        watch = time_task(NETWORKS[0], settings, batch_size=settings.batch_size, compile="none")
        rate = settings.batch_size * distributed.world_size() / watch.step_seconds()
        if distributed.is_main():
            result.write_text(json.dumps(rate))


if __name__ == "__main__":
    main()
