"""Kill a training run with SIGKILL many times, resume it each time, and compare bit for bit.

    python benchmarks/resume.py --kills 20
    python benchmarks/resume.py --command "python -m virtex.cli pretrain --config FILE --out {out}"

Every other kill comes while a checkpoint is being written, the others at a random moment. The
killed run must end with a newest checkpoint that is bit-identical to that of a run without
interruption, and with the same log.jsonl except for speeds; else the exit code is 1.
"""

import argparse
import json
import os
import random
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from virtex import files
from virtex.engine.run import RunFolder

TOY_RUN = Path(__file__).parents[1] / "tests" / "engine" / "toy_run.py"
TOY = f"{sys.executable} {TOY_RUN} --width 20000 --num_steps 120 --out {{out}}"
POLL = 0.001


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--command", default=TOY, help="{out} stands for the run folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        whole = RunFolder(Path(folder, "whole"))
        seconds = run_whole(options.command, whole)
        cuts = torture(
            options.command,
            Path(folder),
            seconds=seconds,
            kills=options.kills,
            rng=random.Random(options.seed),
        )
        found = [compare(whole, cut) for cut in cuts]
        return report(found)


def start(command: str, folder: RunFolder) -> subprocess.Popen[bytes]:
    """Start the run in a process group, which can be killed with its workers."""
    arguments = shlex.split(command.format(out=folder.path))
    return subprocess.Popen(arguments, start_new_session=True, stderr=subprocess.DEVNULL)


def run_whole(command: str, folder: RunFolder) -> float:
    """Run without interruption, and return the seconds until the first checkpoint is written."""
    began = time.monotonic()
    process = start(command, folder)
    wait_for_write(folder, process)
    seconds = time.monotonic() - began
    check_end(process)
    return seconds


def torture(
    command: str, root: Path, *, seconds: float, kills: int, rng: random.Random
) -> list[RunFolder]:
    """Start and kill a run until it ends, and further runs until there are enough kills."""
    cuts = [RunFolder(root / "cut-1")]
    struck = 0
    while struck < kills:
        process = start(command, cuts[-1])
        if struck % 2:
            wait_for_write(cuts[-1], process)
            time.sleep(rng.uniform(0, 0.02))
        else:
            wait(process, rng.uniform(0, 1.5 * seconds))
        if process.poll() is not None:
            check_end(process)
            cuts.append(RunFolder(root / f"cut-{len(cuts) + 1}"))
            continue
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        struck += 1
        where = "during a checkpoint write" if temporary(cuts[-1]) else "at a random moment"
        steps = cuts[-1].checkpoints.steps()
        print(
            f"{cuts[-1].path.name}, kill {struck} {where}; it has checkpoints {steps}", flush=True
        )
    check_end(start(command, cuts[-1]))
    return cuts


def check_end(process: subprocess.Popen[bytes]) -> None:
    """Wait for the end of a run, which must succeed."""
    if process.wait() != 0:
        sys.exit(f"a run failed with exit code {process.returncode}")


def wait(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Sleep, at most until the run ends."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        time.sleep(POLL)


def wait_for_write(folder: RunFolder, process: subprocess.Popen[bytes]) -> None:
    """Wait until the writing of a new checkpoint begins."""
    left = {path: path.stat().st_mtime_ns for path in temporary(folder)}
    while process.poll() is None:
        for path in temporary(folder):
            try:
                if path.stat().st_mtime_ns != left.get(path):
                    return
            except FileNotFoundError:  # renamed in the meantime
                pass
        time.sleep(POLL)


def temporary(folder: RunFolder) -> list[Path]:
    """Return the temporary files of checkpoints."""
    return list(folder.checkpoints.path.glob(f"{files.PREFIX}*/new/step_*.pt"))


def compare(whole: RunFolder, cut: RunFolder) -> dict[str, list[str]]:
    """Return the differences between two runs, by subject."""
    states = [folder.checkpoints.latest() or {} for folder in (whole, cut)]
    for state in states:
        state.pop("config", None)  # holds the folder's own name
    logs = [read_log(folder.log_path) for folder in (whole, cut)]
    return {
        "newest checkpoint": list(differences(*states)),
        "log.jsonl": list(differences(*logs)),
        "leftovers": [str(path) for path in temporary(cut)],
    }


def read_log(path: Path) -> list[dict[str, float]]:
    records = map(json.loads, path.read_text().splitlines())
    return [{k: v for k, v in record.items() if not k.startswith("speed/")} for record in records]


def differences(a: object, b: object, name: str = "") -> Iterator[str]:
    """Return the names of values that are not identical."""
    if isinstance(a, dict) and isinstance(b, dict) and list(a) == list(b):
        for key in a:
            yield from differences(a[key], b[key], f"{name}.{key}")
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for index, (left, right) in enumerate(zip(a, b, strict=True)):
            yield from differences(left, right, f"{name}[{index}]")
    elif isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        if not torch.equal(a, b):
            yield name
    elif a != b:
        yield name


def report(found: list[dict[str, list[str]]]) -> int:
    """Print the differences, and return the exit code."""
    for number, subjects in enumerate(found, start=1):
        for subject, names in subjects.items():
            verdict = f"WRONG: {', '.join(names[:5])}" if names else "as it should be"
            print(f"cut-{number} {subject}: {verdict}")
    return int(any(any(subjects.values()) for subjects in found))


if __name__ == "__main__":
    sys.exit(main())
