"""What is wrong with the options of a study, before its rows are parsed."""

from collections import Counter
from collections.abc import Iterable, Sequence

from virtex.errors import CONTROLS, did_you_mean, listing, out_of_range
from virtex.study.study_config import (
    DRAW_STRIDE,
    GIVEN,
    TARGET,
    Row,
    Score,
    StudyConfig,
    columns_of,
    folder_name,
)
from virtex.zoo.init import UNTRAINED

MAX_RUNS = 500
"""Most runs, over all rows and seeds."""
MAX_NAME = 100
"""Most bytes of a row's name, in UTF-8, which becomes a folder's."""

OF_ROWS = "weights and their architecture are those of each row, by its init or pretrain"
OF_DRAWS = "random seeds are those of the rows, and `draws` of the score repeats it with others"
RESERVED = {
    **dict.fromkeys(("init", "backbone", "backbone_from"), OF_ROWS),
    **dict.fromkeys(("seed", "num_seeds"), OF_DRAWS),
    "out": "a study has a path for each result",
}
"""Options of a protocol that a score has no say in, and what has."""


def problems_of(config: StudyConfig) -> list[str]:
    """Return what is wrong with rows, columns, seeds and tuning."""
    if not config.rows:
        return [
            "rows is empty: list at least one, such as `rows: [{name: random, pretrain: null}]`"
        ]
    if (num_runs := sum(len(config.seeds_of(row)) for row in config.rows)) > MAX_RUNS:
        return [f"{num_runs:,} runs in all rows are more than {MAX_RUNS}: divide the study"]
    problems = [*_of_rows(config), *_of_roots(config)]
    problems += _unknown("row_options", config.row_options, [row.name for row in config.rows])
    problems += _unknown("score_options", config.score_options, [one.name for one in config.scores])
    problems += out_of_range(config, {"best_from": (0, 2**40)})
    if config.best_from is not None and config.target.source != "scenes" and not config.target.root:
        problems.append("best_from chooses checkpoints on target: give --target.root DIR")
    problems += _of_names("score", [score.name for score in config.scores])
    problems += _of_columns(config.scores)
    for score in config.scores:
        own = [*out_of_range(score, RANGES["score"]), *_of_options(config, score)]
        if score.root == TARGET:
            own.append(f"leave root out: {TARGET} is the data of scores without one")
        problems += [f"score {score.name!r}: {one}" for one in own]
    return problems + [f"tune: {problem}" for problem in _of_tuning(config)]


def _of_rows(config: StudyConfig) -> list[str]:
    """Return what is wrong with the names, seeds and weights of rows."""
    problems = _of_names("row", [row.name for row in config.rows])
    for row in config.rows:
        seeds, own = config.seeds_of(row), [*_of_start(row), *out_of_range(row, RANGES["row"])]
        if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
            own.append("give seeds of 0 or more, each of its seeds once")
        elif (num_draws := max((one.draws for one in config.scores), default=1)) > 1:
            own += _of_draws(seeds, num_draws)
        own += _unknown("score_recipes", row.score_recipes, [one.name for one in config.scores])
        problems += [f"row {row.name[:MAX_NAME]!r}: {one}" for one in own]
    named = [row.name for row in config.rows if row.init == GIVEN]
    if named and config.init is None:
        problems.append(
            f"rows {listing(named)} begin with given weights: give --init, a file, a run or a "
            "published name"
        )
    if config.init in UNTRAINED and not config.names_network:
        problems.append(
            f"init {config.init} states no network: name weights by --init, or a network by "
            "--pretrain.backbone.name"
        )
    return problems


def _of_draws(seeds: Sequence[int], num_draws: int) -> list[str]:
    """Return what is wrong with seeds of which two would draw the same labels."""
    drawn = Counter(seed + DRAW_STRIDE * draw for seed in seeds for draw in range(num_draws))
    if max(drawn.values()) == 1:
        return []
    return [
        f"seeds {list(seeds)} draw the same labels twice: {DRAW_STRIDE} times a draw's number is "
        "added to each, so give seeds that differ in the last three digits"
    ]


def _of_columns(scores: Sequence[Score]) -> list[str]:
    """Return what is wrong with the names of columns, which those of numbers are part of."""
    names = [name for score in scores for name in columns_of(score)]
    return [
        f"two columns are called {name!r}: give their scores other names"
        for name in dict.fromkeys(names)
        if names.count(name) > 1
    ]


def _of_roots(config: StudyConfig) -> list[str]:
    names = config.root_names()
    known = listing(sorted(names), limit=20) or "none"
    return [
        f"roots names {name}, which no row or score has; they have {known}"
        for name in sorted({*config.roots} - names)
    ]


def _of_start(row: Row) -> list[str]:
    """Return what is wrong with the weights or data that a row begins with."""
    if row.pretrain is None and row.root == TARGET:
        return [f"root {TARGET} is data to train on, and this row has no pretraining"]
    if row.pretrain is None and row.root is not None and row.init != "random":
        return ["without pretraining, root and init both name weights: leave one of them out"]
    if row.pretrain is not None and row.init != "random" and "init" in row.pretrain:
        return ["init and pretrain.init both name weights: leave one of them out"]
    return []


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
    "row": {"times": (0.001, 1000)},
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
        if len(name.encode()) > MAX_NAME:
            problems.append(f"{kind} {shown}...: give it a name of at most {MAX_NAME} bytes")
        if CONTROLS.search(name):
            problems.append(
                f"{kind} {shown}: give it a name without line breaks and control characters"
            )
        if folders.count(folder) > 1:
            problems.append(
                f"{kind} {shown}: give it a name of its own; only letters and digits count"
            )
    return problems
