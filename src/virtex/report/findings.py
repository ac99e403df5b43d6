"""Results, logs, samples and timings that are found under given folders."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from virtex import files
from virtex.errors import DataError, listing
from virtex.report.charts import Point
from virtex.transfer.protocol import Result

TRAINING_NAME = re.compile(r"(?:^|/)training/[0-9a-f]{16}/")
"""Path of the training within a protocol, which is named by a hash."""
RESULT_NAME = re.compile(r"-[0-9a-f]{8}\.json$")


@dataclass(frozen=True)
class Sample:
    """A validation image with its generated caption and its human captions."""

    image_path: Path
    generated: str
    log_likelihood: float
    captions: tuple[str, ...]


@dataclass(frozen=True)
class Run:
    """The contents of a run folder."""

    name: str
    folder: Path
    records: tuple[dict[str, float], ...]
    config: dict[str, Any]
    samples_step: int | None
    samples: tuple[Sample, ...]

    def series(self, key: str) -> tuple[Point, ...]:
        """Return (step, value) of each record that has a number `key`."""
        return tuple((record["step"], record[key]) for record in self.records if key in record)

    def keys(self, prefix: str) -> list[str]:
        """Return the names that begin with `prefix`, without it, in order of first appearance."""
        found = dict.fromkeys(key for record in self.records for key in record)
        return [key.removeprefix(prefix) for key in found if key.startswith(prefix)]


@dataclass(frozen=True)
class Findings:
    """All runs, results and timings under the given folders."""

    runs: tuple[Run, ...]
    results: tuple[Result, ...]
    timings: dict[str, float]
    """Seconds by stage."""


def find(folders: Sequence[Path]) -> Findings:
    """Read all runs and results in `folders` and their subfolders.

    Raises:
        DataError: A folder is missing, a file is broken, or there is nothing to report.
    """
    missing = [folder for folder in folders if not folder.is_dir()]
    if missing:
        raise DataError(f"no such folder: {listing(missing)}. Give run folders or result folders.")
    logs = _files(folders, "log.jsonl", excluded=TRAINING_NAME)
    runs = tuple(_read_run(path.parent, folders) for path in logs)
    results = tuple(Result.read(path) for path in _files(folders, "*.json") if _is_result(path))
    timings: dict[str, float] = {}
    for path in _files(folders, "timings.json"):
        timings |= _read_timings(path)
    if not (runs or results):
        raise DataError(
            f"nothing to report in {listing(folders)}: no log.jsonl of a run, no result of "
            "`virtex transfer`."
        )
    return Findings(runs, results, timings)


def _files(
    folders: Sequence[Path], pattern: str, *, excluded: re.Pattern[str] | None = None
) -> list[Path]:
    """Return each matching file once, without temporary files and `excluded` relative paths."""
    found = {}
    for folder in folders:
        for path in sorted(folder.rglob(pattern)):
            name = path.relative_to(folder).as_posix()
            if not (excluded and excluded.search(name)) and files.PREFIX not in name:
                found[path.resolve()] = path
    return list(found.values())


def _is_result(path: Path) -> bool:
    return path.parent.name == "results" or RESULT_NAME.search(path.name) is not None


def _read_run(folder: Path, folders: Sequence[Path]) -> Run:
    config_path, samples_path = folder / "config.yaml", folder / "samples.json"
    step, samples = _read_samples(samples_path) if samples_path.exists() else (None, ())
    return Run(
        name=_name(folder, folders),
        folder=folder,
        records=_read_log(folder / "log.jsonl"),
        config=_read_config(config_path) if config_path.exists() else {},
        samples_step=step,
        samples=samples,
    )


def _name(folder: Path, folders: Sequence[Path]) -> str:
    """Return the run's path relative to the given folder that contains it."""
    for parent in folders:
        if folder != parent and folder.is_relative_to(parent):
            return folder.relative_to(parent).as_posix()
    return folder.resolve().name


def _read_log(path: Path) -> tuple[dict[str, float], ...]:
    """Return the numbers of each record of a log, without a truncated last line."""
    records = []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            values = {key: float(value) for key, value in record.items() if _is_number(value)}
            if "step" not in values:
                raise ValueError("no step")
        except (ValueError, AttributeError) as error:
            raise DataError(
                f"{path}, line {number}, is not a record of a run: {line[:60]!r}. Each line must "
                "be a JSON object with a `step`; remove the line, or leave out this run."
            ) from error
        records.append(values)
    if not records:
        raise DataError(f"{path} holds no complete record yet: wait for the run, or leave it out.")
    return tuple(records)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _read_config(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise DataError(f"{path} is not YAML: {error}") from error
    if not isinstance(values, dict):
        raise DataError(f"{path} is not the config of a run: it holds no fields.")
    return values


def _read_samples(path: Path) -> tuple[int, tuple[Sample, ...]]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        samples = tuple(
            Sample(
                image_path=path.parent / item["image"],
                generated=item["generated"],
                log_likelihood=float(item["log_likelihood"]),
                captions=tuple(item["captions"]),
            )
            for item in values["samples"]
        )
        step = int(values["step"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not a samples file: {error!r}. Remove it.") from error
    missing = [sample.image_path for sample in samples if not sample.image_path.is_file()]
    if missing:
        raise DataError(f"{path} names missing images: {listing(missing)}.")
    return step, samples


def _read_timings(path: Path) -> dict[str, float]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return {str(stage): float(seconds) for stage, seconds in values.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{path} does not hold seconds by stage: {error!r}. Remove it.") from error
