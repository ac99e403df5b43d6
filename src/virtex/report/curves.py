"""Charts and facts of a run: losses, learning rates, throughput and options."""

from collections.abc import Callable
from statistics import mean, median

from virtex.config import flat
from virtex.report.charts import Chart, Series, binned, line_chart, number
from virtex.report.findings import Run
from virtex.report.run_files import data_name

TRAIN, VALIDATION = "train/", "val/"
DIRECTIONS = ("_forward", "_backward")
MAX_SHOWN = 200
"""Most characters of an option's value."""
RATES = ("lr", "backbone_lr")
SINGLE = (
    ("Learning rate of the backbone", f"{TRAIN}backbone_lr"),
    ("Images per second", "speed/images_per_second"),
)
SUMMARIES: tuple[tuple[str, str, Callable[[list[float]], str]], ...] = (
    ("Training loss", f"{TRAIN}loss", lambda values: number(values[-1])),
    ("Validation loss", f"{VALIDATION}loss", lambda values: number(values[-1])),
    ("Images per second", "speed/images_per_second", lambda values: number(median(values))),
    ("Waiting for data", "speed/data_wait", lambda values: f"{mean(values):.0%}"),
)


def run_charts(run: Run) -> tuple[Chart, ...]:
    """Return a chart per quantity in the log: losses first, then learning rate and speed."""
    keys = dict.fromkeys([*run.keys(TRAIN), *run.keys(VALIDATION)])
    ranked = sorted(keys, key=lambda key: (key != "loss", not key.endswith(DIRECTIONS)))
    charts = [_quantity_chart(run, key) for key in ranked if key not in RATES]
    for title, key in SINGLE:
        if points := run.series(key):
            charts.append(line_chart(title, [Series("", binned(points))], from_zero=True))
    return tuple(charts)


def facts(run: Run) -> tuple[tuple[str, str], ...]:
    """Return the name and value of the run's main options and numbers, as far as known."""
    options = {name: value for name, value in flat(run.config).items() if value is not None}
    steps, planned = f"{run.records[-1]['step']:,.0f}", options.get("run.num_steps")
    task = str(options.get("task.name", options.get("task.class_path", "")))
    rates = options.get("optim.backbone_lr"), options.get("optim.lr")
    found = [
        ("Backbone", options.get("backbone.name", "")),
        ("Task", task.rsplit(".", 1)[-1].removesuffix("Config")),
        ("Data", data_name(options.get("data.source"), options.get("data.root"))),
        ("Image side", options.get("image.size", "")),
        ("Batch size", options.get("run.batch_size", "")),
        ("Learning rates", f"{rates[0]}, head {rates[1]}" if all(rates) else ""),
        ("Steps", f"{steps} of {planned:,}" if isinstance(planned, int) else steps),
    ]
    for name, key, summarized in SUMMARIES:
        if values := [value for _, value in run.series(key)]:
            found.append((name, summarized(values)))
    return tuple((name, str(value)[:MAX_SHOWN]) for name, value in found if value != "")


def _quantity_chart(run: Run, key: str) -> Chart:
    """Draw training as a line and validation as dots."""
    trained, validated = run.series(TRAIN + key), run.series(VALIDATION + key)
    series = []
    if trained:
        series.append(Series("training", binned(trained)))
    if validated:
        series.append(Series("validation", binned(validated), color=1, measured=True))
    title = key.replace("_", " ").replace("/", ", ")
    return line_chart(title[:1].upper() + title[1:], series)
