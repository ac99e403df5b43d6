"""Pretraining from JPEG files, by the command that users type."""

from collections.abc import Iterator
from functools import partial

from benchmarks.gpu.commands import measure_run, pretrain_flags
from benchmarks.gpu.jobs import Events, Job, Row
from benchmarks.gpu.photographs import captions_folder
from benchmarks.gpu.settings import Settings

NAME = "R-50 bicaptioning H1024"


def jobs(settings: Settings, events: Events) -> list[Job]:
    """Return the one job of the section."""
    needs = 10 if settings.is_toy else 35
    return [Job(NAME, partial(_run, settings, events), needs=needs, limit=120)]


def _run(settings: Settings, events: Events, seconds: float) -> Iterator[Row]:
    """Yield the speed of a run, beside that of its step alone."""
    flags = [*pretrain_flags(settings), "--data.root", str(captions_folder(settings))]
    flags += ["--run.log_every", "2" if settings.is_toy else "10"]
    row = measure_run(
        settings.work / "end-to-end",
        flags,
        seconds=seconds - 10,
        window=1 if settings.is_toy else 10,
    )
    alone = step_alone(events)
    share = {"of_step_alone": float(row["images_per_second"]) / alone} if alone else {}
    yield {"network": NAME, **row, **share}


def step_alone(events: Events) -> float | None:
    """Return the images/s of the step that was measured without a loader, if it was."""
    for row in events.rows("steps"):
        if (row["network"], row["step"]) == (NAME, "task"):
            return float(row["images_per_second"])
    return None
