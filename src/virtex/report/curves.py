"""The charts of a run: its losses in training and validation, learning rate, throughput."""

import statistics

from virtex.report.charts import Chart, Point, Series, binned, line_chart, number
from virtex.report.findings import Run

TRAIN, VALIDATION = "train/", "val/"
DIRECTIONS = ("_forward", "_backward")
RATES = ("lr", "backbone_lr")
SINGLE = (
    ("Learning rate of the backbone", f"{TRAIN}backbone_lr"),
    ("Images per second", "speed/images_per_second"),
)


def run_charts(run: Run) -> tuple[Chart, ...]:
    """One chart for each quantity that the log has: losses first, then learning rate and speed."""
    keys = dict.fromkeys([*run.keys(TRAIN), *run.keys(VALIDATION)])
    ranked = sorted(keys, key=lambda key: (key != "loss", not key.endswith(DIRECTIONS)))
    charts = [_quantity_chart(run, key) for key in ranked if key not in RATES]
    for title, key in SINGLE:
        points = run.series(key)
        if points:
            charts.append(line_chart(title, [Series("", binned(points))], from_zero=True))
    return tuple(charts)


def facts(run: Run) -> tuple[tuple[str, str], ...]:
    """What the run was, in pairs of name and value, as far as its folder tells."""
    config = run.config
    steps = f"{run.records[-1]['step']:,.0f}"
    planned = _field(config, "run", "num_steps")
    task = str(_field(config, "task", "name") or _field(config, "task", "class_path"))
    rates = [_field(config, "optim", name) for name in reversed(RATES)]
    found = (
        ("Backbone", _field(config, "backbone", "name")),
        ("Task", task.rsplit(".", 1)[-1].removesuffix("Config")),
        ("Data", _field(config, "data", "source")),
        ("Image side", _field(config, "image", "size")),
        ("Batch size", _field(config, "run", "batch_size")),
        ("Learning rates", f"{rates[0]}, head {rates[1]}" if all(rates) else ""),
        ("Steps", f"{steps} of {planned:,}" if isinstance(planned, int) else steps),
        ("Training loss", _last(run.series(f"{TRAIN}loss"))),
        ("Validation loss", _last(run.series(f"{VALIDATION}loss"))),
        ("Images per second", _median(run.series("speed/images_per_second"))),
        ("Waiting for data", _percent(run.series("speed/data_wait"))),
    )
    return tuple((name, str(value)) for name, value in found if value != "")


def _quantity_chart(run: Run, key: str) -> Chart:
    """Training as a line, validation as dots."""
    trained, validated = run.series(TRAIN + key), run.series(VALIDATION + key)
    series = []
    if trained:
        series.append(Series("training", binned(trained)))
    if validated:
        series.append(Series("validation", validated, color=1, measured=True))
    return line_chart(_words(key), series)


def _words(key: str) -> str:
    text = key.replace("_", " ").replace("/", ", ")
    return text[:1].upper() + text[1:]


def _last(points: tuple[Point, ...]) -> str:
    return number(points[-1][1]) if points else ""


def _median(points: tuple[Point, ...]) -> str:
    return number(statistics.median(value for _, value in points)) if points else ""


def _percent(points: tuple[Point, ...]) -> str:
    return f"{statistics.mean(value for _, value in points):.0%}" if points else ""


def _field(config: object, *path: str) -> object:
    """A nested field of a configuration; empty where it is not there."""
    for name in path:
        config = config.get(name, "") if isinstance(config, dict) else ""
    return "" if config is None else config
