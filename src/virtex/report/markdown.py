"""The report as Markdown: the same facts as the page, without charts and images."""

from collections.abc import Iterable, Sequence

from virtex.errors import one_line
from virtex.report.charts import number
from virtex.report.comparisons import Comparison
from virtex.report.page import Page, RunPage, duration, signed
from virtex.transfer.directions import is_in_nats


def markdown_report(page: Page) -> str:
    """Return the content of report.md."""
    blocks = [f"# {_text(page.title)}"]
    if page.comparisons:
        blocks += ["## Transfer", *(_comparison(item) for item in page.comparisons)]
    for shown in page.runs:
        blocks += _run(shown)
    if page.timings:
        rows = [(stage, duration(seconds)) for stage, seconds in page.timings]
        total = ("together", duration(sum(seconds for _, seconds in page.timings)))
        blocks += ["## Where the time went", _table(("stage", "time"), [*rows, total])]
    if page.problems:
        blocks += ["## Left out", "\n".join(f"- {_text(problem)}" for problem in page.problems)]
    if page.next_steps:
        blocks.append("## What to try next")
        blocks += [f"{_text(what)}:\n\n    {command}" for what, command in page.next_steps]
    return "\n\n".join([*blocks, f"Made by virtex {page.version}."]) + "\n"


def _comparison(comparison: Comparison) -> str:
    rows: list[tuple[str, ...]] = [
        (score.init, f"**{score.written}**" if score.is_best else score.written)
        for score in comparison.scores
    ]
    columns = _columns(comparison)
    rows = [(*row, *cells) for row, *cells in zip(rows, *columns.values(), strict=True)]
    empty = [""] * len(columns)
    rows += [(name, f"{value:.1f}", *empty) for name, value in comparison.references.items()]
    table = _table(("init", comparison.measured, *columns), rows, raw=1)
    notes = map(_text, comparison.notes)
    parts = [f"### {_text(comparison.protocol)}", _text(comparison.about), table, *notes]
    return "\n\n".join(part for part in parts if part)


def _columns(comparison: Comparison) -> dict[str, list[str]]:
    """Return the columns beside the headline: by name, a cell per score."""
    gains = [score.over_random for score in comparison.scores]
    columns = {}
    if any(gain is not None for gain in gains):
        columns["over random"] = ["" if gain is None else signed(gain) for gain in gains]
    columns["seeds"] = [str(len(score.results)) for score in comparison.scores]
    for name, values in comparison.main_details:
        columns[name] = ["" if value is None else _cell(name, value) for value in values]
    return columns


def _cell(name: str, value: float) -> str:
    """Return the text of a number: of nats about three digits, of others one decimal."""
    return number(value) if is_in_nats(name) else f"{value:.1f}"


def _run(shown: RunPage) -> list[str]:
    blocks = [f"## Pretraining: {_text(shown.run.name)}", _table(("", ""), shown.facts)]
    if shown.run.alarms:
        lines = [f"- step {alarm.step:,}: {_text(alarm.text)}" for alarm in shown.run.alarms]
        blocks += ["### What went wrong", "\n".join(lines)]
    if shown.run.samples:
        rows = [
            (sample.generated, f"{sample.log_likelihood:.1f}", " / ".join(sample.captions))
            for sample in shown.run.samples
        ]
        title = f"Captions at step {shown.run.samples_step}"
        header = ("generated", "log-likelihood", "reference captions")
        blocks += [f"### {title}", _table(header, rows)]
    return blocks


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], *, raw: int | None = None) -> str:
    """Return a table, whose column `raw` already is Markdown."""
    lines = [" | ".join(_text(name) for name in header), " | ".join("---" for _ in header)]
    for row in rows:
        lines.append(" | ".join(c if i == raw else _text(c) for i, c in enumerate(row)))
    return "\n".join(f"| {line} |" for line in lines)


def _text(text: str) -> str:
    """Escape text for Markdown, on one line."""
    text = one_line(" ".join(text.split()))
    return "".join(f"\\{mark}" if mark in "\\`*_[]<>|#&" else mark for mark in text)
