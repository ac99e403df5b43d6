"""The table of a study, in Markdown, from the scores that exist."""

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev

from virtex.engine.run import RunFolder
from virtex.resume import with_stored_choices
from virtex.study.plan import Run
from virtex.study.scores import numbers_of, scores_of
from virtex.study.study_config import StudyConfig
from virtex.study.tuning import is_tuned, tuned


def table(config: StudyConfig, runs: Sequence[Run]) -> str:
    """Return a line for each row with scores: mean and deviation, the best mean in bold."""
    columns = [score.name for score in scores_of(config)]
    scored: dict[str, list[tuple[Run, dict[str, float]]]] = {}
    for run in runs:
        if numbers := numbers_of(config, run):
            scored.setdefault(run.row.name, []).append((run, numbers))
    values = {
        row: {column: _column([numbers for _, numbers in own], column) for column in columns}
        for row, own in scored.items()
    }
    best = {
        column: max((fmean(row[column]) for row in values.values() if row[column]), default=0.0)
        for column in columns
    }
    rates = ["learning rate"] if config.tune.factors else []
    lines = [_line(["pretraining", "images seen", *rates, *columns, "seeds"])]
    lines.append("|---|" + "---:|" * (len(columns) + len(rates) + 2))
    for name, own in scored.items():
        run, _ = own[0]
        shown = [_cell(values[name][column], best=best[column]) for column in columns]
        rate = [_rate(config, run)] if rates else []
        lines.append(_line([name, f"{_num_images(run):,}", *rate, *shown, str(len(own))]))
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


def _rate(config: StudyConfig, run: Run) -> str:
    """Return the learning rate that was chosen, if there was a choice."""
    return f"{tuned(config, run).optim.lr:.2g}" if is_tuned(config, run.row) else ""


def _num_images(run: Run) -> int:
    """Return the number of images that a pretraining sees."""
    if not run.is_pretrained:
        return 0
    options = with_stored_choices(run.options, RunFolder(run.folder)).run
    return options.num_steps * options.batch_size
