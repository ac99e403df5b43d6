"""The processes of a run, as the environment variables of torchrun or srun describe them.

torchrun sets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT. srun sets variables of its
job step; the other variables of SLURM also stand in batch scripts and shells, where a process is
alone whatever number of tasks was requested.
"""

import contextlib
import functools
import json
import logging
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from virtex.errors import ConfigError, raise_all

FIRST_SPECIAL_STEP = 0xFFFF_FFF0
"""Least number of the steps that SLURM makes for batch scripts, shells and its own processes."""
FIRST_PORT, NUM_PORTS = 20_000, 10_000
"""Ports that are derived from a job's number."""
MOST = 2**20

log = logging.getLogger("virtex")


class Launch(NamedTuple):
    """The number of a run's processes, which of them this is, and where they meet."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    num_on_machine: int = 1
    host: str = ""
    port: int = 0


def launch_of(environment: Mapping[str, str], *, has_terminal: bool = False) -> Launch:
    """Return what the environment variables say of this process.

    Args:
        has_terminal: Whether the process has a controlling terminal, as in the shell of an
            interactive job step; processes that srun starts otherwise have none.

    Raises:
        ConfigError: Variables are missing, contradictory or no numbers.
    """
    if "RANK" in environment or not _in_step(environment):
        launch = _from_torchrun(environment)
        if launch.world_size == 1:
            _warn_of_tasks(environment)
        return launch
    return _from_step(environment, has_terminal=has_terminal)


def is_launched(environment: Mapping[str, str]) -> bool:
    """Return whether torchrun or srun started this process, alone or with others."""
    return "RANK" in environment or _in_step(environment)


def is_started_again(environment: Mapping[str, str]) -> bool:
    """Return whether torchrun or srun started this process, which start lost ones again."""
    return "TORCHELASTIC_RUN_ID" in environment or _in_step(environment)


def num_restarts(environment: Mapping[str, str]) -> int:
    """Return how often this machine's torchrun started its processes again after a failure."""
    text = environment.get("TORCHELASTIC_RESTART_COUNT", "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else 0


def report_to_torchrun(message: str, environment: Mapping[str, str]) -> None:
    """Write the error that ends this process where torchrun, which repeats it, looks for it."""
    path = environment.get("TORCHELASTIC_ERROR_FILE")
    if path:
        about = {"message": message, "extraInfo": {"timestamp": str(int(time.time()))}}
        with contextlib.suppress(OSError):
            Path(path).write_text(json.dumps({"message": about}), encoding="utf-8")


def variables_of(launch: Launch) -> dict[str, str]:
    """Return the environment variables from which `launch_of` reads a process of several."""
    return {
        "RANK": str(launch.rank),
        "WORLD_SIZE": str(launch.world_size),
        "LOCAL_RANK": str(launch.local_rank),
        "LOCAL_WORLD_SIZE": str(launch.num_on_machine),
        "MASTER_ADDR": launch.host,
        "MASTER_PORT": str(launch.port),
    }


def _in_step(environment: Mapping[str, str]) -> bool:
    step = environment.get("SLURM_STEP_ID", "")
    return step.isdecimal() and int(step) < FIRST_SPECIAL_STEP and "SLURM_PROCID" in environment


def _from_torchrun(environment: Mapping[str, str]) -> Launch:
    problems: list[str] = []
    world_size = _number(environment, "WORLD_SIZE", 1, problems, least=1)
    rank = _number(environment, "RANK", 0, problems)
    if "RANK" in environment and "WORLD_SIZE" not in environment:
        problems.append("RANK is set and WORLD_SIZE is not: set both, or unset RANK")
    if world_size > 1:
        missing = [n for n in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not environment.get(n)]
        if missing:
            problems.append(f"WORLD_SIZE is {world_size}, but {', '.join(missing)} is not set")
    return _checked(environment, rank, world_size, problems)


def _from_step(environment: Mapping[str, str], *, has_terminal: bool) -> Launch:
    problems: list[str] = []
    name = "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in environment else "SLURM_NTASKS"
    world_size = _number(environment, name, 1, problems, least=1)
    if world_size > 1 and has_terminal and "MASTER_ADDR" not in environment:
        _warn_once(
            f"this shell is a job step of {world_size} tasks: this process is alone; "
            "`srun virtex ...` starts all"
        )
        return Launch()
    if environment.get("WORLD_SIZE", str(world_size)) != str(world_size):
        problems.append(
            f"WORLD_SIZE is {environment['WORLD_SIZE']!r}, but srun started {world_size} tasks: "
            "unset it, or set RANK as well"
        )
    nodes = environment.get("SLURM_STEP_NODELIST", environment.get("SLURM_NODELIST", ""))
    first = re.sub(r"\[(\w+)[^\]]*\]", r"\1", nodes).split(",")[0]
    is_one = environment.get("SLURM_STEP_NUM_NODES", environment.get("SLURM_NNODES")) == "1"
    job = re.sub(r"\D", "", environment.get("SLURM_JOB_ID", "")) or "0"
    port = FIRST_PORT + (int(job) + int(environment["SLURM_STEP_ID"])) % NUM_PORTS
    derived = {
        "LOCAL_RANK": environment.get("SLURM_LOCALID", "0"),
        "LOCAL_WORLD_SIZE": environment.get("SLURM_STEP_TASKS_PER_NODE", "1").split("(")[0],
        "MASTER_ADDR": "127.0.0.1" if is_one else first,
        "MASTER_PORT": str(port),
    }
    environment = {**derived, **environment}
    if world_size > 1 and not environment["MASTER_ADDR"]:
        problems.append(
            "srun started this process, but SLURM_STEP_NODELIST does not name its machines: set "
            "MASTER_ADDR to the machine of the first task"
        )
    rank = _number(environment, "SLURM_PROCID", 0, problems)
    return _checked(environment, rank, world_size, problems)


def _checked(
    environment: Mapping[str, str], rank: int, world_size: int, problems: list[str]
) -> Launch:
    local_rank = _number(environment, "LOCAL_RANK", 0, problems)
    sizes = environment.get("LOCAL_WORLD_SIZE", "1").split(",")[0]
    num_on_machine = _number({"LOCAL_WORLD_SIZE": sizes}, "LOCAL_WORLD_SIZE", 1, problems, least=1)
    port = 0  # where nobody is met
    if world_size > 1:
        port = _number(environment, "MASTER_PORT", 0, problems, least=1, most=65535)
    if rank >= world_size:
        problems.append(f"rank {rank} must be below the number of processes, {world_size}")
    raise_all(
        ConfigError,
        "the environment variables that describe the processes of the run cannot work (start it "
        "with torchrun or srun, or unset them for one process)",
        problems,
    )
    host = environment.get("MASTER_ADDR", "") if world_size > 1 else ""
    return Launch(rank, world_size, local_rank, num_on_machine, host, port)


def _number(
    environment: Mapping[str, str],
    name: str,
    default: int,
    problems: list[str],
    *,
    least: int = 0,
    most: int = MOST,
) -> int:
    text = environment.get(name, "")
    if not text:
        return default
    if text.isascii() and text.isdecimal() and len(text) < 10 and least <= int(text) <= most:
        return int(text)
    problems.append(f"{name} is {text!r}, and must be a whole number from {least} to {most:,}")
    return default


def _warn_of_tasks(environment: Mapping[str, str]) -> None:
    tasks = environment.get("SLURM_NTASKS", "1")
    if tasks.isdecimal() and int(tasks) > 1 and "RANK" not in environment:
        _warn_once(
            f"the job has {tasks} tasks, but srun did not start this process, which is alone; "
            "`srun virtex ...` starts all"
        )


@functools.cache
def _warn_once(message: str) -> None:
    log.warning(message)


def has_terminal() -> bool:
    """Whether this process has a controlling terminal."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True
