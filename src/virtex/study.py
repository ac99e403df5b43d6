"""A table of experiments: runs what is missing, scores it, and writes the table.

A study's recipe lists rows: what each pretrains that the others do not. All else, the data and the
number of images seen among it, they share. Every run resumes by itself, and results that stand
already are not measured again, so that a study that was cut goes on where it was. Rows are
independent: `--only` lets several machines, or several processes of one, share a study.
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
from virtex.errors import ConfigError, listing
from virtex.pretrain import PretrainConfig, check, parse_pretrain, pretrain
from virtex.transfer import voc07
from virtex.transfer.command import open_splits
from virtex.transfer.protocol import Result

TABLE = "table.md"


@dataclass(frozen=True)
class Row:
    """One line of the table: an initialisation, pretrained once for each seed."""

    name: str
    """What the table calls it."""
    recipes: list[str] = field(default_factory=list)
    """Recipes of pretraining that follow the study's."""
    pretrain: dict[str, Any] | None = field(default_factory=dict)
    """Options of pretraining that differ from the study's; null: random weights, no pretraining."""
    seeds: list[int] = field(default_factory=lambda: [0])
    """A run for each; the table gives mean and deviation."""


@dataclass(frozen=True)
class StudyConfig:
    """Options of `virtex study`; the first four are the recipe's, the others the user's."""

    out: Path
    """Folder of the runs, the results and table.md; a study that stands there goes on."""
    rows: list[Row]
    """The lines of the table, in its order."""
    recipes: list[str] = field(default_factory=list)
    """Recipes of pretraining that all rows begin with."""
    pretrain: dict[str, Any] = field(default_factory=dict)
    """Options of pretraining that all rows share."""
    image_size: int = 224
    """Side of the images in the transfer, in pixels."""
    data: SourceConfig = field(default_factory=SourceConfig)
    """What is pretrained on."""
    target: SourceConfig = field(default_factory=lambda: SourceConfig(source="voc"))
    """What VOC07's protocol is run on; any source with labels of several classes an image."""
    num_workers: int = 2
    """Processes that decode images for the transfer, and threads that solve for classes."""
    leave_out_rare: bool = False
    """Leave out classes that too few images of `target` show, instead of refusing the data."""
    only: list[str] | str | None = None
    """The row to run, or a list of rows; the table is written from whatever is there."""


@dataclass(frozen=True)
class Run:
    """One seed of a row."""

    row: Row
    folder: Path
    options: PretrainConfig

    @property
    def result_path(self) -> Path:
        """Where its score goes."""
        return self.folder / "result.json"


def study(config: StudyConfig) -> Path:
    """Run what is missing of a study and write its table.

    Returns:
        The path of table.md.

    Raises:
        ConfigError: A mistake in the options of any row, before anything runs.
        DataError: A mistake in the data; in the target's before anything runs.
    """
    runs = planned_runs(config)
    check_scores(runs, config)
    wanted = chosen_rows(config)
    for run in runs:
        if run.row.name in wanted and not run.result_path.exists():
            carry_out(run, config)
    path = config.out / TABLE
    files.write(path, table(config, runs))
    return path


def planned_runs(config: StudyConfig) -> list[Run]:
    """Every seed of every row, with its options checked.

    Raises:
        ConfigError: Options that do not work, or others than a run that stands there began with;
            rows or seeds of one name; names in `only` that no row has.
    """
    folders = [config.out / re.sub(r"\W+", "_", row.name).lower() for row in config.rows]
    alike = [
        row.name
        for row, folder in zip(config.rows, folders, strict=True)
        if folders.count(folder) > 1 or len(set(row.seeds)) < len(row.seeds)
    ]
    if alike:
        raise ConfigError(
            f"rows {listing(alike)}: each needs a name of its own (letters and digits count), and "
            "each of its seeds once."
        )
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


def chosen_rows(config: StudyConfig) -> list[str]:
    """Names of the rows to run.

    Raises:
        ConfigError: `only` names rows that there are not.
    """
    names = [row.name for row in config.rows]
    if config.only is None:
        return names
    only = [config.only] if isinstance(config.only, str) else config.only
    unknown = [name for name in only if name not in names]
    if unknown:
        raise ConfigError(f"only: no row is called {listing(unknown)}; rows are {', '.join(names)}")
    return only


def carry_out(run: Run, config: StudyConfig) -> None:
    """Pretrain a run, or go on with it, and score what comes out."""
    is_random = run.row.pretrain is None
    if not is_random and pretrain(run.options).reason == "interrupted":
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
    """The results that are there, a row each, as Markdown; the best mean in bold."""
    results = {
        row.name: [
            Result.read(run.result_path)
            for run in runs
            if run.row is row and run.result_path.exists()
        ]
        for row in config.rows
    }
    means = {name: fmean(r.score for r in found) for name, found in results.items() if found}
    lines = [
        "| pretraining | images seen | VOC07 mAP | seeds |",
        "|---|---:|---:|---:|",
        *(
            _line(run, results[run.row.name], is_best=means[run.row.name] == max(means.values()))
            for run in runs
            if run.row.name in means and run.options.run.seed == run.row.seeds[0]
        ),
    ]
    return "\n".join(lines) + "\n"


def _line(run: Run, results: Sequence[Result], *, is_best: bool) -> str:
    scores = [result.score for result in results]
    score = f"{fmean(scores):.2f}"
    if is_best:
        score = f"**{score}**"
    if len(scores) > 1:
        score += f" ± {stdev(scores):.2f}"
    options = run.options.run
    num_images = 0 if run.row.pretrain is None else options.num_steps * options.batch_size
    return f"| {run.row.name} | {num_images:,} | {score} | {len(scores)} |"


def check_scores(runs: Sequence[Run], config: StudyConfig) -> None:
    """See that the scores that stand were measured as new ones will be.

    Raises:
        ConfigError: One was not.
        DataError: A mistake in the target's data.
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
    """What a row pretrains with: recipes, the study's data and options, then its own.

    Raises:
        ConfigError: They do not work together.
    """
    data = to_dict(config.data)
    for amount, whole in (("share", 1.0), ("num_captions", None)):
        if data[amount] == whole:  # then a recipe may say how much of the data it takes
            del data[amount]
    own = [{"data": data}, config.pretrain, row.pretrain or {}]
    own.append({"run": {"seed": seed}})
    recipes = [part for name in [*config.recipes, *row.recipes] for part in ("--config", name)]
    texts = [part for values in own if values for part in ("--config", yaml.safe_dump(values))]
    try:
        return parse_pretrain([*with_recipes(recipes, "pretrain"), *texts, "--out", str(out)])
    except ConfigError as error:
        raise ConfigError(f"row {row.name!r}: {error}") from error
