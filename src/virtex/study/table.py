"""The table of a study in Markdown."""

from collections.abc import Sequence

from virtex.report.dot_charts import Measured
from virtex.study.summary import Summary


def table(summary: Summary) -> str:
    """Return a line for each row with scores: mean and deviation, the best mean in bold."""
    names, headings = list(summary.columns), summary.headings
    best = {column: summary.best(column) for column in names}
    lines = [_line(["pretraining", *headings, *names, "seeds"])]
    lines.append("|---|" + "---:|" * (len(headings) + len(names) + 1))
    for row in summary.rows:
        cells = [row.about[key] for key in headings]
        cells += [_cell(row.measured(column), best=best[column]) for column in names]
        lines.append(_line([row.name, *cells, str(row.num_seeds)]))
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    escaped = (cell.replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(escaped)} |"


def _cell(measured: Measured, *, best: float | None) -> str:
    mean, *deviation = measured.text.split(" ", 1)
    if measured.mean is None or measured.mean != best:
        return measured.text
    return " ".join([f"**{mean}**", *deviation])
