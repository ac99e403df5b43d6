"""A study: several pretraining runs, their transfer scores, and a table of these.

The recipe of a study lists the rows of the table, each with the options that differ from the
study's. An interrupted study resumes: runs resume, and existing scores are kept. Rows are
independent, so that several processes or machines can divide a study by `--only`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import yaml

from virtex import files
from virtex.config import to_dict, with_recipes
from virtex.data.source import SourceConfig
from virtex.engine.run import RunFolder
from virtex.errors import ConfigError, listing, raise_all
from virtex.pretrain import PretrainConfig, check, parse_pretrain
from virtex.pretrain_team import pretrain_in_team
from virtex.processes import Requested
from virtex.resume import with_stored_choices
from virtex.transfer import voc07
from virtex.transfer.command import open_splits
from virtex.transfer.protocol import Result

TABLE = "table.md"
MAX_RUNS = 500
"""Most runs, over all rows and seeds."""
MAX_NAME = 100
"""Most characters of a row's name, which becomes a folder's."""


@dataclass(frozen=True)
class Row:
    """A row of the table: an initialisation, pretrained once per random seed."""

    name: str
    """Name in the table."""
    recipes: list[str] = field(default_factory=list)
    """Pretraining recipes, applied after the study's."""
    pretrain: dict[str, Any] | None = field(default_factory=dict)
    """Pretraining options that differ from the study's; null: random weights, no pretraining."""
    seeds: list[int] = field(default_factory=lambda: [0])
    """Random seeds, one run each; the table shows mean and standard deviation."""


@dataclass(frozen=True)
class StudyConfig:
    """Options of `virtex study`; rows, recipes and pretrain belong in a recipe."""

    out: Path
    """Folder of the runs, the results and table.md; an existing study is resumed."""
    rows: list[Row]
    """Rows of the table, in order."""
    recipes: list[str] = field(default_factory=list)
    """Pretraining recipes of all rows."""
    pretrain: dict[str, Any] = field(default_factory=dict)
    """Pretraining options of all rows."""
    image_size: int = 224
    """Side of the images in the transfer, in pixels."""
    data: SourceConfig = field(default_factory=SourceConfig)
    """Data of the pretraining."""
    target: SourceConfig = field(default_factory=lambda: SourceConfig(source="voc"))
    """Data of the VOC07 protocol: any source with several labels per image."""
    num_workers: int = 2
    """Worker processes that decode images for the transfer, and threads that fit SVMs."""
    leave_out_rare: bool = False
    """Leave out classes with too few images in `target`, instead of raising an error."""
    only: list[str] | str | None = None
    """Row to run, or a list of rows; the table shows all existing scores."""


@dataclass(frozen=True)
class Run:
    """The run of one row with one random seed."""

    row: Row
    folder: Path
    options: PretrainConfig

    @property
    def result_path(self) -> Path:
        """Path of the run's score."""
        return self.folder / "result.json"


def study(config: StudyConfig, *, processes: Requested = "auto") -> Path:
    """Run the missing parts of a study, write its table, and return the path of table.md.

    Args:
        processes: Number of processes that pretrain a row.

    Raises:
        ConfigError: Options of a row cannot work; raised before anything runs.
        DataError: The data are missing or broken; for the target, raised before anything runs.
    """
    runs = planned_runs(config)
    check_scores(runs, config)
    names = chosen_rows(config)
    for run in runs:
        if run.row.name in names and not run.result_path.exists():
            carry_out(run, config, processes)
    path = config.out / TABLE
    files.write(path, table(config, runs))
    return path


def planned_runs(config: StudyConfig) -> list[Run]:
    """Return the run of every row and random seed, with checked options.

    Raises:
        ConfigError: Options cannot work or differ from those of an existing run, rows have the same
            name, seeds repeat, or `only` names an unknown row.
    """
    folders = [config.out / _folder_name(row) for row in config.rows]
    raise_all(ConfigError, "the study cannot work", _problems(config.rows))
    chosen_rows(config)
    runs = [
        Run(row, folder / f"seed_{seed}", _options(config, row, seed, folder / f"seed_{seed}"))
        for row, folder in zip(config.rows, folders, strict=True)
        for seed in row.seeds
    ]
    for run in runs:
        if run.row.pretrain is not None:
            check(run.options)
    return runs


def _folder_name(row: Row) -> str:
    return re.sub(r"\W+", "_", row.name).lower()


def _problems(rows: Sequence[Row]) -> list[str]:
    """Return what is wrong with the names and seeds of the rows."""
    if not rows:
        return [
            "rows is empty: list at least one, such as `rows: [{name: random, pretrain: null}]`"
        ]
    if (num_runs := sum(len(row.seeds) for row in rows)) > MAX_RUNS:
        return [f"{num_runs:,} runs in all rows are more than {MAX_RUNS}: divide the study"]
    names = list(map(_folder_name, rows))
    problems = []
    for row, name in zip(rows, names, strict=True):
        shown = repr(row.name[:MAX_NAME])
        if not name.strip("_"):
            problems.append(f"row {shown}: give it a name with letters or digits")
        if len(row.name) > MAX_NAME:
            problems.append(f"row {shown}...: give it a name of at most {MAX_NAME} characters")
        if names.count(name) > 1:
            problems.append(
                f"row {shown}: give it a name of its own; only letters and digits count"
            )
        if not row.seeds or len(set(row.seeds)) < len(row.seeds) or min(row.seeds) < 0:
            problems.append(f"row {shown}: give seeds of 0 or more, each of its seeds once")
    return problems


def chosen_rows(config: StudyConfig) -> list[str]:
    """Return the names of the rows to run.

    Raises:
        ConfigError: `only` is empty or names an unknown row.
    """
    names = [row.name for row in config.rows]
    if config.only is None:
        return names
    only = [config.only] if isinstance(config.only, str) else config.only
    if not only:
        raise ConfigError(f"only is empty: name rows, or leave it out; rows are {', '.join(names)}")
    unknown = [name for name in only if name not in names]
    if unknown:
        raise ConfigError(f"only: no row is called {listing(unknown)}; rows are {', '.join(names)}")
    return only


def carry_out(run: Run, config: StudyConfig, processes: Requested) -> None:
    """Pretrain or resume a run, and score its backbone."""
    is_random = run.row.pretrain is None
    if not is_random and pretrain_in_team(run.options, processes).reason == "interrupted":
        raise KeyboardInterrupt
    voc07.run(
        voc07.Voc07Config(
            init="random" if is_random else str(run.folder),
            out=run.result_path,
            data=config.target,
            backbone=run.options.backbone if is_random else None,
            leave_out_rare=config.leave_out_rare,
            image_size=config.image_size,
            num_workers=config.num_workers,
            seed=run.options.run.seed,
        )
    )


def table(config: StudyConfig, runs: Sequence[Run]) -> str:
    """Return the existing scores as a Markdown table, with the best mean in bold."""
    scores: dict[str, list[float]] = {}
    for run in runs:
        if run.result_path.exists():
            scores.setdefault(run.row.name, []).append(Result.read(run.result_path).score)
    best = max(map(fmean, scores.values()), default=0.0)
    lines = [f"| pretraining | images seen | {_headline(config)} | seeds |", "|---|---:|---:|---:|"]
    for run in runs:
        if run.row.name in scores and run.options.run.seed == run.row.seeds[0]:
            lines.append(_line(run, scores[run.row.name], best=best))
    return "\n".join(lines) + "\n"


def _headline(config: StudyConfig) -> str:
    """Return the name of the scores: of VOC07 itself, or of its protocol on other data."""
    name, source = voc07.MultiLabelSvm.headline, config.target.source
    return f"VOC07 {name}" if source == "voc" else f"{name} on {source}"


def _line(run: Run, scores: Sequence[float], *, best: float) -> str:
    mean = fmean(scores)
    options = with_stored_choices(run.options, RunFolder(run.folder)).run
    score = f"**{mean:.2f}**" if mean == best else f"{mean:.2f}"
    if len(scores) > 1:
        score += f" ± {stdev(scores):.2f}"
    num_images = 0 if run.row.pretrain is None else options.num_steps * options.batch_size
    return f"| {run.row.name} | {num_images:,} | {score} | {len(scores)} |"


def check_scores(runs: Sequence[Run], config: StudyConfig) -> None:
    """Check that existing scores have the data and settings of new ones.

    Raises:
        ConfigError: The data or settings of a score differ.
        DataError: The target's data are missing or broken.
    """
    train, test = open_splits(voc07.with_voc_splits(config.target))
    target = {"train": train.identity(), "test": test.identity()}
    settings = {"image_size": config.image_size, "leave_out_rare": config.leave_out_rare}
    for run in runs:
        if run.result_path.exists():
            result = Result.read(run.result_path)
            measured = {name: result.settings.get(name) for name in settings}
            if (result.data, measured) != (target, settings):
                raise ConfigError(
                    f"{run.result_path} was measured on other data, at another image_size or with "
                    "another leave_out_rare: remove it, or give --out a new folder."
                )


def _options(config: StudyConfig, row: Row, seed: int, out: Path) -> PretrainConfig:
    """Return a row's pretraining options: recipes, then the study's options, then its own."""
    data = to_dict(config.data)
    for amount, whole in (("share", 1.0), ("num_captions", None)):
        if data[amount] == whole:  # so that a recipe may set it
            del data[amount]
    own = [{"data": data}, config.pretrain, row.pretrain or {}, {"run": {"seed": seed}}]
    recipes = [part for name in [*config.recipes, *row.recipes] for part in ("--config", name)]
    texts = [part for values in own if values for part in ("--config", yaml.safe_dump(values))]
    try:
        return parse_pretrain([*with_recipes(recipes, "pretrain"), *texts, "--out", str(out)])
    except ConfigError as error:
        raise ConfigError(f"row {row.name!r}: {error}") from error
