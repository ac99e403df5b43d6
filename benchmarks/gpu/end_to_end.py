"""Pretraining from JPEG files, by the command that users type."""

from collections.abc import Iterator
from functools import partial

from benchmarks.gpu.commands import measure_run, pretrain_flags
from benchmarks.gpu.jobs import Events, Job, Row
from benchmarks.gpu.photographs import captions_folder
from benchmarks.gpu.settings import Settings
from benchmarks.gpu.training import Compile

NAME = "R-50 bicaptioning H1024"


def jobs(settings: Settings, events: Events) -> list[Job]:
    """Return the jobs of the section."""
    kinds: tuple[Compile, ...] = ("none",) if settings.is_toy else ("none", "task")
    return [
        Job(f"compile {kind}", partial(_run, settings, events, kind), needs=15, limit=150)
        for kind in kinds
    ]


def _run(settings: Settings, events: Events, kind: Compile, seconds: float) -> Iterator[Row]:
    """Yield the speed of a run, beside that of its step alone."""
    flags = [*pretrain_flags(settings), "--data.root", str(captions_folder(settings))]
    flags += ["--run.log_every", "2" if settings.is_toy else "10"]
    row = measure_run(
        settings.work / f"end-to-end-{kind}",
        [*flags, "--run.compile", kind],
        seconds=seconds - 10,
        window=1 if settings.is_toy else 10,
    )
    alone = step_alone(events, kind)
    share = {"of_step_alone": float(row["images_per_second"]) / alone} if alone else {}
    yield {"network": NAME, "compile": kind, **row, **share}


def step_alone(events: Events, kind: Compile) -> float | None:
    """Return the images/s of the step that was measured without a loader, if it was."""
    for row in events.rows("steps"):
        if (row["network"], row["step"], row["compile"]) == (NAME, "task", kind):
            return float(row["images_per_second"])
    return None
