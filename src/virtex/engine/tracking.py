"""Dashboards of runs: trackio or wandb, beside log.jsonl and TensorBoard.

Another process sends the records (tracker_process.py). Training starts it, looks now and then
whether it still runs, and at the end waits for it for a bounded time.
"""

import contextlib
import hashlib
import importlib.util
import json
import logging
import os
import platform
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from virtex import config as config_files
from virtex import distributed
from virtex.engine.run import RunConfig
from virtex.engine.tracked_run import TrackedRun
from virtex.engine.tracker_process import Job
from virtex.errors import ConfigError, DataError
from virtex.version import VERSION

log = logging.getLogger("virtex")
PATIENCE = 120.0
"""Longest time of a call of the library, in seconds; wandb waits 90 for its server."""
PATIENCE_AT_END = 30.0
"""Seconds for which a run waits at its end for what is left to send."""
GIT_SECONDS = 5.0
LOG_NAME = "tracking.log"
TAIL = 1000
"""Most characters of that file in a message."""
LOST = (
    "the dashboard gets no more of this run (%s). log.jsonl and TensorBoard have all records, and "
    "when the run is resumed, the missing ones are sent. %s says more"
)
PROGRAM = "virtex.engine.tracker_process"
ENVIRONMENT = "environment."
PACKAGES = ("torchvision", "timm", "numpy")
HINTS = {
    "trackio": "`trackio show --project {project}` opens the dashboard",
    "wandb": "{log_path} has its address; with WANDB_MODE=offline, `wandb sync` sends it later",
}


def check_tracker(run: RunConfig) -> None:
    """Raise ConfigError if the package of `run.track` is not installed."""
    if run.track != "none" and not is_installed(run.track):
        raise ConfigError(
            f"run.track {run.track} needs {run.track}, which is not installed: pip install "
            f"{run.track}. Or leave run.track out: log.jsonl and TensorBoard are always written."
        )


def is_installed(package: str) -> bool:
    """Return whether a package can be imported; a folder of that name, as wandb writes, cannot."""
    spec = importlib.util.find_spec(package)
    return spec is not None and spec.origin is not None


class Tracker:
    """The process that sends a run's records, as training sees it."""

    def __init__(self, folder: Path, job: Job) -> None:
        self.log_path = folder / LOG_NAME
        self.process: subprocess.Popen[bytes] | None = None
        with contextlib.suppress(BrokenPipeError), self.log_path.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", PROGRAM],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # away from the terminal's signals
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            )
            self._say(job.to_line())

    def check(self) -> None:
        """Log once that the process has ended before its time."""
        if self.process is not None and self.process.poll() is not None:
            log.error(LOST, self._end() or "it ended", self.log_path)

    def close(self) -> None:
        """Let the process send what is left, wait a bounded time, and log a failure."""
        if self.process is not None and (failure := self.finish(PATIENCE_AT_END)):
            log.error(LOST, failure, self.log_path)

    def finish(self, patience: float) -> str | None:
        """Let the process send what is left; return why it did not, if so.

        After `patience` seconds it is left to itself, and its own timer ends it.
        """
        assert self.process is not None
        with contextlib.suppress(BrokenPipeError):
            self._say(b"end\n")
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.process = None
            return f"no answer for {patience:g} s; it goes on trying for up to {PATIENCE:g} s"
        return self._end()

    def _say(self, line: bytes) -> None:
        assert self.process is not None
        assert self.process.stdin is not None
        self.process.stdin.write(line)
        self.process.stdin.flush()

    def _end(self) -> str | None:
        """Return why the process failed, which has ended, and end what it has started."""
        assert self.process is not None
        process, self.process = self.process, None
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        if process.returncode == -signal.SIGALRM:
            return f"no answer for {PATIENCE:g} s"
        if process.returncode <= 0:
            return f"signal {-process.returncode}" if process.returncode else None
        with self.log_path.open("rb") as file:
            file.seek(max(0, self.log_path.stat().st_size - TAIL))
            lines = file.read().decode(errors="replace").strip().splitlines()
        return lines[-1][:TAIL] if lines else f"exit code {process.returncode}"


def begin_tracking(
    folder: Path, run: RunConfig, *, step: int, facts: Mapping[str, Any]
) -> Tracker | None:
    """Start to send the records of a run that trains on after `step`; None if nothing tracks it.

    The run keeps its place on the dashboard, unless tracker or project change, or it begins
    again with other options. Called in the main process.
    """
    if run.track == "none":
        return None
    try:
        tracked = _tracked_run(folder, run, step=step, facts=facts)
        tracker = Tracker(folder, Job(str(folder.absolute()), PATIENCE, dict(facts)))
    except (DataError, OSError) as error:
        log.error("%s gets nothing of this run: %s. Training goes on.", run.track, error)
        return None
    project = shlex.quote(run.project)
    hint = HINTS[run.track].format(project=project, log_path=folder / LOG_NAME)
    log.info("%s shows the run as %s in project %s: %s", run.track, tracked.name, run.project, hint)
    return tracker


def _tracked_run(
    folder: Path, run: RunConfig, *, step: int, facts: Mapping[str, Any]
) -> TrackedRun:
    """Return the identity that the run has, or a new one, which is stored."""
    options = {name: value for name, value in facts.items() if not name.startswith(ENVIRONMENT)}
    text = json.dumps(options, sort_keys=True, default=str)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    tracked = TrackedRun.read(folder)
    is_same = tracked is not None and (tracked.tracker, tracked.project) == (run.track, run.project)
    if tracked is not None and is_same and (step > 0 or tracked.options == digest):
        return tracked
    tracked = TrackedRun.create(folder, tracker=run.track, project=run.project, options=digest)
    tracked.write(folder)
    return tracked


def send_scores(folder: Path, scores: Mapping[str, float], *, step: int) -> None:
    """Send scores of a run's weights to the dashboard that the run folder names, if it names one.

    Failures are logged.
    """
    tracked = TrackedRun.read(folder)
    if tracked is None:
        return
    if not is_installed(tracked.tracker):
        log.warning(
            "%s does not get the scores of %s: pip install %s, and repeat the command",
            tracked.tracker, tracked.name, tracked.tracker,
        )  # fmt: skip
        return
    job = Job(str(folder.absolute()), PATIENCE, scores=dict(scores), step=step)
    try:
        failure = Tracker(folder, job).finish(PATIENCE)
    except OSError as error:
        failure = str(error)
    if failure is None:
        log.info("%s shows the scores in %s", tracked.tracker, tracked.name)
    else:
        log.error("%s does not get the scores of %s: %s", tracked.tracker, tracked.name, failure)


def facts_of(config: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """Return the options of a run by their dotted names, then its environment."""
    environment = {"virtex": VERSION, "python": platform.python_version()}
    environment |= {"torch": str(torch.__version__)}
    environment |= {package: version(package) for package in PACKAGES}
    environment["device"] = device.type
    if device.type == "cuda":
        environment["device"] = torch.cuda.get_device_name(device)
        environment["cuda"] = torch.version.cuda or ""
    environment |= {"host": platform.node(), "processes": str(distributed.world_size())}
    if (commit := _commit()) is not None:
        environment["commit"] = commit
    named = {ENVIRONMENT + name: text for name, text in environment.items()}
    return {**config_files.flat(config), **named}


def _commit() -> str | None:
    """Return the commit of the working directory, if it is in a git repository."""
    command = ["git", "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=GIT_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
