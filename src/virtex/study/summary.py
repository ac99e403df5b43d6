"""What a study has found so far, and what is missing."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

from virtex.config import to_dict
from virtex.engine.run import RunFolder
from virtex.errors import DataError
from virtex.report.dot_charts import Measured
from virtex.resume import with_stored_choices
from virtex.run_data import RunData
from virtex.study.plan import Run, left_out
from virtex.study.scores import numbers_of, results_of, scores_of
from virtex.study.study_config import StudyConfig, columns_of
from virtex.study.tuning import is_tuned, tuned
from virtex.transfer.directions import Direction, direction_of, is_in_nats
from virtex.transfer.protocol import Result, digest
from virtex.zoo.weights_file import WEIGHTS_NAME

AMOUNTS = ("share", "keep")
"""Options of data that choose how many images there are."""
ABOUT = ("images seen", "annotation hours", "learning rate")
"""Columns before the scores, each left out where no row has it."""


@dataclass(frozen=True)
class Origin:
    """A result, and the row, score and draw that it is of."""

    row: str
    score: str
    draw: int
    seed: int
    """Random seed of the run."""
    result: Result


@dataclass(frozen=True)
class ScoredRow:
    """A row of the table with at least one score."""

    name: str
    about: dict[str, str]
    """Texts under the names in `ABOUT`."""
    values: dict[str, list[float]]
    """Scores by column, one for each seed that has it."""
    data: str = ""
    """Task, captions of each image and first weights, for a legend."""
    recipe: str = ""
    """Digest of the options but for the share of the images."""
    start: str = "random"
    """First weights in full: files in several folders may have the same name."""
    num_images: int | None = None
    """Number of training images; None without pretraining."""

    @property
    def seeds(self) -> str:
        """The number of seeds, or the least and the most if columns differ in it."""
        numbers = sorted({len(values) for values in self.values.values() if values})
        return " to ".join(map(str, dict.fromkeys((numbers[0], numbers[-1]))))

    def measured(self, column: "Column") -> Measured:
        """Return mean and standard deviation of a column."""
        values = self.values[column.name]
        if not values:
            return Measured(self.name, None)
        deviation = stdev(values) if len(values) > 1 else None
        return Measured(self.name, fmean(values), deviation, in_nats=column.in_nats)


class Column(NamedTuple):
    """A column of the table, a number of a score."""

    name: str
    is_main: bool
    """Whether it is the first of its score."""
    direction: Direction
    """Whether a higher or a lower number is better."""
    in_nats: bool = False
    """Whether it is a loss or a difference of losses."""

    @property
    def heading(self) -> str:
        """The name, with an arrow where a lower number is better."""
        return f"{self.name} ↓" if self.direction == "lower" else self.name


@dataclass(frozen=True)
class Summary:
    """The table of a study as values."""

    headings: list[str]
    """Those of `ABOUT` that rows have."""
    columns: list[Column]
    rows: list[ScoredRow]
    origins: list[Origin]
    missing: list[str]
    """What is to be measured, a line for each run that lacks something."""

    def best(self, column: Column) -> set[str]:
        """Return the names of the rows with a column's best mean, or one within its deviation.

        There are none where all of several rows have such a mean, or no number is better.
        """
        means = {
            row.name: (measured.mean, measured.deviation or 0.0)
            for row in self.rows
            if (measured := row.measured(column)).mean is not None
        }
        if not means or column.direction == "neither":
            return set()
        best, deviation = (max if column.direction == "higher" else min)(means.values())
        near = {name for name, (mean, _) in means.items() if abs(mean - best) <= deviation}
        return near if len(near) < len(means) or len(means) == 1 else set()


def summarize(config: StudyConfig, runs: Sequence[Run]) -> Summary:
    """Read the scores that exist.

    Raises:
        DataError: A result cannot be read.
    """
    scored: dict[str, list[tuple[Run, dict[str, float]]]] = {}
    origins, lacking = list[Origin](), dict[tuple[str, str], list[str]]()
    for run in runs:
        results = results_of(config, run)
        origins += _origins(run, results)
        if names := ", ".join(name for name, drawn in results.items() if None in drawn):
            lacking.setdefault((run.row.name, names), []).append(str(run.seed))
        if numbers := numbers_of(config, results):
            scored.setdefault(run.row.name, []).append((run, numbers))
    columns = _columns(config, origins)
    column_names = [column.name for column in columns]
    rows = [_row(config, name, own, column_names) for name, own in scored.items()]
    missing = [
        f"{row}, seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)}: {names}"
        for (row, names), seeds in lacking.items()
    ]
    missing += [f"rows and columns of --roots.{name} DIR" for name in left_out(config)]
    headings = [key for key in ABOUT if any(row.about[key] for row in rows)]
    return Summary(headings, columns, rows, origins, missing)


def _columns(config: StudyConfig, origins: Sequence[Origin]) -> list[Column]:
    """Return the columns of all scores, each with the direction of its number."""
    headlines = {one.score: one.result.headline for one in origins}
    columns = []
    for score in scores_of(config):
        for index, (name, number) in enumerate(columns_of(score).items()):
            of = number or headlines.get(score.name, "")
            columns.append(Column(name, index == 0, direction_of(of), is_in_nats(of)))
    return columns


def num_images_seen(run: Run) -> int:
    """Return the number of images that a pretraining sees."""
    if not run.is_pretrained:
        return 0
    folder = RunFolder(run.folder)
    options = with_stored_choices(run.options, folder).run
    steps = folder.checkpoints.steps()  # fewer than planned where early stopping ended it
    return min(options.num_steps, max(steps, default=options.num_steps)) * options.batch_size


def task_of(run: Run) -> str:
    """Return the name of a run's pretext task."""
    task = to_dict(run.options)["task"]
    name = str(task.get("name") or task.get("class_path", ""))
    return name.rpartition(".")[2].removesuffix("Config")


def _origins(run: Run, results: dict[str, list[Result | None]]) -> list[Origin]:
    return [
        Origin(run.row.name, score, draw, run.seed, result)
        for score, drawn in results.items()
        for draw, result in enumerate(drawn)
        if result is not None
    ]


def _row(
    config: StudyConfig, name: str, own: Sequence[tuple[Run, dict[str, float]]], columns: list[str]
) -> ScoredRow:
    first = own[0][0]
    return ScoredRow(
        name,
        _about(config, first),
        {
            column: [numbers[column] for _, numbers in own if column in numbers]
            for column in columns
        },
        _what_is_learned(first),
        digest(_recipe(first)),
        first.options.init if first.is_pretrained else first.start,
        _num_images(first),
    )


def _about(config: StudyConfig, run: Run) -> dict[str, str]:
    """Return what the table says of a row beside its scores, under the names in ABOUT."""
    hours, rate = run.row.annotation_hours, tuned(config, run).optim.lr
    texts = (
        f"{num_images_seen(run):,}",
        f"{hours:,g}" if hours is not None else "",
        f"{rate:.2g}" if is_tuned(config, run.row) else "",
    )
    return dict(zip(ABOUT, texts, strict=True))


def _what_is_learned(run: Run) -> str:
    if not run.is_pretrained:
        return ""
    number = run.options.data.num_captions
    captions = "" if number is None else f", {number} caption{'s' * (number != 1)} an image"
    init = run.options.init
    weights = "" if init == "random" else f", from {_short_name(init)}"
    return f"{task_of(run)}{captions}{weights}"


def _recipe(run: Run) -> dict[str, Any]:
    """Return the options of a run by which it learns, whatever the number of images.

    A schedule may be shorter for fewer images, as the paper's is.
    """
    options = run.options
    data = {name: value for name, value in to_dict(options.data).items() if name not in AMOUNTS}
    parts = ("task", "backbone", "image", "init", "init_parts")
    return {
        **{name: value for name, value in to_dict(options).items() if name in parts},
        "data": data,
        "optimizer": options.optim.optimizer,
        "times": run.row.times,
    }


def _short_name(init: str) -> str:
    """Return the end of an INIT that tells it from others: of a run's weights the run's name."""
    path = Path(init)
    return path.parent.name or path.stem if path.name == WEIGHTS_NAME else path.stem


def _num_images(run: Run) -> int | None:
    """Return the number of training images that a run recorded; None without such a record."""
    if not run.is_pretrained:
        return None
    with suppress(DataError, ValueError, KeyError):  # a damaged record costs a figure its point
        data = RunData.read(run.folder)
        return None if data is None else int(data.train["images"])
    return None
