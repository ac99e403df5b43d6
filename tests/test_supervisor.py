"""Processes that a command starts: one outcome, one message, none left behind."""

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from virtex import distributed, supervisor
from virtex.errors import ConfigError, DataError, VirTexError
from virtex.processes import Team
from virtex.supervisor import spread

TWO = Team(2, num_threads=1)
log = logging.getLogger("virtex")


@pytest.fixture(autouse=True)
def _plain_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo what the command line of an earlier test has set up."""
    monkeypatch.setattr(log, "handlers", [])
    monkeypatch.setattr(log, "propagate", True)


def together(action: Callable[[int], object]) -> object:
    """Call a function with the rank in a process group, as a run does."""
    with distributed.process_group(torch.device("cpu")):
        ranks = distributed.gather_objects(distributed.rank())
        action(distributed.rank())
        return ranks, torch.get_num_threads(), os.environ["OMP_NUM_THREADS"]


def nothing(rank: int) -> None: ...


def die_second(rank: int) -> None:
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    distributed.gather_objects(rank)


def fail_both(rank: int) -> None:
    raise ConfigError("both know it")


def fail_second(rank: int) -> None:
    if rank == 1:
        raise DataError("the second knows it")
    distributed.gather_objects(rank)


def bug(rank: int) -> None:
    distributed.gather_objects(1 / rank)


def warn(rank: int) -> None:
    log.warning("all see this")
    log.warning("rank %d alone sees this", rank)
    log.info("rank %d tells a fact", rank)
    log.warning("all see this")


def hang(rank: int) -> None:
    if rank == 1:
        raise DataError("the second failed")
    time.sleep(60)


def test_all_processes_work_and_the_first_gives_the_value() -> None:
    assert spread(together, nothing, TWO) == ([0, 1], 1, "1")
    assert "RANK" not in os.environ


def test_a_process_that_imports_everything_again_does_the_same() -> None:
    spawned = Team(2, num_threads=2)  # threads do not survive a fork
    assert spread(together, nothing, spawned) == ([0, 1], 2, "2")


def test_one_process_is_this_one() -> None:
    pids: list[int] = []
    spread(lambda value: pids.append(os.getpid() + value), 0, Team(1, 4))
    assert pids == [os.getpid()]


@pytest.mark.parametrize(
    ("action", "kind", "message"),
    [
        (fail_both, ConfigError, "^both know it$"),
        (fail_second, DataError, "^the second knows it$"),
        (die_second, VirTexError, "^process 1 of the run .* was killed, most likely .* memory"),
    ],
)
def test_the_error_that_came_first_is_the_only_one(
    action: Callable[[int], None],
    kind: type[Exception],
    message: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(kind, match=message):
        spread(together, action, TWO)
    assert "Traceback" not in capfd.readouterr().err


def test_a_bug_shows_the_traceback_of_the_process_that_has_it() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        spread(together, bug, TWO)
    assert "in process 0 of the run" in caught.value.__notes__[0]
    assert "1 / rank" in caught.value.__notes__[0]


def test_what_all_processes_say_is_shown_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "virtex")
    spread(together, warn, TWO)
    lines = [record.getMessage() for record in caplog.records]
    assert sorted(lines) == [
        "all see this", "all see this", "processes   2 of 1 thread each",
        "rank 0 alone sees this", "rank 0 tells a fact", "rank 1 alone sees this",
    ]  # fmt: skip


def test_a_process_that_goes_on_after_a_failure_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "PATIENCE", 0.5)
    start = time.monotonic()
    with pytest.raises(DataError, match="the second failed"):
        spread(together, hang, TWO)
    assert time.monotonic() - start < 20


SLEEPER = """
import os, sys, time
from pathlib import Path
from virtex.engine.signals import StopSignals
from virtex.processes import Team
from virtex.supervisor import spread

def sleep(folder):
    with StopSignals() as stop:
        (folder / os.environ["RANK"]).write_text(str(os.getpid()))
        while not stop.requested and not (folder / "end").exists():
            time.sleep(0.01)
    (folder / "end").touch()
    return 143

if __name__ == "__main__":
    sys.exit(spread(sleep, Path(sys.argv[1]), Team(2, 1)))
"""


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("number", "to_group", "code"),
    [(signal.SIGTERM, False, 143), (signal.SIGINT, True, 143), (signal.SIGKILL, False, -9)],
)
def test_signals_end_all_processes_with_one_message(
    number: int, to_group: bool, code: int, tmp_path: Path
) -> None:
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "sleeper.py"), str(tmp_path)],
        start_new_session=True, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    files = [tmp_path / "0", tmp_path / "1"]
    while not all(file.exists() and file.read_text() for file in files):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    pids = [int(file.read_text()) for file in files]
    (os.killpg if to_group else os.kill)(process.pid, number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    said = errors.count("finishing the step and writing a checkpoint")
    assert (said, "Traceback" in errors) == (int(number != signal.SIGKILL), False)
    while any(map(is_running, pids)):
        assert time.monotonic() < deadline, "a process was left behind"
        time.sleep(0.05)
