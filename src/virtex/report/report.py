"""The report: results and logs to report.md and one self-contained report.html."""

import base64
import mimetypes
import shlex
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from virtex import files
from virtex.report.charts import number
from virtex.report.comparisons import compare
from virtex.report.curves import facts, run_charts
from virtex.report.findings import Run, find
from virtex.report.markdown import markdown_report
from virtex.report.page import NextStep, Page, RunPage, duration, signed


def write_report(
    folders: Sequence[Path],
    out: Path,
    *,
    title: str = "virtex report",
    next_steps: Sequence[NextStep] | None = None,
) -> Path:
    """Write report.md and report.html about the runs and results at or below some folders.

    Args:
        folders: Run folders, folders of results, or folders that hold such.
        out: The folder to write to.
        title: The heading.
        next_steps: What to try next and the command for it; none given: commands that fit what
            was found.

    Returns:
        The path of report.html.

    Raises:
        DataError: Nothing to report, or a file that is broken or cannot be written; names it.
    """
    found = find(folders)
    page = Page(
        title=title,
        comparisons=compare(found.results),
        runs=tuple(RunPage(run, facts(run), run_charts(run)) for run in found.runs),
        timings=tuple(found.timings.items()),
        next_steps=tuple(_default_steps(found.runs) if next_steps is None else next_steps),
        version=version("virtex"),
    )
    files.write(out / "report.md", markdown_report(page))
    files.write(out / "report.html", _html(page))
    return out / "report.html"


def _html(page: Page) -> str:
    environment = Environment(
        loader=PackageLoader("virtex.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown_as = {"number": number, "duration": duration, "signed": signed, "data_uri": data_uri}
    environment.filters |= shown_as
    return environment.get_template("report.html").render(page=page)


def data_uri(path: Path) -> str:
    """An image file as text that a page can hold."""
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def _default_steps(runs: Sequence[Run]) -> list[NextStep]:
    """Commands about the first run; where there is none, it stays a word to fill in."""
    run = shlex.quote(str(runs[0].folder)) if runs else "RUN"
    data = f"--data.root DIR --out {run}/results"
    return [
        ("Caption your own images", f"virtex caption {run} IMAGE..."),
        ("Score the backbone on folders of classes", f"virtex transfer linear --init {run} {data}"),
        (
            "Compare with the same network at random",
            f"virtex transfer linear --init random --backbone_from {run} {data}",
        ),
    ]
