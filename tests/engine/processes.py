"""Processes that train the toy task, forked from a server that has imported torch and timm."""

import multiprocessing
import os
import socket
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

from tests.engine.toy_run import train
from virtex.errors import VirTexError

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.engine.toy_run", "virtex.pretrain"])
TIMEOUT = 60
"""Seconds after which a process counts as hanging."""


def _train(out: Path, options: dict) -> None:
    try:
        sys.exit(train(out, **options))
    except VirTexError as error:
        (out / f"error_of_rank_{os.environ['RANK']}").write_text(str(error))
        sys.exit(2)


def launch(
    out: Path, *, environment: dict[str, str] | None = None, **options: object
) -> BaseProcess:
    """Start training in one process."""
    process = CONTEXT.Process(
        target=_train, args=(out, {**options, "environment": environment}), daemon=True
    )
    process.start()
    return process


def launch_two(out: Path, **options: object) -> list[BaseProcess]:
    """Start training in two processes with the variables that torchrun sets."""
    return [launch(out, environment=each, **options) for each in environments()]


def start_two(function: Callable[[Path, dict[str, str]], None], out: Path) -> list[BaseProcess]:
    """Start a function in two processes with a folder and the variables that torchrun sets."""
    processes = [
        CONTEXT.Process(target=function, args=(out, each), daemon=True) for each in environments()
    ]
    for process in processes:
        process.start()
    return processes


def environments() -> list[dict[str, str]]:
    """Return the variables by which two processes meet."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    return [{**shared, "RANK": rank, "LOCAL_RANK": rank} for rank in ("0", "1")]


def wait_for_file(path: Path, *processes: BaseProcess) -> None:
    """Wait until training has written a file."""
    deadline = time.monotonic() + TIMEOUT
    while not path.exists():
        assert all(process.is_alive() for process in processes), f"no {path.name} was written"
        assert time.monotonic() < deadline, f"no {path.name} in {TIMEOUT} s"
        time.sleep(0.002)


def exit_codes(*processes: BaseProcess, timeout: float = TIMEOUT) -> list[int | None]:
    """Wait for all processes and return their exit codes; None for one that hung."""
    for process in processes:
        process.join(timeout)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    return codes
