"""One damaged input, read in a process of its own that is bounded in time and memory."""

import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.fuzz.kinds import Kind
from tests.fuzz.mutations import mutate
from virtex.errors import VirTexError

MAX_SECONDS = 20.0
MAX_BYTES = 2 * 2**30
VERDICTS = {0: "read", 2: "refused", 3: "OTHER VALUES", 4: "RAW CHARACTERS", 5: "TRACEBACK"}
"""Exit code of a trial to its verdict; failures have capitals."""


@dataclass(frozen=True)
class Outcome:
    """What came of one damaged input."""

    verdict: str
    target: str
    """The damaged file."""
    message: str

    @property
    def is_failure(self) -> bool:
        """Whether it should not have come to this."""
        return self.verdict.isupper() or self.verdict.startswith("ENDED")


class Trials:
    """The trials of one kind, in a folder that is removed at the end."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind

    def __enter__(self) -> Self:
        self.folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
        self.good = self.folder / "good"
        self.good.mkdir()
        self.kind.write(self.good)
        self.targets = sorted(path for path in self.good.glob(self.kind.targets) if path.is_file())
        assert self.targets, "the kind has no files"
        before = {path: path.read_bytes() for path in self.targets}
        self.expected = self.kind.read(self.good)
        assert all(path.read_bytes() == content for path, content in before.items())
        return self

    def __exit__(self, *error: object) -> None:
        shutil.rmtree(self.folder)

    def run(self, seed: int) -> Outcome:
        """Damage one file as the seed says, and read the folder in another process."""
        rng = random.Random(seed)
        target = rng.choice(self.targets).relative_to(self.good)
        trial, messages = self.folder / "trial", self.folder / "messages"
        shutil.copytree(self.good, trial, symlinks=True)
        (trial / target).write_bytes(mutate((self.good / target).read_bytes(), rng))
        pid = os.fork()
        if pid == 0:
            self._read_and_exit(trial, messages)
        verdict = _await(pid)
        message = messages.read_text(encoding="utf-8", errors="replace")[-2000:]
        shutil.rmtree(trial, ignore_errors=True)
        return Outcome(verdict, str(target), message)

    def _read_and_exit(self, trial: Path, messages: Path) -> None:
        """Read, and leave the process with a key of `VERDICTS`."""
        sys.stdout = sys.stderr = messages.open("w", encoding="utf-8", errors="backslashreplace")
        os.dup2(sys.stdout.fileno(), 1)
        os.dup2(sys.stdout.fileno(), 2)
        bound = _address_space() + 2 * MAX_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (bound, bound))
        code = 5
        try:
            found = self.kind.read(trial)
            code = 3 if self.kind.is_checked and found != self.expected else 0
        except VirTexError as error:
            print(error, flush=True)
            code = 2 if all(c.isprintable() or c == "\n" for c in str(error)) else 4
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)


def _await(pid: int) -> str:
    """Return the verdict on a trial's process, which is killed when its time is over."""
    end = time.monotonic() + MAX_SECONDS
    while time.monotonic() < end:
        found, status, usage = os.wait4(pid, os.WNOHANG)
        if found:
            if os.WIFSIGNALED(status):
                return f"ENDED BY {signal.Signals(os.WTERMSIG(status)).name}"
            if usage.ru_maxrss * 1024 > MAX_BYTES:
                return f"TOOK {usage.ru_maxrss / 2**20:.1f} GB"
            return VERDICTS[os.WEXITSTATUS(status)]
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.wait4(pid, 0)
    return f"TOOK {MAX_SECONDS:.0f} S"


def _address_space() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()
