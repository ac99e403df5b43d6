"""The number of a command's processes: the option `--processes`, and the choice of `auto`."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from virtex.cores import num_cores, processors
from virtex.errors import ConfigError
from virtex.launcher import has_terminal, is_launched, launch_of

log = logging.getLogger("virtex")

OPTION = "--processes"
ALLOWED = "auto or a whole number of at least 1"
HELP = (
    f"{OPTION} auto|N is the number of processes that the command starts by itself; auto: one per "
    "GPU, or per physical core where there is none."
)
LEAST_SHARE = 16
"""Fewest images of a piece that `auto` leaves to a process on a CPU, since BatchNorm's statistics
are those of each process's share."""
Requested = int | Literal["auto"]
"""Value of the option."""


@dataclass(frozen=True)
class Work:
    """What a command's processes share."""

    device: str
    """auto, cpu, cuda, cuda:1, mps."""
    batch_size: int
    """Images in a batch, over all processes."""
    batch_option: str = "run.batch_size"
    """Name of the option that sets it."""
    num_pieces: int = 1
    """Pieces that each process splits its part of a batch into."""
    least_share: int = LEAST_SHARE
    """Fewest images of a piece that `auto` leaves to a process on a CPU."""
    began_with: int | None = None
    """Number of processes of the run that is resumed; None for new work."""


@dataclass(frozen=True)
class Team:
    """The processes that a command starts; the command itself does the work if there is one."""

    number: int
    num_threads: int
    """Threads of each process."""
    on_gpus: bool = False
    reason: str = ""
    """Reason for the number, where `auto` chose it."""

    def __str__(self) -> str:
        threads = f" of {_count(self.num_threads, 'thread')} each" if self.number > 1 else ""
        if not self.reason:
            return f"{self.number}{threads}"
        return f"{self.number}{threads}, {self.reason} ({OPTION} N chooses another number)"


@dataclass(frozen=True)
class _Places:
    """Where processes may run."""

    unit: str
    best: int
    """Number of processes that `auto` begins with."""
    most: int
    """Largest number of processes."""


def split_option(arguments: Sequence[str], *, default: Requested) -> tuple[Requested, list[str]]:
    """Return the value of `--processes`, and the other arguments.

    Raises:
        ConfigError: The value is missing, or neither `auto` nor a number of at least 1.
    """
    requested, others, rest = default, list[str](), list(arguments)
    while rest:
        argument = rest.pop(0)
        flag, equals, text = argument.partition("=")
        if argument == "--":
            return requested, [*others, argument, *rest]
        if flag != OPTION:
            others.append(argument)
            continue
        if not equals and (not rest or rest[0].startswith("--")):
            raise ConfigError(f"{OPTION} needs a value: {ALLOWED}")
        requested = _requested(text if equals else rest.pop(0))
    return requested, others


def _requested(text: str) -> Requested:
    if text == "auto":
        return "auto"
    if text.isascii() and text.isdecimal() and len(text) < 10 and int(text) > 0:
        return int(text)
    raise ConfigError(f"{OPTION} {text[:100]!r} cannot work: give {ALLOWED}")


def choose(
    requested: Requested, work: Work, *, environment: Mapping[str, str] | None = None
) -> Team | None:
    """Return the processes to start; None within torchrun or srun, which started them.

    Args:
        environment: Environment variables; None: those of this process.

    Raises:
        ConfigError: There are too few cores or GPUs for the number, or the batch cannot be divided
            by it.
    """
    environment = os.environ if environment is None else environment
    if is_launched(environment):
        _say_without_effect(requested, environment)
        return None
    places = _places(work.device)
    if requested == "auto":
        number, reason = _automatic(work, places)
    else:
        number, reason = requested, ""
        _check(number, work, places)
    on_gpus = places.unit == "GPU"
    threads = environment.get("OMP_NUM_THREADS", "")
    num_threads = int(threads) if threads.isdecimal() and 0 < int(threads) < 1000 else 0
    return Team(number, num_threads or max(1, num_cores() // number), on_gpus, reason)


def _say_without_effect(requested: Requested, environment: Mapping[str, str]) -> None:
    launch = launch_of(environment, has_terminal=has_terminal())
    if launch.rank == 0 and requested not in ("auto", launch.world_size):
        log.info(
            "%s %s has no effect: torchrun or srun started this process, one of %d",
            OPTION, requested, launch.world_size,
        )  # fmt: skip


def _places(device: str) -> _Places:
    if not hasattr(os, "setsid"):
        return _Places("this system", 1, 1)
    num_gpus = _num_gpus() if device in ("auto", "cuda") else 0
    if num_gpus or device == "cuda":
        return _Places("GPU", max(1, num_gpus), num_gpus)
    if device in ("auto", "cpu"):
        return _Places("physical core", num_cores(), len(processors()))
    return _Places(f"device {device}", 1, 1)


def _num_gpus() -> int:
    import torch  # what needs no GPU needs no torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _automatic(work: Work, places: _Places) -> tuple[int, str]:
    """Return the number of processes that `auto` chooses, and the reason."""
    began_with, least = work.began_with, work.least_share
    if not _divides(1, work):  # which is an error of its own
        return 1, ""
    if began_with is not None and began_with <= places.most and _divides(began_with, work):
        return began_with, "as when the run began"
    if places.unit == "GPU" or began_with is not None:
        least = 1
    best = places.best if began_with is None else min(began_with, places.best)
    number = next(n for n in range(best, 0, -1) if n == 1 or _divides(n, work, least))
    if number == places.best:
        is_unit = places.unit in ("GPU", "physical core")
        return number, f"one per {places.unit}" if is_unit else f"{places.unit} takes one"
    if number == best:
        return number, "as many as can run here"
    per_process = f" of at least {least} images" if least > 1 else ""
    return number, f"the most equal parts{per_process} of {work.batch_option} {work.batch_size}"


def _divides(number: int, work: Work, least_share: int = 1) -> bool:
    share, rest = divmod(work.batch_size, number * work.num_pieces)
    return rest == 0 and share >= least_share


def _check(number: int, work: Work, places: _Places) -> None:
    if number > places.most:
        here = {
            "GPU": f"this machine has {_count(places.most, 'GPU')}",
            "physical core": f"this process may use {_count(places.most, 'processor')}",
        }.get(places.unit, f"{places.unit} takes one process")
        raise ConfigError(
            f"{OPTION} {number} is too many: {here}. Give at most {max(1, places.most)}, or auto."
        )
    if not _divides(number, work):
        pieces = f" with {work.num_pieces} pieces each" if work.num_pieces > 1 else ""
        raise ConfigError(
            f"{work.batch_option} {work.batch_size} cannot be split equally among {number} "
            f"processes{pieces}: choose a multiple of {number * work.num_pieces}, or another "
            f"number of processes by {OPTION}."
        )


def _count(number: int, unit: str) -> str:
    return f"{number or 'no'} {unit}{'s' * (number > 1)}"
