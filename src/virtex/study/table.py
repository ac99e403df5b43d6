"""The table of a study, in Markdown, from the scores that exist."""

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev

from virtex.engine.run import RunFolder
from virtex.resume import with_stored_choices
from virtex.study.plan import Run
from virtex.study.scores import columns, numbers_of
from virtex.study.study_config import StudyConfig
from virtex.study.tuning import is_tuned, tuned

ABOUT = ("images seen", "annotation hours", "learning rate")
"""Columns before the scores, each left out where no row has it."""


def table(config: StudyConfig, runs: Sequence[Run]) -> str:
    """Return a line for each row with scores: mean and deviation, the best mean in bold."""
    names = columns(config)
    scored: dict[str, list[tuple[Run, dict[str, float]]]] = {}
    for run in runs:
        if numbers := numbers_of(config, run):
            scored.setdefault(run.row.name, []).append((run, numbers))
    values = {
        row: {column: _column([numbers for _, numbers in own], column) for column in names}
        for row, own in scored.items()
    }
    best = {
        column: max((fmean(row[column]) for row in values.values() if row[column]), default=0.0)
        for column in names
    }
    about = {name: _about(config, own[0][0]) for name, own in scored.items()}
    headings = [key for key in ABOUT if any(of_row[key] for of_row in about.values())]
    lines = [_line(["pretraining", *headings, *names, "seeds"])]
    lines.append("|---|" + "---:|" * (len(headings) + len(names) + 1))
    for name, own in scored.items():
        cells = [about[name][key] for key in headings]
        cells += [_cell(values[name][column], best=best[column]) for column in names]
        lines.append(_line([name, *cells, str(len(own))]))
    return "\n".join(lines) + "\n"


def _column(numbers: Sequence[Mapping[str, float]], name: str) -> list[float]:
    """Return the scores of a column, of the seeds that have it."""
    return [of_seed[name] for of_seed in numbers if name in of_seed]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(values: Sequence[float], *, best: float) -> str:
    if not values:
        return ""
    mean = fmean(values)
    text = f"**{mean:.2f}**" if mean == best else f"{mean:.2f}"
    return f"{text} ± {stdev(values):.2f}" if len(values) > 1 else text


def _about(config: StudyConfig, run: Run) -> dict[str, str]:
    """Return what the table says of a row beside its scores, under the names in ABOUT."""
    hours, rate = run.row.annotation_hours, tuned(config, run).optim.lr
    texts = (
        f"{_num_images(run):,}",
        f"{hours:,g}" if hours is not None else "",
        f"{rate:.2g}" if is_tuned(config, run.row) else "",
    )
    return dict(zip(ABOUT, texts, strict=True))


def _num_images(run: Run) -> int:
    """Return the number of images that a pretraining sees."""
    if not run.is_pretrained:
        return 0
    options = with_stored_choices(run.options, RunFolder(run.folder)).run
    return options.num_steps * options.batch_size
