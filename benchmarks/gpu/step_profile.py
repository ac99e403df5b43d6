"""Operations of a step by the device's time that they take."""

from collections.abc import Iterator
from functools import partial

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.jobs import Events, Job, Row
from benchmarks.gpu.settings import Settings
from benchmarks.gpu.steps import reduced
from benchmarks.gpu.stopwatch import Stopwatch
from benchmarks.gpu.training import NETWORKS, Network, free_memory, halving, time_task
from virtex.engine.run import choose_device

PROFILED = (0, 3)
"""Indices of networks."""
NUM_OPERATIONS = 12
NUM_STEPS = 5
WAITING = ("cudaDeviceSynchronize", "Command Buffer Full", "Activity Buffer Request")
"""Entries of the host's time in which it waits for the device, or the profiler works."""


class Profiler(Stopwatch):
    """A stopwatch of one window, whose steps are profiled."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(device, num_warmup=6, window=NUM_STEPS, num_windows=1)
        on_gpu = [ProfilerActivity.CUDA] if device.type == "cuda" else []
        self.profile = profile(activities=[ProfilerActivity.CPU, *on_gpu], acc_events=True)

    def _mark(self) -> None:
        if not self.marks:
            self.profile.start()
        super()._mark()
        if len(self.marks) > 1:
            self.profile.stop()

    def rows(self) -> list[Row]:
        """Return the figures of one step: of its longest operations, of all, and of the host."""
        seconds = self.step_seconds()  # raises if there was no step
        averages = self.profile.key_averages()
        kind = "device" if self.device.type == "cuda" else "cpu"
        times = {
            one.key: getattr(one, f"self_{kind}_time_total") / 1000 / NUM_STEPS
            for one in averages
            if one.device_type == DeviceType.CPU  # their kernels are counted with them
        }
        calls = {one.key: one.count // NUM_STEPS for one in averages}
        longest = sorted(times, key=times.__getitem__, reverse=True)[:NUM_OPERATIONS]
        whole = sum(times.values())
        host = sum(one.self_cpu_time_total for one in averages if one.key not in WAITING)
        return [
            *(
                {"operation": name, "ms": times[name], "part": times[name] / whole}
                | {"calls": calls[name]}
                for name in longest
            ),
            {"operation": "(all)", "ms": whole, "part": 1},
            {"operation": "(host)", "ms": host / 1000 / NUM_STEPS},
            {"operation": "(step)", "ms": 1000 * seconds},
        ]


def jobs(settings: Settings, events: Events) -> list[Job]:
    """Return the jobs of the section."""
    return [
        Job(NETWORKS[index].name, partial(_run, NETWORKS[index], settings), needs=10, limit=60)
        for index in PROFILED[: 1 if settings.is_toy else None]
    ]


def _run(network: Network, settings: Settings, seconds: float) -> Iterator[Row]:
    """Yield the operations of a step that take longest, all of them, and the host's time."""

    def profiled(batch_size: int) -> Profiler:
        profiler = Profiler(choose_device(settings.device))
        time_task(network, settings, batch_size=batch_size, compile="none", stopwatch=profiler)
        return profiler

    profiler, batch_size = halving(profiled, settings.batch_size)
    for row in profiler.rows():
        yield {"network": network.name, **row} | reduced(batch_size, settings)
    free_memory()
