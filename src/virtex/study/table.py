"""The table of a study in Markdown."""

from collections.abc import Sequence

from virtex.report.dot_charts import Measured
from virtex.study.summary import Summary


def table(summary: Summary) -> str:
    """Return a line for each row with scores: mean and deviation, the best means in bold."""
    columns, headings = summary.columns, summary.headings
    best = {column: summary.best(column) for column in columns}
    names = [column.heading for column in columns]
    lines = [_line(["pretraining", *headings, *names, "seeds"])]
    lines.append("|---|" + "---:|" * (len(headings) + len(names) + 1))
    for row in summary.rows:
        cells = [row.about[key] for key in headings]
        cells += [
            _cell(row.measured(column), is_best=row.name in best[column]) for column in columns
        ]
        lines.append(_line([row.name, *cells, row.seeds]))
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    escaped = (cell.replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(escaped)} |"


def _cell(measured: Measured, *, is_best: bool) -> str:
    if not is_best:
        return measured.text
    mean, *deviation = measured.text.split(" ", 1)
    return " ".join([f"**{mean}**", *deviation])
