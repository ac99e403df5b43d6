"""Progress of a run on stderr: a bar on a terminal, a plain line for each record elsewhere."""

from collections.abc import Mapping
from types import TracebackType
from typing import Self, TextIO

from virtex.progress import ProgressBar

Record = Mapping[str, int | float | str]


class Progress:
    """Says how far a run is, how fast, and at what loss; the main process alone speaks."""

    def __init__(self, *, start: int, num_steps: int, stream: TextIO | None = None) -> None:
        self.start, self.num_steps = start, num_steps
        self.bar = ProgressBar("step", num_steps, unit="steps", start=start, stream=stream)

    def __enter__(self) -> Self:
        if self.start:
            self.bar.say(f"resuming after step {self.start}")
        self.bar.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.bar.__exit__(kind, error, traceback)

    def advance(self, step: int) -> None:
        """Note that `step` steps are finished; costs nothing where there is no terminal."""
        self.bar.reach(step)

    def record(self, record: Record) -> None:
        """Show a record of log.jsonl."""
        if self.bar.is_live and "train/loss" in record:
            self.bar.note(summary(record))
        else:
            self.bar.say(f"step {record['step']}/{self.num_steps}  {summary(record)}")


def summary(record: Record) -> str:
    """A record in a few words: loss, speed, and share of time waiting for data."""
    if "train/loss" not in record:
        values = [f"{name} {_short(value)}" for name, value in record.items() if name != "step"]
        return "  ".join(values)
    return (
        f"loss {_short(record['train/loss'])}  {_short(record['speed/images_per_second'])} images/s"
        f"  waiting for data {float(record['speed/data_wait']):.0%}"
    )


def _short(value: float | str) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
