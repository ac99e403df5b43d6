"""Monitors of the steps: gradients, and what the hardware waits for."""

from collections.abc import Sequence
from statistics import fmean, median

from virtex.monitors.history import FEWEST, Facts, History

MOSTLY_CLIPPED = 0.95
"""Fraction of clipped steps from which clipping sets the rate of SGD: now and then is what it is
for."""
SPIKE = 30.0
"""Norm of a spike over the median norm: batches differ by less than ten times."""
WAITS = 0.5
"""Fraction of time waiting for data from which data take more time than training."""
GPU_IDLE = 0.5
"""Fraction of time below which a GPU computes less than it rests."""
GPU_BUSY = 0.9
"""Fraction of time from which a GPU has no use for more data, though the host waits for them."""
STARTS = 1
"""First records that do not count: workers and kernels start."""


def always_clipped(history: History, facts: Facts) -> str | None:
    """Return what is seen if nearly every step is clipped."""
    values = history.window("train/clipped", after=facts.first_step)
    if not facts.follows_norm or not values or fmean(values) < MOSTLY_CLIPPED:
        return None
    norm = history.mean("train/grad_norm")
    return (
        f"{fmean(values):.0%} of the steps are clipped to {facts.max_grad_norm:g} (norm {norm:.3g})"
    )


def norm_spikes(history: History, facts: Facts) -> str | None:
    """Return what is seen if a gradient's norm is far above the usual."""
    before = history.window("train/grad_norm", after=facts.first_step, before=1)
    largest = history.last("train/max_grad_norm")
    if len(before) < FEWEST or not largest or largest[-1] <= SPIKE * median(before):
        return None
    return (
        f"a gradient has norm {largest[-1]:.3g}, {largest[-1] / median(before):.0f} times the usual"
    )


def waits_for_data(history: History, facts: Facts) -> str | None:
    """Return what is seen if the steps wait for data most of the time.

    The median passes over a moment in which the machine, or a disk of the network, had other work.
    """
    values, uses = (_after_start(history, name) for name in ("data_wait", "gpu_use"))
    if not values or median(values) < WAITS or (uses and median(uses) >= GPU_BUSY):
        return None
    share = f"{median(values):.0%} of the time is spent"
    if facts.num_workers == 0:
        return f"{share} reading and decoding images, by the training process itself"
    return f"{share} waiting for data"


def gpu_rests(history: History, facts: Facts) -> str | None:
    """Return what is seen if the GPU rests most of the time, and not for lack of data."""
    if waits_for_data(history, facts):
        return None
    values = _after_start(history, "gpu_use")
    if not values or fmean(values) >= GPU_IDLE:
        return None
    return f"the GPU computes {fmean(values):.0%} of the time"


def _after_start(history: History, name: str) -> Sequence[float]:
    """Return the last window of a number of the speed, without the first records."""
    name = f"speed/{name}"
    return history.window(name, after=history.step(name, STARTS - 1))
