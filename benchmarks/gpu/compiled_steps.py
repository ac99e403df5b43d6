"""The same steps compiled, which takes a minute and more for each."""

from collections.abc import Callable, Iterator
from functools import partial

from torch._dynamo.utils import counters

from benchmarks.gpu.jobs import Events, Job, Row
from benchmarks.gpu.settings import Settings
from benchmarks.gpu.steps import BARE, plain_figures, reduced, row
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
COMPILING = 120
"""Seconds below which compiling a step and measuring it is not worth beginning."""


def jobs(settings: Settings, events: Events) -> list[Job]:
    """Return the jobs of the section, the most telling first."""
    earlier = partial(events.rows, "steps")
    needs = 5 if settings.is_toy else COMPILING
    compiled = [
        Job(
            f"{NETWORKS[index].name}, compile {kind}",
            partial(_compiled, NETWORKS[index], kind, settings, earlier),
            needs=needs,
            limit=300,
        )
        for index, kind in COMPILED[: 1 if settings.is_toy else None]
    ]
    bare = [
        Job(
            f"{NETWORKS[index].backbone} bare, compiled",
            partial(_compiled_bare, NETWORKS[index], settings, earlier),
            needs=needs,
            limit=300,
        )
        for index in ([] if settings.is_toy else [0, 2])
    ]
    return compiled[:2] + bare + compiled[2:]


def _compiled(
    network: Network,
    kind: Compile,
    settings: Settings,
    earlier: Callable[[], list[Row]],
    seconds: float,
) -> Iterator[Row]:
    """Yield the figures of a task's compiled step, at the batch size of the plain one."""
    batch_size, beside = plain_figures(network, earlier(), settings)
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
    figures = row(network, "task", watch, batch_size=own_size, beside=beside)
    yield figures | {"compile": kind} | graphs | reduced(own_size, settings)


def _compiled_bare(
    network: Network, settings: Settings, earlier: Callable[[], list[Row]], seconds: float
) -> Iterator[Row]:
    """Yield the figures of a backbone's compiled step."""
    batch_size, beside = plain_figures(network, earlier(), settings)
    bare = time_bare(network, settings, batch_size=batch_size, is_compiled=True)
    free_memory()
    yield row(network, BARE, bare, batch_size=batch_size, beside=beside) | {"compile": "task"}
