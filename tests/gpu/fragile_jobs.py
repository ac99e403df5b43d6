"""Jobs for the test of the runner: good ones, and each way to fail."""

import os
import time
from collections.abc import Iterator

from benchmarks.gpu.jobs import Events, Job, Row, Skipped
from benchmarks.gpu.settings import Settings


def jobs(settings: Settings, events: Events) -> list[Job]:
    """Return the jobs."""
    return [
        Job("good", _good),
        Job("fails", _fails),
        Job("dies", lambda seconds: _rows_and(os._exit, 3)),
        Job("hangs", lambda seconds: _rows_and(time.sleep, 60), limit=0.5),
        Job("skips", _skips),
        Job("long", _good, needs=10_000),
        Job("last", _good),
    ]


def _good(seconds: float) -> Iterator[Row]:
    yield {"speed": 1.5}


def _fails(seconds: float) -> Iterator[Row]:
    yield {"speed": 2.5}
    raise ValueError("out of\nmemory")


def _rows_and(call: object, value: float) -> Iterator[Row]:
    yield {"speed": 3.5}
    assert callable(call)
    call(value)


def _skips(seconds: float) -> Iterator[Row]:
    raise Skipped("no GPU")
    yield {}
