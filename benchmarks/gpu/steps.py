"""Training steps of four networks, plain and compiled, each beside its bare backbone's."""

from collections.abc import Callable, Iterator
from functools import partial

from torch._dynamo.utils import counters

from benchmarks.gpu.jobs import Events, Job, Row
from benchmarks.gpu.settings import Settings
from benchmarks.gpu.stopwatch import Stopwatch
from benchmarks.gpu.training import (
    NETWORKS,
    Compile,
    Network,
    free_memory,
    halving,
    time_bare,
    time_task,
)

COMPILED: tuple[tuple[int, Compile], ...] = (
    (0, "task"), (2, "task"), (0, "step"), (2, "step"),
    (1, "task"), (3, "task"), (1, "step"), (3, "step"),
)  # fmt: skip
"""Indices of networks and how they are compiled, the most telling first."""
BARE = "bare"


def jobs(settings: Settings, events: Events) -> list[Job]:
    """Return the jobs of the section: all networks plain, and then as time allows."""
    earlier = partial(events.rows, "steps")
    plain = [
        Job(network.name, partial(_plain, network, settings), needs=10, limit=90)
        for network in NETWORKS
    ]
    compiled = [
        Job(
            f"{NETWORKS[index].name}, compile {kind}",
            partial(_compiled, NETWORKS[index], kind, settings, earlier),
            needs=5 if settings.is_toy else 25,
            limit=150,
        )
        for index, kind in COMPILED[: 1 if settings.is_toy else None]
    ]
    bare = [
        Job(
            f"{NETWORKS[index].backbone} bare, compiled",
            partial(_compiled_bare, NETWORKS[index], settings, earlier),
            needs=5 if settings.is_toy else 25,
            limit=120,
        )
        for index in ([] if settings.is_toy else [0, 2])
    ]
    return plain + compiled[:2] + bare + compiled[2:]


def _plain(network: Network, settings: Settings, seconds: float) -> Iterator[Row]:
    """Yield the figures of a task's step and of its bare backbone's."""
    time_it = partial(time_task, network, settings, compile="none")
    watch, batch_size = halving(lambda size: time_it(batch_size=size), settings.batch_size)
    free_memory()
    bare = time_bare(network, settings, batch_size=batch_size, is_compiled=False)
    free_memory()
    yield row(network, BARE, "none", bare, batch_size=batch_size, beside=bare.step_seconds())
    yield row(
        network, "task", "none", watch, batch_size=batch_size, beside=bare.step_seconds()
    ) | _reduced(batch_size, settings)


def _compiled(
    network: Network,
    kind: Compile,
    settings: Settings,
    earlier: Callable[[], list[Row]],
    seconds: float,
) -> Iterator[Row]:
    """Yield the figures of a task's compiled step, at the batch size of the plain one."""
    batch_size, beside = _plain_figures(network, earlier(), settings)
    counters.clear()
    time_it = partial(time_task, network, settings, compile=kind)
    watch, own_size = halving(lambda size: time_it(batch_size=size), batch_size)
    graphs = {
        "graphs": int(counters["stats"]["unique_graphs"]),
        "breaks": sum(counters["graph_break"].values()),
    }
    free_memory()
    if own_size != batch_size or beside is None:
        bare = time_bare(network, settings, batch_size=own_size, is_compiled=False)
        beside = bare.step_seconds()
        free_memory()
    figures = row(network, "task", kind, watch, batch_size=own_size, beside=beside)
    yield figures | graphs | _reduced(own_size, settings)


def _compiled_bare(
    network: Network, settings: Settings, earlier: Callable[[], list[Row]], seconds: float
) -> Iterator[Row]:
    """Yield the figures of a backbone's compiled step."""
    batch_size, beside = _plain_figures(network, earlier(), settings)
    bare = time_bare(network, settings, batch_size=batch_size, is_compiled=True)
    free_memory()
    yield row(network, BARE, "task", bare, batch_size=batch_size, beside=beside)


def _plain_figures(
    network: Network, earlier: list[Row], settings: Settings
) -> tuple[int, float | None]:
    """Return batch size and seconds of the bare step that was measured before, if it was."""
    for figures in earlier:
        if (figures["network"], figures["step"], figures["compile"]) == (
            network.name,
            BARE,
            "none",
        ):
            return int(figures["batch"]), float(figures["ms"]) / 1000
    return settings.batch_size, None


def row(
    network: Network,
    step: str,
    compile: Compile,
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
        "compile": compile,
        "batch": batch_size,
        "images_per_second": batch_size / seconds,
        "of_bare": beside / seconds if beside else "",
        "ms": 1000 * seconds,
        "memory_gib": watch.memory_gib(),
        "first_steps_s": watch.warmup_seconds,
    }


def _reduced(batch_size: int, settings: Settings) -> Row:
    """Return a remark if the batch was halved."""
    if batch_size == settings.batch_size:
        return {}
    return {"remark": f"batch {settings.batch_size} does not fit the memory"}
