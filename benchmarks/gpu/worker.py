"""The process of a section: runs its jobs one after the other, and notes what each gave.

    python -m benchmarks.gpu.worker MODULE SECTION SETTINGS EVENTS DEADLINE

Jobs that were begun by an earlier process of the section are left out.
"""

import gc
import importlib
import sys
import time
import traceback
from pathlib import Path

from benchmarks.gpu.jobs import Cut, Events, Job, Skipped
from benchmarks.gpu.settings import Settings


def main() -> None:
    """Run the jobs of the section that the arguments name."""
    module, section, settings, events_path, deadline = sys.argv[1:]
    events = Events(Path(events_path))
    try:
        jobs = importlib.import_module(module).jobs(Settings.read(Path(settings)), events)
    except Exception as error:
        events.add(section, "failed", "(start)", text=described(error))
        return
    run_jobs(jobs, events, section=section, deadline=float(deadline))


def run_jobs(jobs: list[Job], events: Events, *, section: str, deadline: float) -> None:
    """Run the jobs that were not begun before; the deadline is a time of time.time()."""
    begun = {event["job"] for event in events.of(section, "begin")}
    events.add(section, "plan", jobs=[job.name for job in jobs])
    for job in jobs:
        if job.name in begun:
            continue
        left = deadline - time.time()
        if left < job.needs or left <= 0:
            text = f"no time left: it needs about {job.needs:.0f} s"
            events.add(section, "skipped", job.name, text=text)
            continue
        events.add(section, "begin", job.name, limit=job.limit)
        run_job(job, events, section=section, seconds=min(left, job.limit))
    events.add(section, "end")


def run_job(job: Job, events: Events, *, section: str, seconds: float) -> None:
    """Run one job; an error of any kind is noted, and is not the end of the section."""
    print(f"\n== {section}: {job.name}", file=sys.stderr, flush=True)
    end = time.time() + seconds
    try:
        for row in job.run(seconds):
            events.add(section, "row", job.name, row=row)
        events.add(section, "finished", job.name)
    except Skipped as error:
        events.add(section, "skipped", job.name, text=str(error))
    except Exception as error:
        traceback.print_exc()
        kind = "skipped" if isinstance(error, Cut) and time.time() >= end else "failed"
        events.add(section, kind, job.name, text=described(error))
    gc.collect()


def described(error: BaseException) -> str:
    """Return an error in a line of a table."""
    text = " ".join(str(error).split()) or "no message"
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {text[:300]} ({Path(where.filename).name}:{where.lineno})"


if __name__ == "__main__":
    main()
