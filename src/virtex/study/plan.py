"""What a study will do: the run of each row and seed, checked before anything runs."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from virtex.config import to_dict, with_recipes
from virtex.engine.run import RunFolder
from virtex.errors import ConfigError, did_you_mean, listing, out_of_range, raise_all
from virtex.pretrain import PretrainConfig, parse_pretrain
from virtex.study.mistakes import Mistakes
from virtex.study.study_config import Row, Score, StudyConfig

MAX_RUNS = 500
"""Most runs, over all rows and seeds."""
MAX_NAME = 100
"""Most characters of a row's name, which becomes a folder's."""

OF_ROWS = "weights and their architecture are those of each row, by its init or pretrain"
OF_DRAWS = "random seeds are those of the rows, and `draws` of the score repeats it with others"
RESERVED = {
    **dict.fromkeys(("init", "backbone", "backbone_from"), OF_ROWS),
    **dict.fromkeys(("seed", "num_seeds"), OF_DRAWS),
    "out": "a study has a path for each result",
}
"""Options of a protocol that a score has no say in, and what has."""


@dataclass(frozen=True)
class Run:
    """The run of one row with one random seed."""

    row: Row
    folder: Path
    options: PretrainConfig
    """Options of the pretraining, as the row has them before its learning rate is tuned."""
    start: str = "random"
    """Weights that are scored where there is no pretraining."""

    @property
    def seed(self) -> int:
        """Random seed."""
        return self.options.run.seed

    @property
    def is_pretrained(self) -> bool:
        """Whether the row has a pretraining."""
        return self.row.pretrain is not None


def planned_runs(config: StudyConfig) -> list[Run]:
    """Return the run of every row and random seed.

    Raises:
        ConfigError: Options cannot be parsed, rows have the same name, seeds repeat, or `only`
            names an unknown row.
    """
    raise_all(ConfigError, "the study cannot work", _problems(config))
    chosen_rows(config)
    runs, mistakes = list[Run](), Mistakes()
    for row in rows_of(config):
        with mistakes.of(f"row {row.name!r}"):
            runs += _runs_of(config, row)
    mistakes.raise_all()
    return runs


def _runs_of(config: StudyConfig, row: Row) -> list[Run]:
    """Return the run of each random seed of a row."""
    runs, shared = [], _options(config, row, config.out)  # parsed once
    for seed in config.seeds_of(row):
        folder = config.out / folder_name(row.name) / f"seed_{seed}"
        options = _options(config, row, folder) if _keeps_defaults(config, folder) else shared
        start = row.init if row.root is None else str(config.roots[row.root])
        runs.append(Run(row, folder, with_seed(options, seed, out=folder), start))
    return runs


def rows_of(config: StudyConfig) -> list[Row]:
    """Return the rows whose data are given."""
    return [row for row in config.rows if row.root is None or row.root in config.roots]


def left_out(config: StudyConfig) -> list[str]:
    """Return the names in `roots` that rows and scores need and that are not given."""
    return sorted(_root_names(config) - {*config.roots})


def _root_names(config: StudyConfig) -> set[str]:
    names = {row.root for row in config.rows} | {score.root for score in config.scores}
    return {name for name in names if name is not None}


def with_seed(options: PretrainConfig, seed: int, *, out: Path) -> PretrainConfig:
    """Return the options of a run with another random seed and folder."""
    return replace(options, out=out, run=replace(options.run, seed=seed))


def folder_name(name: str) -> str:
    """Return the name of a row or column as that of a folder."""
    return re.sub(r"\W+", "_", name).lower()


def chosen_rows(config: StudyConfig) -> list[str]:
    """Return the names of the rows to run.

    Raises:
        ConfigError: `only` is empty or names an unknown row.
    """
    names = [row.name for row in rows_of(config)]
    if config.only is None:
        return names
    only = [config.only] if isinstance(config.only, str) else config.only
    if not only:
        raise ConfigError(f"only is empty: name rows, or leave it out; rows are {', '.join(names)}")
    roots = {row.name: row.root for row in config.rows if row.name not in names}
    if absent := [
        f"row {name!r}: give --roots.{roots[name]} DIR" for name in only if name in roots
    ]:
        raise_all(ConfigError, "only names rows whose data are not given", absent)
    unknown = [name for name in only if name not in names]
    if unknown:
        raise ConfigError(f"only: no row is called {listing(unknown)}; rows are {', '.join(names)}")
    return only


def _keeps_defaults(config: StudyConfig, folder: Path) -> bool:
    """Return whether a run goes on with the defaults that it began with, of an earlier version.

    Where rates are tuned, those of the run are no defaults, which would be scaled again.
    """
    return RunFolder(folder).has_begun() and not config.tune.factors


def _options(config: StudyConfig, row: Row, out: Path) -> PretrainConfig:
    """Return a row's pretraining options: recipes, then the study's options, then its own.

    Those of a run in `out` are the defaults.
    """
    data = to_dict(config.data)
    for amount, whole in (("share", 1.0), ("num_captions", None)):
        if data[amount] == whole:  # so that a recipe may set it
            del data[amount]
    own = [{"data": data}, config.pretrain, row.pretrain or {}]
    if row.root is not None and row.pretrain is not None:  # the layout is that of the row's recipes
        own = [config.pretrain, row.pretrain or {}, {"data": {"root": str(config.roots[row.root])}}]
    if config.best_from is not None and row.pretrain is not None:
        own.append({"early_stopping": _early_stopping(config)})
    own.append(config.row_options.get(row.name, {}))
    recipes = [part for name in [*config.recipes, *row.recipes] for part in ("--config", name)]
    texts = [part for values in own if values for part in ("--config", yaml.safe_dump(values))]
    return parse_pretrain([*with_recipes(recipes, "pretrain"), *texts, "--out", str(out)])


def _early_stopping(config: StudyConfig) -> dict[str, Any]:
    """Return the choice of the best checkpoint by VOC07 on the study's target."""
    return {
        "protocol": "voc07",
        "first_step": config.best_from,
        "data": to_dict(config.target),
        "image_size": config.image_size,
        "num_workers": config.num_workers,
        "leave_out_rare": config.leave_out_rare,
    }


def _problems(config: StudyConfig) -> list[str]:
    """Return what is wrong with rows, columns, seeds and tuning."""
    rows, seeds = config.rows, list(map(config.seeds_of, config.rows))
    if not rows:
        return [
            "rows is empty: list at least one, such as `rows: [{name: random, pretrain: null}]`"
        ]
    if (num_runs := sum(map(len, seeds))) > MAX_RUNS:
        return [f"{num_runs:,} runs in all rows are more than {MAX_RUNS}: divide the study"]
    problems = [*_of_names("row", [row.name for row in rows])]
    problems += [
        f"row {row.name[:MAX_NAME]!r}: give seeds of 0 or more, each of its seeds once"
        for row, own in zip(rows, seeds, strict=True)
        if not own or len(set(own)) < len(own) or min(own) < 0
    ]
    problems += [
        f"row {row.name[:MAX_NAME]!r} is pretrained: name the weights it begins with in its "
        "options, `pretrain: {init: ...}`"
        for row in rows
        if row.pretrain is not None and row.init != "random"
    ]
    known = ", ".join(sorted(_root_names(config))) or "none"
    problems += [
        f"roots names {name}, which no row or score has; they have {known}"
        for name in sorted({*config.roots} - _root_names(config))
    ]
    known_rows, known_scores = [row.name for row in rows], [one.name for one in config.scores]
    problems += _unknown("row_options", config.row_options, known_rows)
    problems += _unknown("score_options", config.score_options, known_scores)
    problems += out_of_range(config, {"best_from": (0, 2**40)})
    problems += _of_names("score", [score.name for score in config.scores])
    for score in config.scores:
        own = [*out_of_range(score, RANGES["score"]), *_of_options(config, score)]
        problems += [f"score {score.name!r}: {one}" for one in own]
    return problems + [f"tune: {problem}" for problem in _of_tuning(config)]


def _unknown(option: str, names: Iterable[str], known: Sequence[str]) -> list[str]:
    """Return what is wrong with the names for which an option holds options."""
    kind = option.partition("_")[0]
    return [
        f"{option} names the {kind} {name!r}, which there is not. {did_you_mean(name, known)}"
        for name in names
        if name not in known
    ]


def _of_options(config: StudyConfig, score: Score) -> list[str]:
    """Return what is wrong with the names of a score's options."""
    given = {**score.options, **config.score_options.get(score.name, {})}
    names = {name.partition(".")[0] for name in given} & RESERVED.keys()
    return [f"options has {name}: {RESERVED[name]}" for name in sorted(names)]


RANGES: dict[str, dict[str, tuple[float, float]]] = {
    "score": {"draws": (1, 100)},
    "tune": {"num_steps": (1, 2**40), "held_out": (0.05, 0.95), "seed": (0, 2**40)},
}


def _of_tuning(config: StudyConfig) -> list[str]:
    factors = config.tune.factors
    problems = out_of_range(config.tune, RANGES["tune"])
    if len(set(factors)) < len(factors) or any(not 0 < factor <= 1000 for factor in factors):
        problems.append(f"factors {factors} must be above 0, at most 1000, and each given once")
    return problems


def _of_names(kind: str, names: Sequence[str]) -> list[str]:
    """Return what is wrong with the names of rows or columns, which become those of folders."""
    folders, problems = list(map(folder_name, names)), []
    for name, folder in zip(names, folders, strict=True):
        shown = repr(name[:MAX_NAME])
        if not folder.strip("_"):
            problems.append(f"{kind} {shown}: give it a name with letters or digits")
        if len(name) > MAX_NAME:
            problems.append(f"{kind} {shown}...: give it a name of at most {MAX_NAME} characters")
        if folders.count(folder) > 1:
            problems.append(
                f"{kind} {shown}: give it a name of its own; only letters and digits count"
            )
    return problems
