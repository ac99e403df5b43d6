"""What a run measures about itself: the losses of its last steps, and its speed."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor

from virtex import distributed
from virtex.errors import VirTexError

Item = TypeVar("Item")


class LossWindow:
    """Scalars of the steps since the last record; they stay on the device until they are asked for.

    Reading them waits for the device, so it is done once for many steps. The scalar called
    `exempt`, if any, may be infinite (a gradient norm under fp16, where the scaler skips the step).
    """

    def __init__(self, *, exempt: str | None = None) -> None:
        self.exempt = exempt
        self.names: list[str] = []
        self.rows: list[Tensor] = []

    def add(self, scalars: dict[str, Tensor]) -> None:
        """Take note of one step's scalars; their names are the same at every step."""
        self.names = self.names or list(scalars)
        assert self.names == list(scalars), f"logs changed from {self.names} to {list(scalars)}"
        self.rows.append(torch.stack([value.detach().float() for value in scalars.values()]))

    def check(self, step: int) -> Tensor:
        """The scalars so far on the CPU, (steps, names), after `step` finished steps.

        Raises:
            VirTexError: One of them is not finite; names the first step and the parts.
        """
        if not self.rows:
            return torch.empty(0, len(self.names))
        table = distributed.mean(torch.stack(self.rows))
        self.rows = list(table)
        table = table.cpu()
        bad = ~table.isfinite()
        if self.exempt in self.names:
            bad[:, self.names.index(self.exempt)] = False
        if bad.any():
            row = int(bad.any(dim=1).nonzero()[0])
            parts = [name for name, flag in zip(self.names, bad[row], strict=True) if flag]
            raise VirTexError(_diverged(step - len(table) + row + 1, parts))
        return table

    def read(self, step: int) -> dict[str, float]:
        """The mean of each scalar since the last reading.

        Where one may be infinite, it is the mean of the finite ones, and `skipped_steps` counts the
        others.
        """
        table = self.check(step)
        self.rows = []
        finite = table.isfinite()
        means = torch.where(finite, table, torch.nan).nanmean(dim=0)
        skipped = {"skipped_steps": float((~finite).sum())} if self.exempt else {}
        return {**dict(zip(self.names, means.tolist(), strict=True)), **skipped}

    def state_dict(self) -> dict[str, Any]:
        """What was gathered since the last record, so that a resumed run writes the same one."""
        return {"names": self.names, "rows": [row.cpu() for row in self.rows]}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Restore what `state_dict` gave."""
        self.names = list(state["names"])
        self.rows = [row.to(device) for row in state["rows"]]


def _diverged(step: int, parts: list[str]) -> str:
    return (
        f"training diverged: {' and '.join(parts)} not finite, first at step {step}. Nothing was "
        "saved since the last good checkpoint. Resuming would diverge again: begin "
        "a new run folder with a lower optim.lr and optim.backbone_lr, a longer warm-up, or "
        "run.precision bf16 in place of fp16."
    )


class Speed:
    """Images per second, and the share of the time spent waiting for data, since the last reading.

    Args:
        clock: Seconds from any origin.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock = clock
        self._restart()

    def _restart(self) -> None:
        self.began = self.clock()
        self.waited = self.paused = 0.0
        self.num_images = 0

    def next(self, batches: Iterator[Item], num_images: int) -> Item:
        """The next batch, with the time it took to come."""
        asked = self.clock()
        batch = next(batches)
        self.waited += self.clock() - asked
        self.num_images += num_images
        return batch

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Time that does not count: validation, checkpoints."""
        began = self.clock()
        yield
        self.paused += self.clock() - began

    def read(self) -> dict[str, float]:
        """`images_per_second` and `data_wait` (0 to 1) since the last reading."""
        seconds = max(self.clock() - self.began - self.paused, 1e-9)
        speed = {
            "images_per_second": self.num_images / seconds,
            "data_wait": self.waited / seconds,
        }
        self._restart()
        return speed
