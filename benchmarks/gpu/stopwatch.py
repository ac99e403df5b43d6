"""Times of windows of training steps, at whose bounds alone the device is waited for."""

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Self

import torch

from benchmarks.gpu.jobs import Cut
from virtex.tasks.base import Batch

GIB = 2**30


@dataclass
class Stopwatch:
    """A clock that is told when each step begins.

    Windows count steps between two of its marks, so it does not matter how far the host is ahead.
    """

    device: torch.device
    num_warmup: int
    """Steps before the first window, which compile and choose kernels."""
    window: int
    """Steps in a window."""
    num_windows: int = 3
    count: int = 0
    marks: list[float] = field(default_factory=list)
    most_memory: int = 0
    """Bytes that tensors took at most at once on a GPU, from the first mark to the last."""
    began: float = field(default_factory=time.perf_counter)

    @property
    def num_steps(self) -> int:
        """Steps to take: the last window ends where the step after it begins."""
        return self.num_warmup + self.window * self.num_windows + 1

    def step(self) -> None:
        """Note the beginning of a step."""
        past = self.count - self.num_warmup
        if past >= 0 and past % self.window == 0 and len(self.marks) <= self.num_windows:
            self._mark()
        self.count += 1

    def _mark(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            if not self.marks:
                torch.cuda.reset_peak_memory_stats(self.device)
            self.most_memory = torch.cuda.max_memory_allocated(self.device)
        self.marks.append(time.perf_counter())

    @property
    def warmup_seconds(self) -> float:
        """Seconds until the first window, with the building of the optimizer."""
        return self.marks[0] - self.began

    def step_seconds(self) -> float:
        """Return the seconds of a step in the median window.

        Raises:
            Cut: The steps were stopped before a window had ended.
        """
        if len(self.marks) < 2:
            raise Cut(f"stopped before it was measured, after {self.count} steps")
        windows = zip(self.marks, self.marks[1:], strict=False)
        return statistics.median(end - start for start, end in windows) / self.window

    def memory_gib(self) -> float | str:
        """Return the largest memory that tensors took at once; nothing on a CPU."""
        if self.device.type != "cuda":
            return ""
        return self.most_memory / GIB


class Timed:
    """A stream of steps' data that tells a stopwatch when each is fetched; see `BatchStream`."""

    def __init__(self, steps: Iterator[list[Batch]], stopwatch: Stopwatch) -> None:
        self.steps, self.stopwatch = steps, stopwatch

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> list[Batch]:
        self.stopwatch.step()
        return next(self.steps)

    def close(self) -> None:
        """Do nothing: there are no workers."""
