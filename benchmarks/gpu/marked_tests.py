"""The tests marked gpu, by pytest in several processes, whose results are read while they run."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.gpu.commands import num_cores
from benchmarks.gpu.jobs import Events, Job, Row, Skipped
from benchmarks.gpu.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
MARK = re.compile(r"\bmark\.gpu\b")
RESULT = re.compile(
    r"^\[gw\d+\] \[ *\d+%\] (PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS) (\S+::.+?) *$"
)
REASON = re.compile(r"^(?:(?:FAILED|ERROR) (\S+::.+?) -|SKIPPED \[\d+\] (\S+?):) (.*)$")
BAD = ("FAILED", "ERROR")
NO_TESTS = 5
"""Exit code of pytest where it found no test."""
MOST_PROCESSES = 6
"""Processes that share the tests: each has a context on the GPU, and compiles."""


def jobs(settings: Settings, events: Events) -> list[Job]:
    """Return the one job of the section."""
    return [Job("pytest -m gpu", run_tests, needs=10, limit=3600)]


def run_tests(seconds: float) -> Iterator[Row]:
    """Yield each test with its result, and at the end the first line of each failure.

    Raises:
        Skipped: No test ran to its end.
        AssertionError: Some failed, or time was up.
    """
    files = sorted(str(path.relative_to(ROOT)) for path in marked_files(ROOT / "tests"))
    command = [sys.executable, "-m", "pytest", "-vv", "-rfEs", "--tb=short", "-m", "gpu"]
    command += ["-n", str(min(MOST_PROCESSES, max(1, num_cores() // 2)))]
    command += ["-p", "no:cacheprovider", "--continue-on-collection-errors", *files]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "300"},  # for whole reasons
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    ends, results = time.monotonic() + seconds, {}
    assert process.stdout is not None
    for line in process.stdout:  # the parent ends a test that hangs
        print(line, end="", file=sys.stderr, flush=True)
        if (match := RESULT.match(line)) and match[2] not in results:
            results[match[2]] = match[1]
            yield {"test": match[2], "result": match[1].lower(), "why": ""}
        elif match := REASON.match(line):
            yield {
                "test": match[1] or match[2],
                "result": "because",
                "why": match[3].strip()[:300],
            }
        if time.monotonic() > ends:
            process.terminate()
            process.wait()
            verdict(list(results.values()), 0)
            raise Skipped(f"stopped after {seconds:.0f} s; {len(results)} tests had ended")
    code = process.wait()
    verdict(list(results.values()), code)


def marked_files(folder: Path) -> list[Path]:
    """Return the test files that mark a test as gpu."""
    files = folder.rglob("test_*.py")
    return [path for path in files if MARK.search(path.read_text(encoding="utf-8"))]


def verdict(results: list[str], code: int) -> None:
    """Raise an error unless all tests passed."""
    bad = sum(result in BAD for result in results)
    if bad:
        raise AssertionError(f"{bad} of {len(results)} tests failed")
    if code not in (0, NO_TESTS):
        raise AssertionError(f"pytest ended with exit code {code}; the log says why")
    if not results or all(result == "SKIPPED" for result in results):
        raise Skipped(f"no GPU: {len(results)} tests skipped" if results else "no test was found")
