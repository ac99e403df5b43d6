"""Operations of a step by the device's time that they take."""

from collections.abc import Iterator
from functools import partial

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.jobs import Events, Job, Row
from benchmarks.gpu.settings import Settings
from benchmarks.gpu.stopwatch import Stopwatch
from benchmarks.gpu.training import NETWORKS, Network, free_memory, halving, time_task
from virtex.engine.run import choose_device

PROFILED = (0, 3)
"""Indices of networks."""
NUM_OPERATIONS = 12
NUM_STEPS = 5


class Profiler(Stopwatch):
    """A stopwatch of one window, whose steps are profiled."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(device, num_warmup=6, window=NUM_STEPS, num_windows=1)
        on_gpu = [ProfilerActivity.CUDA] if device.type == "cuda" else []
        self.profile = profile(activities=[ProfilerActivity.CPU, *on_gpu], acc_events=True)

    def _mark(self) -> None:
        super()._mark()
        if len(self.marks) == 1:
            self.profile.start()
        else:
            self.profile.stop()

    def operations(self) -> list[tuple[str, float, int]]:
        """Return name, milliseconds and calls of each operation, of one step; the longest first."""
        kind = "device" if self.device.type == "cuda" else "cpu"
        found = [
            (
                one.key,
                getattr(one, f"self_{kind}_time_total") / 1000 / NUM_STEPS,
                one.count // NUM_STEPS,
            )
            for one in self.profile.key_averages()
            if one.key.startswith(("aten::", "Optimizer", "Memcpy"))  # no kernel counts twice
        ]
        return sorted(found, key=lambda one: one[1], reverse=True)

    def host_ms(self) -> float:
        """Return the milliseconds of a step in which the host works."""
        total = sum(one.self_cpu_time_total for one in self.profile.key_averages()
                    if "Synchronize" not in one.key)  # fmt: skip
        return total / 1000 / NUM_STEPS


def jobs(settings: Settings, events: Events) -> list[Job]:
    """Return the jobs of the section."""
    return [
        Job(NETWORKS[index].name, partial(_run, NETWORKS[index], settings), needs=10, limit=60)
        for index in PROFILED[: 1 if settings.is_toy else None]
    ]


def _run(network: Network, settings: Settings, seconds: float) -> Iterator[Row]:
    """Yield the operations of a step that take longest, and the host's time."""

    def profiled(batch_size: int) -> Profiler:
        profiler = Profiler(choose_device(settings.device))
        time_task(network, settings, batch_size=batch_size, compile="none", stopwatch=profiler)
        return profiler

    profiler, _ = halving(profiled, settings.batch_size)
    operations = profiler.operations()
    whole = sum(ms for _, ms, _ in operations)
    for name, ms, count in operations[:NUM_OPERATIONS]:
        yield {"network": network.name, "operation": name, "ms": ms, "part": ms / whole,
               "calls": count}  # fmt: skip
    yield {"network": network.name, "operation": "(all)", "ms": whole, "part": 1}
    yield {"network": network.name, "operation": "(host)", "ms": profiler.host_ms()}
    free_memory()
