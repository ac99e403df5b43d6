"""What a report is made from: results, logs, samples and timings, found under the given folders."""

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
"""A protocol's own training, named by a hash."""
RESULT_NAME = re.compile(r"-[0-9a-f]{8}\.json$")


@dataclass(frozen=True)
class Sample:
    """A validation image, what the model said about it, and what people said."""

    image_path: Path
    generated: str
    log_likelihood: float
    captions: tuple[str, ...]


@dataclass(frozen=True)
class Run:
    """What a run folder tells about its training."""

    name: str
    folder: Path
    records: tuple[dict[str, float], ...]
    config: dict[str, Any]
    samples_step: int | None
    samples: tuple[Sample, ...]

    def series(self, key: str) -> tuple[Point, ...]:
        """(step, value) wherever the log has a number under `key`."""
        return tuple((record["step"], record[key]) for record in self.records if key in record)

    def keys(self, prefix: str) -> list[str]:
        """Names under `prefix` in the order in which the log first has them, without it."""
        found = dict.fromkeys(key for record in self.records for key in record)
        return [key.removeprefix(prefix) for key in found if key.startswith(prefix)]


@dataclass(frozen=True)
class Findings:
    """Everything under the given folders that a report can show."""

    runs: tuple[Run, ...]
    results: tuple[Result, ...]
    timings: dict[str, float]
    """Seconds by stage."""


def find(folders: Sequence[Path]) -> Findings:
    """Read all run folders and results at or below `folders`.

    Raises:
        DataError: A folder that does not exist or holds nothing to report; a broken file.
    """
    missing = [folder for folder in folders if not folder.is_dir()]
    if missing:
        raise DataError(f"no such folder: {listing(missing)}. Give run folders or result folders.")
    logs = _files(folders, "log.jsonl", leaving_out=TRAINING_NAME)
    runs = tuple(_read_run(path.parent, folders) for path in logs)
    results = tuple(Result.read(path) for path in _files(folders, "*.json") if _is_result(path))
    timings: dict[str, float] = {}
    for path in _files(folders, "timings.json"):
        timings |= _read_timings(path)
    if not (runs or results):
        raise DataError(
            f"nothing to report in {listing(folders)}: no log.jsonl of a run, no result of "
            "`virtex transfer` there or below."
        )
    return Findings(runs, results, timings)


def _files(
    folders: Sequence[Path], pattern: str, *, leaving_out: re.Pattern[str] | None = None
) -> list[Path]:
    """Files of that name at or below the folders, each once; none that is still being written.

    Args:
        leaving_out: What is not to occur in the path as seen from the given folder.
    """
    found = [
        (path, path.relative_to(folder).as_posix())
        for folder in folders
        for path in sorted(folder.rglob(pattern))
    ]
    return list(
        {
            path.resolve(): path
            for path, name in found
            if not (leaving_out and leaving_out.search(name)) and files.PREFIX not in name
        }.values()
    )


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
    """The run's path as seen from the given folder that holds it."""
    for parent in folders:
        if folder != parent and folder.is_relative_to(parent):
            return folder.relative_to(parent).as_posix()
    return folder.resolve().name


def _read_log(path: Path) -> tuple[dict[str, float], ...]:
    """Records of a log; its numbers alone. A last line that a kill cut short does not count."""
    records = []
    *lines, rest = path.read_text(encoding="utf-8").split("\n")
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            values = {key: float(value) for key, value in record.items() if _is_number(value)}
            if "step" not in values:
                raise ValueError("no step")
        except (ValueError, AttributeError) as error:
            raise DataError(
                f"{path}, line {number}, is not a record of a run: {line[:60]!r}. Each line must "
                "be a JSON object with a `step`; remove the line, or leave this run out."
            ) from error
        records.append(values)
    del rest
    if not records:
        raise DataError(f"{path} holds no finished record yet: wait for the run, or leave it out.")
    return tuple(records)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _read_config(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise DataError(f"{path} is not YAML: {error}") from error
    if not isinstance(values, dict):
        raise DataError(f"{path} is not a run's configuration: it holds no fields.")
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
        raise DataError(f"{path} is not a file of samples: {error!r}. Remove it.") from error
    missing = [sample.image_path for sample in samples if not sample.image_path.is_file()]
    if missing:
        raise DataError(f"{path} names images that are not there: {listing(missing)}.")
    return step, samples


def _read_timings(path: Path) -> dict[str, float]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return {str(stage): float(seconds) for stage, seconds in values.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} does not give seconds by stage: {error!r}. Remove it, or write it anew."
        ) from error
