"""Training steps of four networks, each beside its bare backbone's."""

from collections.abc import Iterator
from functools import partial

from benchmarks.gpu.jobs import Events, Job, Row
from benchmarks.gpu.settings import Settings
from benchmarks.gpu.stopwatch import Stopwatch
from benchmarks.gpu.training import (
    NETWORKS,
    Network,
    free_memory,
    halving,
    time_bare,
    time_task,
)

BARE = "bare"


def jobs(settings: Settings, events: Events) -> list[Job]:
    """Return the jobs of the section: all networks as they are."""
    return [
        Job(network.name, partial(_plain, network, settings), needs=10, limit=90)
        for network in NETWORKS
    ]


def _plain(network: Network, settings: Settings, seconds: float) -> Iterator[Row]:
    """Yield the figures of a task's step and of its bare backbone's."""
    time_it = partial(time_task, network, settings, compile="none")
    watch, batch_size = halving(lambda size: time_it(batch_size=size), settings.batch_size)
    free_memory()
    bare = time_bare(network, settings, batch_size=batch_size, is_compiled=False)
    free_memory()
    yield row(network, BARE, bare, batch_size=batch_size, beside=bare.step_seconds())
    figures = row(network, "task", watch, batch_size=batch_size, beside=bare.step_seconds())
    yield figures | reduced(batch_size, settings)


def plain_figures(
    network: Network, earlier: list[Row], settings: Settings
) -> tuple[int, float | None]:
    """Return batch size and seconds of the bare step that was measured before, if it was."""
    for figures in earlier:
        if (figures["network"], figures["step"]) == (network.name, BARE):
            return int(figures["batch"]), float(figures["ms"]) / 1000
    return settings.batch_size, None


def row(
    network: Network,
    step: str,
    watch: Stopwatch,
    *,
    batch_size: int,
    beside: float | None,
) -> Row:
    """Return the figures of a step.

    Args:
        beside: Seconds of the bare backbone's step.
    """
    seconds = watch.step_seconds()
    return {
        "network": network.name,
        "step": step,
        "batch": batch_size,
        "images_per_second": batch_size / seconds,
        "of_bare": beside / seconds if beside else "",
        "ms": 1000 * seconds,
        "memory_gib": watch.memory_gib(),
        "first_steps_s": watch.warmup_seconds,
    }


def reduced(batch_size: int, settings: Settings) -> Row:
    """Return a remark if the batch was halved."""
    if batch_size == settings.batch_size:
        return {}
    return {"remark": f"batch {settings.batch_size} does not fit the memory"}
