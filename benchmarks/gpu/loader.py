"""Speed of the loader with workers on all cores, beside what the step takes."""

from collections.abc import Iterator

from benchmarks.gpu.commands import measure_run, num_cores, pretrain_flags
from benchmarks.gpu.end_to_end import step_alone
from benchmarks.gpu.jobs import Events, Job, Row
from benchmarks.gpu.photographs import captions_folder
from benchmarks.gpu.settings import Settings


def jobs(settings: Settings, events: Events) -> list[Job]:
    """Return the one job of the section."""
    return [
        Job(
            "all cores",
            lambda seconds: _run(settings, events, seconds),
            needs=10 if settings.is_toy else 30,
            limit=90,
        )
    ]


def _run(settings: Settings, events: Events, seconds: float) -> Iterator[Row]:
    """Yield images/s of a network so small that it waits for the loader."""
    flags = pretrain_flags(settings, is_tiny=True)
    flags += ["--data.root", str(captions_folder(settings))]
    row = measure_run(
        settings.work / "loader",
        [*flags, "--run.log_every", "2" if settings.is_toy else "5"],
        seconds=seconds - 10,
        window=1 if settings.is_toy else 8,
    )
    speed = float(row["images_per_second"])
    yield {
        "workers": num_cores() if not settings.is_toy else 2,
        "images_per_second": speed,
        "per_core": speed / num_cores(),
        "data_wait": row["data_wait"],
        "step_takes": step_alone(events) or "",
    }
