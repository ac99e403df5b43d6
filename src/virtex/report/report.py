"""The report on runs and results: report.md, and a self-contained report.html."""

import logging
import shlex
from collections.abc import Sequence
from pathlib import Path

from virtex import files
from virtex.errors import DataError, one_line
from virtex.report.comparisons import compare
from virtex.report.curves import facts, run_charts
from virtex.report.findings import Run, find, is_study
from virtex.report.markdown import markdown_report
from virtex.report.page import NextStep, Page, RunPage
from virtex.report.rendering import encoded, rendered
from virtex.version import VERSION

log = logging.getLogger("virtex")

MAX_PROBLEMS = 50
"""Most problems that are listed one by one."""


def write_report(
    folders: Sequence[Path],
    out: Path,
    *,
    title: str = "virtex report",
    next_steps: Sequence[NextStep] | None = None,
) -> Path:
    """Write report.md and report.html, and return the path of report.html.

    Args:
        folders: Folders with runs or results, also in subfolders.
        out: The folder to write to.
        next_steps: Suggestions with their commands; None: those that fit the first run.

    Raises:
        ConfigError: `out` cannot be written.
        DataError: There is nothing to report, the report cannot be written, or it would replace the
            page of a study.
    """
    if is_study(out):
        raise DataError(
            f"{out} is the folder of a study, whose page report.html has all its scores: "
            "give --out another folder"
        )
    files.check_out(out, is_file=False)
    found = find(folders)
    problems = _bounded([one_line(problem) for problem in found.problems])
    for problem in problems:
        log.warning("left out: %s", problem)
    page = Page(
        title=title,
        comparisons=compare(found.results),
        runs=tuple(RunPage(run, facts(run), run_charts(run)) for run in found.runs),
        timings=tuple(found.timings.items()),
        next_steps=tuple(_default_steps(found.runs) if next_steps is None else next_steps),
        version=VERSION,
        problems=problems,
    )
    files.write(out / "report.md", encoded(markdown_report(page)))
    files.write(out / "report.html", rendered("report.html", page))
    return out / "report.html"


def _bounded(problems: Sequence[str]) -> tuple[str, ...]:
    rest = len(problems) - MAX_PROBLEMS
    return (
        *problems[:MAX_PROBLEMS],
        *([f"{rest:,} more files or parts of files"] if rest > 0 else []),
    )


def _default_steps(runs: Sequence[Run]) -> list[NextStep]:
    """Return commands for the first run, or with the placeholder RUN if there is none."""
    run = one_line(shlex.quote(str(runs[0].folder))) if runs else "RUN"
    data = f"--data.root DIR --out {run}/results"
    return [
        ("Caption your own images", f"virtex caption {run} IMAGE..."),
        ("Score the backbone on folders of classes", f"virtex transfer linear --init {run} {data}"),
        (
            "Compare with the same network at random",
            f"virtex transfer linear --init random --backbone_from {run} {data}",
        ),
    ]
