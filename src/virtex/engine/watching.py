"""Monitors over a run's records: what they need beside the losses, and where their alarms go."""

import logging
from collections.abc import Sequence

import torch

from virtex.engine.meter import LossWindow
from virtex.engine.run import Record, RunFolder
from virtex.monitors.monitors import Alarm, Monitors

log = logging.getLogger("virtex")


class Watch:
    """The monitors of a run, whose alarms go to the terminal and to log.jsonl."""

    def __init__(self, monitors: Monitors, folder: RunFolder, *, step: int) -> None:
        self.monitors, self.folder = monitors, folder
        self._raise(monitors.begin(folder.lines(), step))

    def observe(self, record: Record) -> None:
        """Look at a record that was logged."""
        self._raise(self.monitors.observe(record))

    def norms(self, losses: LossWindow) -> dict[str, float]:
        """Return the largest gradient norm of the steps read last, and the fraction clipped."""
        norms, most = losses.last_values("grad_norm"), self.monitors.facts.max_grad_norm
        if not norms:
            return {}
        clipped = {"clipped": sum(norm > most for norm in norms) / len(norms)} if most else {}
        return {"max_grad_norm": max(norms), **clipped}

    def _raise(self, alarms: Sequence[Alarm]) -> None:
        for alarm in alarms:
            self.folder.log(alarm.record)
            log.warning("step %d: %s", alarm.step, alarm.text)


def gpu_use(device: torch.device) -> dict[str, float]:
    """Return `gpu_use`, the fraction of the last moments in which a GPU computed, if known.

    It takes nvidia-ml-py, and a driver that says.
    """
    if device.type != "cuda":
        return {}
    try:
        return {"gpu_use": torch.cuda.utilization(device) / 100}
    except Exception:  # the errors of NVML are classes of a library that may be absent
        return {}
