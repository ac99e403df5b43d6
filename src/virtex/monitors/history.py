"""What monitors look at: the records of a run so far, and what is known before it."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, NamedTuple

WINDOW = 100
"""Steps over which numbers are averaged: the noise of single batches is gone, and a failure is
named within a few hundred steps."""
FEWEST = 3
"""Fewest records of an average, so that with rare records one alone decides nothing."""
LOSS = "train/loss"


class Chance(NamedTuple):
    """The loss of a model that knows the frequencies of its targets and nothing else."""

    value: float
    what: str
    """What the value is, for a message."""


@dataclass(frozen=True)
class Facts:
    """What is known of a run before it begins."""

    chance: Mapping[str, Chance] = field(default_factory=dict)
    """Losses of a model that learned nothing, by the name under which each is logged."""
    warmup_steps: int = 0
    settled_step: int = 0
    """Step from which the loss is the same task at each step: a queue or memory bank is filled."""
    is_comparable: bool = True
    """Whether training and validation compute the same loss."""
    max_grad_norm: float = 0.0
    """Norm to which gradients are clipped; 0 for none."""
    follows_norm: bool = True
    """Whether an update is as large as its gradient: SGD's is, AdamW divides the size out."""
    num_workers: int | None = None
    """Processes that decode images; without any the training process does. None: not known."""

    @property
    def first_step(self) -> int:
        """The step after which the training loss may be judged."""
        return max(self.warmup_steps, self.settled_step)


class Validated(NamedTuple):
    """The losses at a validation."""

    trained: float
    validated: float


class History:
    """The numbers of a run's records, as log.jsonl holds them.

    Args:
        settled_step: See `Facts`.
    """

    def __init__(self, settled_step: int = 0) -> None:
        self.settled_step = settled_step
        self.steps: dict[str, list[int]] = {}
        self.values: dict[str, list[float]] = {}
        self.validations: list[Validated] = []
        """The losses at each validation; that of training is the mean of the last window."""
        self.first: float | None = None
        """The first training loss after `settled_step`, a mean of `FEWEST` records."""
        self.lowest: float | None = None
        """The lowest such mean."""
        self._block: list[float] = []

    def add(self, record: Mapping[str, Any]) -> None:
        """Add a record's numbers; null, which stands for a number that is not finite, is none."""
        for name, value in record.items():
            if name != "step" and isinstance(value, int | float):
                self.steps.setdefault(name, []).append(int(record["step"]))
                self.values.setdefault(name, []).append(float(value))
        if (loss := record.get(LOSS)) is not None:
            self._add_to_mean(int(record["step"]), float(loss))
        validated, trained = record.get("val/loss"), self.mean(LOSS)
        if validated is not None and trained is not None:
            self.validations.append(Validated(trained, float(validated)))

    def last(self, name: str, number: int = 1) -> Sequence[float]:
        """Return the last values of a number, fewer if there are no more."""
        return self.values.get(name, [])[-number:]

    def step(self, name: str, index: int = -1) -> int:
        """Return the step of a number's record `index`, by default the last; 0 if there is none."""
        steps = self.steps.get(name, [])
        return steps[index] if -len(steps) <= index < len(steps) else 0

    def window(self, name: str, *, after: int = 0, before: int = 0) -> Sequence[float]:
        """Return the values of a number in the last window, of `WINDOW` steps or more.

        Args:
            after: Records up to this step do not count.
            before: Number of later windows.

        Returns:
            No values if there are fewer than `FEWEST`, or `WINDOW` steps are not over yet.
        """
        steps = self.steps.get(name, [])
        if not steps or steps[-1] - after < WINDOW:
            return ()
        first = bisect_right(steps, after)
        end = start = len(steps)
        for _ in range(before + 1):
            end = start
            by_steps = bisect_right(steps, steps[end - 1] - WINDOW, hi=end) if end else 0
            start = max(first, min(by_steps, end - FEWEST))
            if end - start < FEWEST:
                return ()
        return self.values[name][start:end]

    def mean(self, name: str, *, after: int = 0, before: int = 0) -> float | None:
        """Return the mean of `window`; None if it is empty."""
        values = self.window(name, after=after, before=before)
        return fmean(values) if values else None

    def _add_to_mean(self, step: int, loss: float) -> None:
        """Take a training loss into the means of `FEWEST` records, one after another."""
        if step <= self.settled_step:
            return
        self._block.append(loss)
        if len(self._block) == FEWEST:
            mean = fmean(self._block)
            self.first = mean if self.first is None else self.first
            self.lowest = mean if self.lowest is None else min(self.lowest, mean)
            self._block = []
