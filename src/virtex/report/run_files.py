"""The files of a run folder as a report reads them: anybody may have written or damaged them.

Files are read within bounds, and what they hold is checked, so that the page can be drawn from it.
What cannot be used is a problem by name, and the rest is kept.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from virtex import files
from virtex.errors import ConfigError, DataError, listing
from virtex.monitors.monitors import PREFIX, Alarm
from virtex.options.bounded_yaml import check_plain, load_json
from virtex.options.command_line import load
from virtex.report.sample_images import data_uri

MAX_LOG_BYTES = 2**27
MAX_LINE_BYTES = 2**16
MAX_NUMBERS = 8_000_000
"""Most numbers of a log, each record counted as four more; 570,000 records of ten."""
RECORD_COST = 4
MAX_WRONG = 10_000
"""Most lines of a log that are left out."""
MAX_QUANTITIES = 100
"""Most names of numbers in a log, which have a chart each."""
MAX_BYTES = 2**22
"""Most bytes of samples.json and of timings.json."""
MAX_NUMBER = 1e30
"""Largest absolute value that a chart can draw."""
MAX_STEP = 1e15
MAX_SAMPLES = 1000
MAX_IMAGE_CHARACTERS = 2**26
"""Most characters of all images of a run in the page."""
MAX_TEXT = 10_000
"""Most characters of a caption."""
MAX_NAME = 200
MAX_TIMINGS = 100
MAX_ALARMS = 50
"""Most alarms of a run that are shown."""

Record = dict[str, float]
Report = Callable[[str], None]
"""Function that takes the text of a problem."""


@dataclass(frozen=True)
class Sample:
    """A validation image with its generated caption and the captions of the data."""

    image: str
    """The image as a data URI."""
    generated: str
    log_likelihood: float
    captions: tuple[str, ...]


def read_log(path: Path, report: Report) -> tuple[Record, ...]:
    """Return the numbers of each record of a log, without a truncated last line.

    Raises:
        DataError: It cannot be read, is too large, or holds no record.
    """
    records: list[Record] = []
    wrong: list[int] = []
    names: set[str] = set()
    num_numbers = 0
    for number, line in enumerate(_lines(path), 1):
        try:
            record = _record(line)
        except (ValueError, ConfigError):
            wrong.append(number)
            if len(wrong) > MAX_WRONG:
                raise DataError(f"{path}: most lines are no records of a run") from None
            continue
        names |= record.keys()
        num_numbers += len(record) + RECORD_COST
        if len(names) > MAX_QUANTITIES or num_numbers > MAX_NUMBERS:
            raise DataError(
                f"{path} holds more than {MAX_QUANTITIES} quantities or {MAX_NUMBERS:,} numbers"
            )
        records.append(record)
    if wrong:
        report(
            f"{path}: {len(wrong):,} lines are no records of a run, which are JSON objects of "
            f"finite numbers with a `step` (line {listing(wrong)})"
        )
    if not records:
        raise DataError(f"{path} holds no complete record of a run")
    return tuple(records)


def read_alarms(path: Path) -> tuple[Alarm, ...]:
    """Return the alarms of a log, the first `MAX_ALARMS`; other lines are left to `read_log`.

    Raises:
        DataError: The log cannot be read, or is too large.
    """
    alarms: list[Alarm] = []
    for line in _lines(path):
        if PREFIX.encode() not in line:
            continue
        with suppress(ValueError, ConfigError):
            step = _record(line)["step"]
            found = load_json(line.decode()).items()
            alarms += [
                Alarm(int(step), name.removeprefix(PREFIX), text[:MAX_TEXT])
                for name, text in found
                if name.startswith(PREFIX) and isinstance(text, str)
            ]
        if len(alarms) >= MAX_ALARMS:
            break
    return tuple(alarms[:MAX_ALARMS])


def _lines(path: Path) -> Iterator[bytes]:
    """Yield each line that ends, the start of a line that is too long instead of it."""
    if not path.is_file():
        raise DataError(f"{path} is no regular file")
    try:
        if path.stat().st_size > MAX_LOG_BYTES:
            raise DataError(f"{path} is larger than the {MAX_LOG_BYTES:,} bytes that are read")
        with path.open("rb") as file:
            for line in iter(lambda: file.readline(MAX_LINE_BYTES), b""):
                if line.endswith(b"\n") or len(line) == MAX_LINE_BYTES:
                    yield line
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error


def _record(line: bytes) -> Record:
    if not line.endswith(b"\n"):
        raise ValueError("too long")
    values = load_json(line.decode("utf-8"))
    if not isinstance(values, dict):
        raise ValueError("no JSON object")
    record = {key: _number(value) for key, value in values.items() if _is_number(value)}
    if not 0 <= record.get("step", -1) <= MAX_STEP or any(len(key) > MAX_NAME for key in record):
        raise ValueError("no step")
    return record


def data_name(source: object, root: object) -> str:
    """Return what the data are called: by the folder they lie in, since a source is a layout."""
    if source == "scenes":
        return "drawn scenes"
    folder = "/".join(Path(root).parts[-2:]) if isinstance(root, str) and root else ""
    return f"{folder}, {source} layout" if source and folder else str(source or "")


def read_config(path: Path) -> dict[str, Any]:
    """Return the options of a run.

    Raises:
        DataError: It cannot be read, or is no mapping of options.
    """
    try:
        values = load(path)
        check_plain(values, f"{path}: options")
        if not _has_text_keys(values):
            raise ConfigError(f"cannot read {path}: names of options must be text")
    except ConfigError as error:
        raise DataError(str(error)) from error
    return values


def _has_text_keys(values: object) -> bool:
    if isinstance(values, Mapping):
        return all(isinstance(key, str) and _has_text_keys(item) for key, item in values.items())
    return not isinstance(values, list) or all(map(_has_text_keys, values))


def read_samples(path: Path, report: Report) -> tuple[int, tuple[Sample, ...]]:
    """Return the step and the samples of a samples.json, without those that cannot be used.

    Raises:
        DataError: It cannot be read, or is no samples file.
    """
    values = read_json(path)
    if not isinstance(values, dict) or not isinstance(values.get("samples"), list):
        raise DataError(f"{path} is no samples file: it has no list of samples")
    step = values.get("step")
    if not _is_number(step) or not 0 <= step <= MAX_STEP or step != int(step):
        raise DataError(f"{path} is no samples file: its step is no whole number")
    samples, problems, num_characters = list[Sample](), list[str](), 0
    if len(values["samples"]) > MAX_SAMPLES:
        problems.append(f"only the first {MAX_SAMPLES:,} are read")
    for number, item in enumerate(values["samples"][:MAX_SAMPLES], 1):
        try:
            sample = _sample(item, path.parent)
            num_characters += len(sample.image)
            if num_characters > MAX_IMAGE_CHARACTERS:
                raise ValueError("the images before it fill the page")
            samples.append(sample)
        except ValueError as error:
            problems.append(f"sample {number}: {error}")
    if problems:
        report(f"{path}: {len(problems):,} samples cannot be shown ({listing(problems)})")
    return int(step), tuple(samples)


def _sample(item: object, folder: Path) -> Sample:
    if not isinstance(item, dict):
        raise ValueError("no JSON object")
    name, captions = _text(item, "image"), item.get("captions")
    if not isinstance(captions, list) or not all(isinstance(one, str) for one in captions):
        raise ValueError("captions are no list of texts")
    if sum(map(len, captions)) > MAX_TEXT:
        raise ValueError(f"captions of more than {MAX_TEXT:,} characters")
    if not _is_number(item.get("log_likelihood")):
        raise ValueError("log_likelihood is no number")
    try:
        image = data_uri(name, folder)
    except ValueError as error:
        raise ValueError(f"image {name[:MAX_NAME]!r} {error}") from error
    return Sample(image, _text(item, "generated"), _number(item["log_likelihood"]), tuple(captions))


def _text(item: Mapping[str, Any], key: str) -> str:
    if not isinstance(value := item.get(key), str) or len(value) > MAX_TEXT:
        raise ValueError(f"{key} is no text of at most {MAX_TEXT:,} characters")
    return value


def read_timings(path: Path) -> dict[str, float]:
    """Return seconds by stage.

    Raises:
        DataError: It cannot be read, or holds something else.
    """
    values = read_json(path)
    try:
        if not isinstance(values, dict) or len(values) > MAX_TIMINGS:
            raise ValueError(f"it is no mapping of at most {MAX_TIMINGS} stages")
        timings = {stage[:MAX_NAME]: _number(seconds) for stage, seconds in values.items()}
        if any(seconds < 0 for seconds in timings.values()):
            raise ValueError("a time is negative")
    except ValueError as error:
        raise DataError(f"{path} does not hold seconds by stage: {error}") from error
    return timings


def read_json(path: Path) -> Any:
    """Return the plain values that a JSON file holds.

    Raises:
        DataError: It cannot be read, is no JSON, or goes beyond a bound.
    """
    try:
        return load_json(files.read_text(path, most=MAX_BYTES), "its content")
    except (ValueError, ConfigError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else error
        raise DataError(f"{path} is no JSON of plain values: {reason}") from error


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: object) -> float:
    if not _is_number(value):
        raise ValueError(f"{str(value)[:40]!r} is no number")
    if not math.isfinite(found := float(value)) or abs(found) > MAX_NUMBER:
        raise ValueError("a number is not finite or too large")
    return found
