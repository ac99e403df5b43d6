"""Monitors of a run: each names one thing that goes wrong, once, with what to try.

They read the numbers that the run logs anyway, so that no step waits for them. A resumed run
replays its log, so that a checkpoint holds nothing of them.
"""

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from virtex.monitors.history import LOSS, Facts, History
from virtex.monitors.losses import (
    far_below_validation,
    loss_rises,
    nothing_to_learn,
    stuck_at_chance,
    validation_rises,
)
from virtex.monitors.steps import always_clipped, gpu_rests, norm_spikes, waits_for_data
from virtex.monitors.validation import features_collapse, ignores_image

log = logging.getLogger("virtex")
PREFIX = "alarm/"
"""Beginning of an alarm's name in log.jsonl."""
NUM_QUIET = 5
"""Looks in a row that find nothing, after which an alarm is over and may be raised again."""
Look = Callable[[History, Facts], str | None]
"""Function that returns what it sees if something is wrong."""


@dataclass(frozen=True)
class Monitor:
    """Something that can go wrong, and what to try."""

    look: Look
    remedy: str
    at_validation: bool = False
    """Whether it looks at the records of validation, not of training."""

    @property
    def name(self) -> str:
        """Name in log.jsonl."""
        return self.look.__name__


MONITORS = (
    Monitor(
        nothing_to_learn,
        "there is nothing to predict, or it is always the same: look at the captions or classes "
        "by virtex data check",
    ),
    Monitor(
        stuck_at_chance,
        "nothing is learned yet: check that captions belong to their images, then try another "
        "optim.lr and optim.backbone_lr (3 times lower and higher)",
    ),
    Monitor(
        loss_rises, "try a lower optim.lr and optim.backbone_lr, or a longer optim.warmup_steps"
    ),
    Monitor(
        far_below_validation,
        "it learns the training data by heart: more data or fewer steps; keep the best checkpoint "
        "by early_stopping",
        at_validation=True,
    ),
    Monitor(
        validation_rises,
        "it learns the training data by heart: fewer steps, more optim.weight_decay or dropout; "
        "keep the best checkpoint by early_stopping",
        at_validation=True,
    ),
    Monitor(
        ignores_image,
        "the image is not used: check that captions belong to their images, and try bicaptioning "
        "with task.token_weight 1, which teaches the backbone beside a decoder",
        at_validation=True,
    ),
    Monitor(
        features_collapse,
        "the backbone tells no image from another: check the images, lower optim.backbone_lr and "
        "optim.weight_decay; in MoCo raise task.queue_size and task.momentum",
        at_validation=True,
    ),
    Monitor(
        always_clipped,
        "the size of the steps is set by clipping: try a lower learning rate, or a larger "
        "optim.max_grad_norm",
    ),
    Monitor(norm_spikes, "if it comes again: a longer optim.warmup_steps or a lower optim.lr"),
    Monitor(
        waits_for_data,
        "raise loader.num_workers by the number of free cores, or store smaller images, as virtex "
        "pack does",
    ),
    Monitor(
        gpu_rests, "raise run.batch_size, or set run.compile task: the host queues too small steps"
    ),
)


@dataclass(frozen=True)
class Alarm:
    """Something that goes wrong."""

    step: int
    name: str
    text: str
    """What is seen, and what to try."""

    @property
    def record(self) -> dict[str, int | float | str]:
        """The line of log.jsonl."""
        return {"step": self.step, PREFIX + self.name: self.text}


class Monitors:
    """The monitors of a run.

    Args:
        at_start: Alarms about the data, by name.
    """

    def __init__(self, facts: Facts, at_start: Mapping[str, str] | None = None) -> None:
        self.facts, self.at_start = facts, dict(at_start or {})
        self.history = History(facts.settled_step)
        self._quiet: dict[str, int] = {}
        """Looks without a finding since each alarm that is not over."""

    def begin(self, lines: Iterable[bytes], step: int) -> list[Alarm]:
        """Go through the log of the steps before, and return the alarms about the data if new."""
        said: set[str] = set()
        for line in lines:
            try:
                record = json.loads(line)
                self.observe(record)
                said |= record.keys()
            except (ValueError, KeyError, TypeError, AttributeError):
                continue  # a line that something else wrote
        new = {name: text for name, text in self.at_start.items() if PREFIX + name not in said}
        return [Alarm(step, name, text) for name, text in new.items()]

    def observe(self, record: Mapping[str, Any]) -> list[Alarm]:
        """Look at a record of training or validation, and return the new alarms."""
        self.history.add(record)
        kinds = {True: "val/loss", False: LOSS}
        alarms = [
            self._look(m, int(record["step"])) for m in MONITORS if kinds[m.at_validation] in record
        ]
        return [alarm for alarm in alarms if alarm is not None]

    def _look(self, monitor: Monitor, step: int) -> Alarm | None:
        seen = monitor.look(self.history, self.facts)
        if seen is None:
            if monitor.name in self._quiet:
                self._quiet[monitor.name] += 1
                if self._quiet[monitor.name] >= NUM_QUIET:
                    del self._quiet[monitor.name]
            return None
        is_new = monitor.name not in self._quiet
        self._quiet[monitor.name] = 0
        return Alarm(step, monitor.name, f"{seen}. Try: {monitor.remedy}.") if is_new else None
