"""Runs a section in processes of its own, so that a crash or a hang never loses the others."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gpu.jobs import Events

POLL = 0.2
START_LIMIT = 120.0
"""Seconds within which a section's process must have imported what it needs."""
TIME_IS_UP = "ended when the section's time was up"
PATIENCE = 10.0
"""Seconds for a process to end after SIGTERM, before SIGKILL."""
ROOT = Path(__file__).resolve().parents[2]
Watch = Callable[[], None]


@dataclass(frozen=True)
class Section:
    """One table of the report."""

    name: str
    title: str
    module: str
    seconds: float
    """Time that it needs; 0 for what the others leave."""
    note: str = ""
    """Conditions of its figures."""


def run_section(
    section: Section, events: Events, *, settings: Path, log: Path, deadline: float, watch: Watch
) -> None:
    """Run a section until its jobs are done or its time is up.

    A process that dies or hangs is replaced by one that goes on with the next job.

    Args:
        deadline: A time of time.time().
        watch: Called several times a second.
    """
    if time.time() >= deadline:
        events.add(section.name, "skipped", "(all)", text="no time left")
    while not events.of(section.name, "end") and time.time() < deadline:
        command = [sys.executable, "-m", "benchmarks.gpu.worker", section.module, section.name]
        command += [str(settings), str(events.path), str(deadline)]
        with log.open("ab") as output:
            process = subprocess.Popen(
                command, cwd=ROOT, stdout=output, stderr=output, start_new_session=True
            )
            try:
                text = _reason_of_end(process, section.name, events, deadline, watch)
            finally:
                _end(process)
        stuck = events.unfinished(section.name)
        if stuck is not None:
            kind = "skipped" if text == TIME_IS_UP else "failed"
            events.add(section.name, kind, stuck["job"], text=text)
        elif not events.of(section.name, "end"):
            events.add(section.name, "failed", "(start)", text=text)
            break
    watch()


def _reason_of_end(
    process: subprocess.Popen[bytes], name: str, events: Events, deadline: float, watch: Watch
) -> str:
    """Wait until the process ends or has to be ended; return why."""
    started = time.time()
    while process.poll() is None:
        time.sleep(POLL)
        watch()
        now, job = time.time(), events.unfinished(name)
        if job is not None and now > job["time"] + job["limit"]:
            return f"ended after its limit of {job['limit']:.0f} s"
        if now > deadline + PATIENCE / 2:
            return TIME_IS_UP
        if not events.of(name, "plan") and now > started + START_LIMIT:
            return f"its process did not start within {START_LIMIT:.0f} s"
    code = process.returncode
    return f"its process ended with {_name_of(code)}; the log says why"


def _name_of(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process and those that it started."""
    for number, seconds in ((signal.SIGTERM, PATIENCE), (signal.SIGKILL, PATIENCE)):
        if process.poll() is not None and number == signal.SIGTERM:
            continue
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            continue
