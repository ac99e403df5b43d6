"""Results, logs, samples and timings that are found under given folders."""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from virtex import files
from virtex.errors import ConfigError, DataError, listing, raise_all
from virtex.monitors.monitors import Alarm
from virtex.options.bounded_yaml import load_json
from virtex.report.charts import Point
from virtex.report.run_files import (
    Record,
    Report,
    Sample,
    read_alarms,
    read_config,
    read_log,
    read_samples,
    read_timings,
)
from virtex.transfer.protocol import MAX_BYTES, Result

TRAINING_NAME = re.compile(r"(?:^|/)training/[0-9a-f]{16}/")
"""Path of the training within a protocol, which is named by a hash."""
SEEDS = "*/seed_*"
"""Folders of a study's runs."""
RESULT_NAME = re.compile(r"-[0-9a-f]{8}\.json$")
STUDY_NAME = re.compile(r"result\.json|draw_[0-9]+\.json")
RESULT_KEYS = {"protocol", "headline", "settings_hash"}
"""Keys of a result, by which it is recognised under any name."""


@dataclass(frozen=True)
class Run:
    """The contents of a run folder."""

    name: str
    folder: Path
    records: tuple[Record, ...]
    config: dict[str, Any]
    samples_step: int | None
    samples: tuple[Sample, ...]
    alarms: tuple[Alarm, ...] = ()
    """What the monitors saw."""

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
    problems: tuple[str, ...] = ()
    """What cannot be used, by file and reason."""


def find(folders: Sequence[Path]) -> Findings:
    """Read all runs and results in `folders` and their subfolders.

    Raises:
        DataError: A folder is missing, or there is nothing to report.
    """
    missing = [folder for folder in folders if not folder.is_dir()]
    if missing:
        raise DataError(f"no such folder: {listing(missing)}. Give run folders or result folders.")
    problems: list[str] = []
    paths = _files(folders, problems.append)
    runs, results, timings = list[Run](), list[Result](), dict[str, float]()
    for path, name in paths:
        try:
            if path.name == "log.jsonl" and not TRAINING_NAME.search(name):
                runs.append(_read_run(path.parent, folders, problems.append))
            elif path.suffix == ".json" and _is_result(path):
                results.append(Result.read(path))
            elif path.name == "timings.json":
                timings |= read_timings(path)
        except DataError as error:
            problems.append(str(error))
    if not (runs or results):
        subject = (
            f"nothing to report in {listing(folders)}: no log.jsonl of a run, no result of "
            "`virtex transfer`"
        )
        raise_all(DataError, subject, problems)
        raise DataError(f"{subject}.")
    return Findings(tuple(runs), tuple(results), timings, tuple(problems))


def is_study(folder: Path) -> bool:
    """Return whether a folder is that of a study, whose page `virtex report` would replace."""
    return (folder / "table.md").is_file() and any(folder.glob(SEEDS))


def _files(folders: Sequence[Path], report: Report) -> list[tuple[Path, str]]:
    """Return each file once, with its path relative to a given folder; no temporary files."""
    found: dict[Path, tuple[Path, str]] = {}
    for folder in folders:
        for path in sorted(_walk(folder, report)):
            name = path.relative_to(folder).as_posix()
            if files.PREFIX not in name:
                found[Path(os.path.realpath(path))] = path, name
    return list(found.values())


def _walk(folder: Path, report: Report) -> Iterator[Path]:
    """Yield the files below a folder that may be of interest; links to folders are not followed."""

    def unreadable(error: OSError) -> None:
        report(f"cannot read the folder {error.filename}: {error.strerror}")

    for parent, _, names in os.walk(folder, onerror=unreadable):
        for name in names:
            if name == "log.jsonl" or name.endswith(".json"):
                yield Path(parent) / name


def _is_result(path: Path) -> bool:
    """Return whether a JSON file is a result, by its name or content; `--out` gives any name.

    Those of a study are on the study's own page.
    """
    if path.parent.name == "results" or RESULT_NAME.search(path.name) is not None:
        return True
    return _has_result(path) and not _is_of_study(path)


def _has_result(path: Path) -> bool:
    """Return whether a file has the keys of a result, also where it is damaged otherwise."""
    try:
        text = files.read_regular(path, limit=MAX_BYTES)
    except OSError:
        return False
    if not all(f'"{key}"'.encode() in text for key in RESULT_KEYS):
        return False
    try:
        values = load_json(text.decode())
    except (ValueError, ConfigError):
        return True
    return isinstance(values, dict) and values.keys() >= RESULT_KEYS


def _is_of_study(path: Path) -> bool:
    """Return whether a file is a score of a study, or of one of the trials of its rates."""
    if not STUDY_NAME.fullmatch(path.name):
        return False
    is_trial = path.parent.parent.name == "tuning" and path.parent.name.startswith("factor_")
    has_options = path.with_suffix(".options.json").exists()
    return is_trial or has_options or any(map(is_study, path.absolute().parents))


def _read_run(folder: Path, folders: Sequence[Path], report: Report) -> Run:
    log = folder / "log.jsonl"
    records, alarms = read_log(log, report), read_alarms(log)
    config: dict[str, Any] = {}
    step, samples = None, tuple[Sample, ...]()
    try:
        if os.path.lexists(folder / "config.yaml"):
            config = read_config(folder / "config.yaml")
    except DataError as error:
        report(str(error))
    try:
        if os.path.lexists(folder / "samples.json"):
            step, samples = read_samples(folder / "samples.json", report)
    except DataError as error:
        report(str(error))
    return Run(_name(folder, folders), folder, records, config, step, samples, alarms)


def _name(folder: Path, folders: Sequence[Path]) -> str:
    """Return the run's path relative to the given folder that contains it."""
    for parent in folders:
        if folder != parent and folder.is_relative_to(parent):
            return folder.relative_to(parent).as_posix()
    return folder.resolve().name
