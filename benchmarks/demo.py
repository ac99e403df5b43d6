"""Start-up time of the demo, and the size of the packages that it adds.

The start-up time is from the start of the process to the first page with status 200, with the model
on the CPU; the best round counts. Processor seconds are those of the process until its end, and
depend less on other work on the machine. Packages and megabytes are those that the extra requires
and virtex itself does not.

    python benchmarks/demo.py RUN [--rounds 5]
"""

import argparse
import contextlib
import os
import subprocess
import sys
import time
import tomllib
import urllib.request
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PORT = 7861
SECONDS = 120


def seconds_to_answer(run: str) -> float:
    """Start the demo, and return the seconds until its page loads."""
    begin = time.perf_counter()
    command = [sys.executable, "-m", "virtex.cli", "demo", run, "--port", str(PORT)]
    with subprocess.Popen([*command, "--device", "cpu"], stdout=subprocess.DEVNULL) as process:
        try:
            while time.perf_counter() - begin < SECONDS and process.poll() is None:
                with (
                    contextlib.suppress(OSError),
                    urllib.request.urlopen(f"http://127.0.0.1:{PORT}", timeout=SECONDS) as answer,
                ):
                    answer.read()
                    return time.perf_counter() - begin
                time.sleep(0.02)
            raise SystemExit("the demo did not answer")
        finally:
            process.terminate()


def required(requirements: list[str]) -> set[str]:
    """Return all packages that requirements need, by the metadata of the installed packages."""
    found: dict[str, set[str]] = {}
    todo = [(Requirement(text), {""}) for text in requirements]
    while todo:
        requirement, extras = todo.pop()
        marker, name = requirement.marker, canonicalize_name(requirement.name)
        if marker and not any(marker.evaluate({"extra": extra}) for extra in extras):
            continue
        extras = {"", *requirement.extras}
        if not extras <= found.setdefault(name, set()):
            found[name] |= extras
            todo += [(Requirement(text), extras) for text in distribution(name).requires or []]
    return set(found)


def megabytes(package: str) -> float:
    """Return the size of an installed package on disk."""
    paths = [Path(str(file.locate())) for file in distribution(package).files or []]
    return sum(path.stat().st_size for path in paths if path.is_file()) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    own = required(project["dependencies"])
    added = required(project["optional-dependencies"]["demo"]) - own
    print(f"{len(added)} packages, {sum(map(megabytes, added)):.1f} MB: {', '.join(sorted(added))}")
    seconds, busy = [], []
    for _ in range(options.rounds):
        before = os.times()
        seconds.append(seconds_to_answer(options.run))
        after = os.times()
        busy.append(sum(after[2:4]) - sum(before[2:4]))
    print(f"{min(seconds):.2f} s to the first answer, {min(busy):.2f} processor seconds")


if __name__ == "__main__":
    main()
