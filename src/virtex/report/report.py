"""The report on runs and results: report.md, and a self-contained report.html."""

import logging
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from virtex import files
from virtex.errors import one_line
from virtex.report.charts import number
from virtex.report.comparisons import compare
from virtex.report.curves import facts, run_charts
from virtex.report.findings import Run, find
from virtex.report.markdown import markdown_report
from virtex.report.page import NextStep, Page, RunPage, duration, signed
from virtex.version import VERSION

log = logging.getLogger("virtex")

CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Characters that neither format may hold."""
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
        DataError: There is nothing to report, or the report cannot be written.
    """
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
    files.write(out / "report.md", _encoded(markdown_report(page)))
    files.write(out / "report.html", _encoded(_html(page)))
    return out / "report.html"


def _bounded(problems: Sequence[str]) -> tuple[str, ...]:
    rest = len(problems) - MAX_PROBLEMS
    return (
        *problems[:MAX_PROBLEMS],
        *([f"{rest:,} more files or parts of files"] if rest > 0 else []),
    )


def _encoded(text: str) -> bytes:
    """Return UTF-8 without control characters and half surrogate pairs, which are escaped."""
    return CONTROLS.sub(lambda found: one_line(found[0]), text).encode("utf-8", "backslashreplace")


def _html(page: Page) -> str:
    environment = Environment(
        loader=PackageLoader("virtex.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = {"number": number, "duration": duration, "signed": signed}
    environment.filters |= filters
    return environment.get_template("report.html").render(page=page)


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
