"""The process that sends a run's records to trackio or wandb.

It follows log.jsonl, so that training neither waits for a network nor shares its interpreter with
these libraries. A timer of the system ends the process where one of their calls takes too long,
whatever that call does. It outlives a killed run for as long as it takes to send the last records.
"""

import io
import json
import math
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from virtex import files
from virtex.engine.tracked_run import TrackedRun
from virtex.errors import DataError

POLL = 0.5
"""Seconds between two looks at log.jsonl."""
NICENESS = 5
MOST_BYTES = 2**22
"""Most bytes of samples.json."""
Numbers = Mapping[str, float]
Limit = Callable[[], AbstractContextManager[None]]
"""Context in which a call of the library may take a bounded time."""


@dataclass(frozen=True)
class Job:
    """What to send: the scores of a finished run, or else the records of one that trains."""

    folder: str
    patience: float
    """Longest time of a call of the library, in seconds."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Options and environment of the run that trains."""
    scores: dict[str, float] | None = None
    step: int = 0
    """Step of the scores."""

    def to_line(self) -> bytes:
        """Return the job as a line of JSON."""
        return json.dumps(asdict(self), default=str).encode() + b"\n"


class Dashboard:
    """A run on a dashboard; trackio and wandb have one interface, with few differences."""

    def __init__(self, tracked: TrackedRun, folder: Path) -> None:
        self.is_wandb = tracked.tracker == "wandb"
        self.library: Any
        own: dict[str, Any] = {}
        if self.is_wandb:
            import wandb

            self.library = wandb
            settings = wandb.Settings(console="off", x_stats_pid=os.getppid())
            where = os.environ.get("WANDB_DIR", str(folder))
            own = {"id": tracked.id, "settings": settings, "dir": where}
        else:
            import trackio

            self.library = trackio
        self.run = self.library.init(
            project=tracked.project,
            name=tracked.name,
            config=dict(tracked.facts),  # trackio replaces what it had
            resume="allow",
            **own,
        )

    def log(self, numbers: Numbers, step: int) -> None:
        """Add numbers to the curves of the run."""
        if numbers:
            self.library.log(dict(numbers), step=step)

    def log_images(self, captions: Mapping[Path, str], step: int) -> None:
        """Add image files, with the text beneath each."""
        images = {
            f"samples/{index}": self.library.Image(str(path), caption=caption)
            for index, (path, caption) in enumerate(captions.items())
        }
        if images:
            self.library.log(images, step=step)

    def log_scores(self, scores: Numbers, step: int) -> None:
        """Set scores of the trained weights."""
        if self.is_wandb:
            self.run.summary.update(dict(scores))
        else:
            self.library.log(dict(scores), step=step)

    def finish(self) -> None:
        """Send what is left."""
        self.library.finish()


class Follower:
    """A reader of log.jsonl that sends each record once, also where a resumed run repeats steps."""

    def __init__(self, folder: Path, tracked: TrackedRun, dashboard: Dashboard) -> None:
        self.folder, self.tracked, self.dashboard = folder, tracked, dashboard
        self.offset, self.last = 0, (0, 0)

    def send_new(self, limit: Limit) -> None:
        """Send the records that were added to the log, and store after each that it was sent.

        Nothing can be stored later: a timer or a kill may end the process within any call.
        """
        for record in self._new_records():
            step = int(record["step"])
            self.last = (step, self.last[1] + 1 if step == self.last[0] else 1)
            if self.last <= (self.tracked.step, self.tracked.num_records):
                continue
            with limit():
                self.dashboard.log(finite_numbers(record), step)
                if any(name.startswith("val/") for name in record):
                    self.dashboard.log_images(panels_of(self.folder, step), step)
            self.tracked = replace(self.tracked, step=step, num_records=self.last[1])
            self.tracked.write(self.folder)

    def _new_records(self) -> Iterator[dict[str, Any]]:
        try:
            with (self.folder / "log.jsonl").open("rb") as file:
                file.seek(self.offset)
                content = file.read()
        except FileNotFoundError:
            return
        whole = content[: content.rfind(b"\n") + 1]
        self.offset += len(whole)
        for line in whole.splitlines():
            record = json.loads(line)
            if isinstance(record, dict) and isinstance(record.get("step"), int):
                yield record


def finite_numbers(record: Mapping[str, Any]) -> dict[str, float]:
    """Return the finite numbers of a record, all but its step."""
    return {
        name: value
        for name, value in record.items()
        if name != "step" and isinstance(value, int | float) and math.isfinite(value)
    }


def panels_of(folder: Path, step: int) -> dict[Path, str]:
    """Return the sample panels that were drawn at a step, each with its captions as text."""
    path = folder / "samples.json"
    try:
        content = json.loads(files.read_text(path, most=MOST_BYTES))
        samples = content["samples"] if content["step"] == step else []
        panels = {
            folder / sample["panel"]: f"{sample['generated']} (reference: {sample['captions'][0]})"
            for sample in samples
            if "panel" in sample and sample["captions"]
        }
    except (DataError, ValueError, KeyError, TypeError):
        return {}
    return {path: text for path, text in panels.items() if path.is_file()}


def work(job: Job, is_over: Callable[[], bool]) -> None:
    """Do a job.

    Raises:
        DataError: The run folder says nothing of a dashboard, or cannot be written.
        ConfigError: Another process sends the records of the run.
        Exception: Whatever the library raises.
    """
    folder = Path(job.folder)

    @contextmanager
    def limit() -> Iterator[None]:
        signal.setitimer(signal.ITIMER_REAL, job.patience)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    patience = job.patience if job.scores is None else 0.0
    with files.locked(folder / ".tracking.lock", subject="the dashboard", patience=patience):
        tracked = TrackedRun.read(folder)
        if tracked is None:
            raise DataError(f"{folder} has no tracking.json that can be read")
        if job.scores is None and tracked.facts != job.facts:
            tracked = replace(tracked, facts=job.facts)
            tracked.write(folder)
        with limit():
            dashboard = Dashboard(tracked, folder)
        if job.scores is None:
            try:
                _follow(Follower(folder, tracked, dashboard), limit, is_over)
            except Exception:
                with suppress(Exception), limit():  # the library may hold records that it took
                    dashboard.finish()
                raise
        with limit():
            if job.scores is not None:
                dashboard.log_scores(job.scores, job.step)
            dashboard.finish()


def _follow(follower: Follower, limit: Limit, is_over: Callable[[], bool]) -> None:
    """Send records until training is over."""
    ended = False
    while not ended:
        ended = is_over()  # before the last look
        follower.send_new(limit)


def main() -> int:
    """Do the job that the first line of stdin holds; a second line, or a lost parent, ends it."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    parent = os.getppid()
    os.nice(NICENESS)
    stdin = io.FileIO(0, closefd=False)  # a buffer would hide the second line from select

    def is_over() -> bool:
        return bool(select.select([stdin], [], [], POLL)[0]) or os.getppid() != parent

    try:
        work(Job(**json.loads(stdin.readline())), is_over)
    except Exception as error:
        traceback.print_exc()
        print(f"{type(error).__name__}: {' '.join(str(error).split())}", flush=True)
        return 1
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # the libraries' own exit handlers may wait for a network
