"""The page of a study: its table, scores, learning curves, and where each score comes from."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from virtex.config import flat
from virtex.engine.run import RunFolder
from virtex.errors import DataError
from virtex.report.charts import Chart, Point, Series, binned, line_chart
from virtex.report.dot_charts import DotChart, dot_chart
from virtex.report.rendering import rendered
from virtex.report.run_files import Record, read_log
from virtex.resume import with_stored_choices
from virtex.study.plan import Run
from virtex.study.summary import Column, ScoredRow, Summary, task_of
from virtex.transfer.protocol import digest
from virtex.version import VERSION

LOSSES = {"val/loss": "validation", "train/loss": "training"}
"""Names of losses in a log, the preferred one first."""
NUM_COLORS = 8
"""Most lines of a chart, which have a color each."""
MAX_DOTS = 25
"""Most points of a line that are drawn as dots."""
HASH_LENGTH = 8


@dataclass(frozen=True)
class OriginLine:
    """A line of the list of results: where a score comes from."""

    row: str
    score: str
    seeds: str
    number: float
    init: str
    sha256: str
    data: str
    """Hash of the data's identities, which `StudyPage.data` spells out."""
    versions: str
    """Hash of the versions, which `StudyPage.versions` spells out."""
    settings: str
    device: str
    seconds: float


@dataclass(frozen=True)
class StudyPage:
    """Content of a study's page."""

    title: str
    summary: Summary
    scores: tuple[DotChart, ...]
    """The main number of each score."""
    further_scores: tuple[DotChart, ...]
    efficiency: tuple[Chart, ...]
    """Scores over the number of training images."""
    curves: tuple[Chart, ...]
    """Losses over the number of images seen."""
    origins: tuple[OriginLine, ...]
    data: dict[str, str]
    versions: dict[str, str]
    problems: tuple[str, ...]
    version: str = VERSION


def study_page(summary: Summary, runs: Sequence[Run], *, title: str) -> bytes:
    """Return the page as HTML; a log that cannot be read is named on it."""
    problems: list[str] = []
    curves = _curves(_logs(runs, problems))
    main, further = (
        [column for column in summary.columns if column.is_main == wanted]
        for wanted in (True, False)
    )
    results = [one.result for one in summary.origins]
    page = StudyPage(
        title=title,
        summary=summary,
        scores=_score_charts(summary, main),
        further_scores=_score_charts(summary, further),
        efficiency=_efficiency(summary.rows, main),
        curves=curves,
        origins=_origin_lines(summary),
        data={_hash(one.data): _data_text(one.data) for one in results},
        versions={_hash(one.versions): _pairs(one.versions) for one in results},
        problems=tuple(problems),
    )
    return rendered("study.html", page, package="virtex.study")


def _score_charts(summary: Summary, columns: Sequence[Column]) -> tuple[DotChart, ...]:
    charts = (
        dot_chart(
            column.heading,
            [row.measured(column) for row in summary.rows],
            best=summary.best(column),
        )
        for column in columns
    )
    return tuple(chart for chart in charts if chart is not None)


def _efficiency(rows: Sequence[ScoredRow], columns: Sequence[Column]) -> tuple[Chart, ...]:
    """Draw scores over the number of training images, where rows differ in nothing else."""
    groups: dict[str, list[ScoredRow]] = {}
    for row in rows:
        if row.num_images:
            groups.setdefault(row.recipe, []).append(row)
    known = Counter(own[0].data for own in groups.values())
    names = [own[0].data if known[own[0].data] == 1 else own[0].name for own in groups.values()]
    charts = []
    for column in columns:
        series = [
            one
            for color, (name, own) in enumerate(zip(names, groups.values(), strict=True))
            if (one := _over_images(name, own, column, color % NUM_COLORS))
        ]
        if any(len({number for number, _ in one.points}) > 1 for one in series):
            over = "training images"
            charts.append(line_chart(column.name, series, over=over, logarithmic=True))
    return tuple(charts)


def _over_images(name: str, rows: Sequence[ScoredRow], column: Column, color: int) -> Series | None:
    points, deviations = list[Point](), list[float]()
    for row in sorted(rows, key=lambda row: row.num_images or 0):
        measured = row.measured(column)
        if measured.mean is not None:
            points.append((float(row.num_images or 0), measured.mean))
            deviations.append(measured.deviation or 0.0)
    if not points:
        return None
    return Series(name, tuple(points), color, measured=True, deviations=tuple(deviations))


@dataclass(frozen=True)
class _Log:
    """The loss of a run over the number of images that it has seen."""

    row: str
    chart: str
    """Title of the chart that it belongs to: losses of other tasks do not compare."""
    points: dict[float, float]


def _logs(runs: Sequence[Run], problems: list[str]) -> list[_Log]:
    logs = []
    for run in runs:
        path = run.folder / "log.jsonl"
        if not (run.is_pretrained and path.exists()):
            continue
        try:
            records = read_log(path, problems.append)
        except DataError as error:
            problems.append(str(error))
            continue
        if log := _log(run, records):
            logs.append(log)
    return logs


def _log(run: Run, records: Sequence[Record]) -> _Log | None:
    """Return the preferred loss of a run of which there is more than one value, if there is any."""
    batch_size = with_stored_choices(run.options, RunFolder(run.folder)).run.batch_size
    logs = [
        _Log(run.row.name, f"{task_of(run)}, {kind} loss", points)
        for key, kind in LOSSES.items()
        if (points := {batch_size * one["step"]: one[key] for one in records if key in one})
    ]
    return next((log for log in logs if len(log.points) > 1), logs[0] if logs else None)


def _curves(logs: Sequence[_Log]) -> tuple[Chart, ...]:
    """Draw a chart for each task: a line for each of its rows, the mean over the seeds."""
    charts: dict[str, dict[str, list[_Log]]] = {}
    for log in logs:
        charts.setdefault(log.chart, {}).setdefault(log.row, []).append(log)
    drawn = []
    for title, rows in charts.items():
        names = list(rows)
        for start in range(0, len(names), NUM_COLORS):
            shown = names[start : start + NUM_COLORS]
            series = [_mean_curve(rows[name], color) for color, name in enumerate(shown)]
            part = f", {start // NUM_COLORS + 1}" if len(names) > NUM_COLORS else ""
            drawn.append(line_chart(title + part, series, over="images seen"))
    return tuple(drawn)


def _mean_curve(logs: Sequence[_Log], color: int) -> Series:
    images = sorted({number for log in logs for number in log.points})
    points = binned([(x, fmean(log.points[x] for log in logs if x in log.points)) for x in images])
    return Series(logs[0].row, points, color, measured=len(points) <= MAX_DOTS)


def _origin_lines(summary: Summary) -> tuple[OriginLine, ...]:
    return tuple(
        OriginLine(
            row=one.row,
            score=one.score,
            seeds=f"{one.seed}"
            if one.result.seed == one.seed
            else f"{one.seed}, {one.result.seed}",
            number=one.result.score,
            init=str(one.result.initialisation["init"]),
            sha256=one.result.initialisation.get("sha256") or "",
            data=_hash(one.result.data),
            versions=_hash(one.result.versions),
            settings=one.result.settings_hash,
            device=one.result.device,
            seconds=one.result.seconds,
        )
        for one in summary.origins
    )


def _hash(values: Mapping[str, Any]) -> str:
    return digest(values)[:HASH_LENGTH]


def _data_text(data: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the identities of a result's data by their roles."""
    return "; ".join(f"{role}: {_pairs(identity)}" for role, identity in data.items())


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in flat(values).items())
