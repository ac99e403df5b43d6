"""Measurements of a run: the losses of its last steps, and its speed."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor

from virtex import distributed
from virtex.errors import DivergedError

Item = TypeVar("Item")


class LossWindow:
    """Scalars of the steps since the last record, kept on the device.

    Reading waits for the device, so it happens once for many steps. The scalar named `exempt` may
    be infinite: a gradient norm under fp16, when the scaler skips the step.
    """

    def __init__(self, *, exempt: str | None = None) -> None:
        self.exempt = exempt
        self.names: list[str] = []
        self.rows: list[Tensor] = []
        self.num_means = 0
        """Number of first rows that are means over all processes already."""
        self.last_read = torch.empty(0, 0)
        """Scalars of the steps that were read last, by `names`."""

    def add(self, scalars: dict[str, Tensor]) -> None:
        """Add one step's scalars, whose names must be the same at every step."""
        self.names = self.names or list(scalars)
        assert self.names == list(scalars), f"logs changed from {self.names} to {list(scalars)}"
        self.rows.append(torch.stack([value.detach().float() for value in scalars.values()]))

    def check(self, step: int) -> Tensor:
        """Return the scalars so far on the CPU, (steps, names), after `step` finished steps.

        Raises:
            DivergedError: A scalar is not finite; names the first such step and its scalars.
        """
        if not self.rows:
            return torch.empty(0, len(self.names))
        if own := self.rows[self.num_means :]:
            self.rows[self.num_means :] = list(distributed.mean(torch.stack(own)))
            self.num_means = len(self.rows)
        table = torch.stack(self.rows).cpu()
        bad = ~table.isfinite()
        if self.exempt in self.names:
            bad[:, self.names.index(self.exempt)] = False
        if bad.any():
            row = int(bad.any(dim=1).nonzero()[0])
            parts = [name for name, flag in zip(self.names, bad[row], strict=True) if flag]
            raise DivergedError(
                f"training diverged: {' and '.join(parts)} not finite, first at step "
                f"{step - len(table) + row + 1}. No checkpoint was saved since. Resuming would "
                "diverge again: start a new run folder with a lower optim.lr and "
                "optim.backbone_lr, a longer warm-up, or run.precision bf16 in place of fp16."
            )
        return table

    def read(self, step: int) -> dict[str, float]:
        """Return the mean of each scalar since the last call.

        If `exempt` is set, means are over finite values and `skipped_steps` counts the others.
        """
        table = self.last_read = self.check(step)
        self.rows, self.num_means = [], 0
        finite = table.isfinite()
        means = torch.where(finite, table, torch.nan).nanmean(dim=0)
        skipped = {"skipped_steps": float((~finite).sum())} if self.exempt else {}
        return {**dict(zip(self.names, means.tolist(), strict=True)), **skipped}

    def last_values(self, name: str) -> list[float]:
        """Return the finite values of one scalar in the steps that were read last."""
        if name not in self.names or not len(self.last_read):
            return []
        column = self.last_read[:, self.names.index(name)]
        return [value for value in column.tolist() if math.isfinite(value)]

    def state_dict(self) -> dict[str, Any]:
        """Return the scalars since the last record; with them a resumed run logs the same means."""
        return {"names": self.names, "rows": [row.cpu() for row in self.rows]}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Restore the result of `state_dict`."""
        self.names = list(state["names"])
        self.rows = [row.to(device) for row in state["rows"]]
        self.num_means = len(self.rows)  # a checkpoint has means alone


class Speed:
    """Images per second, and the fraction of time spent waiting for data, since the last read."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock = clock
        self._restart()

    def _restart(self) -> None:
        self.started = self.clock()
        self.waited = self.paused = 0.0
        self.num_images = 0

    def next(self, batches: Iterator[Item]) -> Item:
        """Return the next batch, and count the time spent waiting for it."""
        start = self.clock()
        batch = next(batches)
        self.waited += self.clock() - start
        return batch

    def count(self, num_images: int) -> None:
        """Count the images of a step."""
        self.num_images += num_images

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Leave out the time of the block, such as validation and checkpoints."""
        start = self.clock()
        yield
        self.paused += self.clock() - start

    def read(self) -> dict[str, float]:
        """Return `images_per_second` and `data_wait` (0 to 1) since the last call."""
        seconds = max(self.clock() - self.started - self.paused, 1e-9)
        speed = {"images_per_second": self.num_images / seconds, "data_wait": self.waited / seconds}
        self._restart()
        return speed
