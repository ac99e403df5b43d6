"""What a study will do: the run of each row and seed, checked before anything runs."""

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from virtex.config import to_dict, with_recipes
from virtex.engine.optim import scaled_milestones
from virtex.engine.run import RunFolder
from virtex.engine.stored_config import stored_config
from virtex.errors import CheckpointError, ConfigError, listing, raise_all
from virtex.models.backbone_config import FROM_INIT, BackboneConfig
from virtex.pretrain import PretrainConfig, parse_pretrain
from virtex.pretrain_config import LAST
from virtex.study.mistakes import Mistakes
from virtex.study.problems import problems_of
from virtex.study.study_config import GIVEN, TARGET, Row, StudyConfig, folder_name
from virtex.zoo.backbones import architecture_to_train
from virtex.zoo.init import open_init

SEED = re.compile("seed_([0-9]{1,18})")
OF_NETWORK = ("name", "options", "image_mean", "image_std")
"""Options of a backbone that the weights of `init` decide on."""


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
    """Return the run of every row and random seed, and of others that have a folder.

    Raises:
        ConfigError: Options cannot be parsed, rows have the same name, seeds repeat, or `only`
            names an unknown row.
    """
    raise_all(ConfigError, "the study cannot work", problems_of(config))
    chosen_rows(config)
    runs, mistakes = list[Run](), Mistakes()
    for row in rows_of(config):
        with mistakes.of(f"row {row.name!r}"):
            runs += _runs_of(config, row)
    mistakes.raise_all()
    lengths = {run.row.name: run.options.run.num_steps for run in runs if run.is_pretrained}
    if lengths and lengths.keys() == {*scored_by_last(config, runs)}:
        raise ConfigError(
            f"best_from {config.best_from} is after the last step of every row, at most "
            f"{max(lengths.values())}: give a lower one, or leave it out to score last checkpoints"
        )
    return runs


def scored_by_last(config: StudyConfig, runs: Sequence[Run]) -> list[str]:
    """Return the rows whose last checkpoint is scored, as `best_from` is beyond their steps."""
    short = [run for run in runs if run.is_pretrained and not _has_choice(config, run.options)]
    return list(dict.fromkeys(run.row.name for run in short)) if config.best_from else []


def _runs_of(config: StudyConfig, row: Row) -> list[Run]:
    """Return the run of each random seed of a row."""
    shared = _options(config, row, config.out)  # parsed once
    seeds = dict.fromkeys([*config.seeds_of(row), *_found_seeds(config, row)])
    return [_run_of(config, row, seed, shared) for seed in seeds]


def _run_of(config: StudyConfig, row: Row, seed: int, shared: PretrainConfig) -> Run:
    """Return the run of a row and random seed; `shared` are the options of a new run."""
    folder = _folder(config, row, seed)
    options = _options(config, row, folder) if _keeps_defaults(config, folder) else shared
    return Run(row, folder, with_seed(options, seed, out=folder), _start(config, row))


def with_found_seeds(config: StudyConfig, runs: Sequence[Run]) -> list[Run]:
    """Return runs by their rows, with those of seeds that have got a folder since, elsewhere."""
    known = {run.folder for run in runs}
    found = [
        _run_of(config, row, seed, _options(config, row, config.out))
        for row in rows_of(config)
        for seed in _found_seeds(config, row)
        if _folder(config, row, seed) not in known
    ]
    names = [row.name for row in rows_of(config)]
    return sorted([*runs, *found], key=lambda run: names.index(run.row.name))  # a stable sort


def is_to_run(config: StudyConfig, run: Run) -> bool:
    """Return whether this call carries a run out: others may have its row, or its random seed."""
    return run.row.name in chosen_rows(config) and run.seed in config.seeds_of(run.row)


def _found_seeds(config: StudyConfig, row: Row) -> list[int]:
    """Return the random seeds that an earlier call gave, or one elsewhere, in their order."""
    names = [path.name for path in (config.out / folder_name(row.name)).glob("seed_*")]
    return sorted(int(found[1]) for name in names if (found := SEED.fullmatch(name)))


def _folder(config: StudyConfig, row: Row, seed: int) -> Path:
    """Return the folder of the run of a row and random seed."""
    return config.out / folder_name(row.name) / f"seed_{seed}"


def _start(config: StudyConfig, row: Row) -> str:
    """Return the weights that a row begins with."""
    if row.pretrain is None and row.root is not None:
        return str(config.roots[row.root])
    if row.init == GIVEN:
        assert config.init is not None, "the study's options were checked"
        return config.init
    return row.init


def rows_of(config: StudyConfig) -> list[Row]:
    """Return the rows whose data are given."""
    return [row for row in config.rows if row.root in (None, TARGET, *config.roots)]


def left_out(config: StudyConfig) -> list[str]:
    """Return the names in `roots` that rows and scores need and that are not given."""
    return sorted(config.root_names() - {*config.roots})


def with_seed(options: PretrainConfig, seed: int, *, out: Path) -> PretrainConfig:
    """Return the options of a run with another random seed and folder."""
    return replace(options, out=out, run=replace(options.run, seed=seed))


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
    for option, default in (("share", 1.0), ("num_captions", None), ("needs_root", False)):
        if data[option] == default:  # so that a recipe may set it
            del data[option]
    own = [{"data": data}, _network(config), config.pretrain, row.pretrain or {}]
    if row.root == TARGET:
        own[0] = {"data": to_dict(config.target)}
    elif row.root is not None and row.pretrain is not None:  # the layout is that of its recipes
        own = [*own[1:], {"data": {"root": str(config.roots[row.root])}}]
    if row.pretrain is not None and row.init != "random":
        own.append({"init": _start(config, row)})
    own.append(config.row_options.get(row.name, {}))
    if row.times != 1:
        own.append(_longer(_options(config, replace(row, times=1.0), config.out), row))
    recipes = [part for name in [*config.recipes, *row.recipes] for part in ("--config", name)]
    named = with_recipes(recipes, "pretrain")

    def parsed(*layers: dict[str, Any]) -> PretrainConfig:
        texts = [part for one in layers if one for part in ("--config", yaml.safe_dump(one))]
        return parse_pretrain([*named, *texts, "--out", str(out)])

    options = parsed(*own)
    if row.pretrain is None or not _has_choice(config, options):
        return options
    return parsed({"early_stopping": _early_stopping(config)}, *own)


def _has_choice(config: StudyConfig, options: PretrainConfig) -> bool:
    """Return whether a run has checkpoints from `best_from` on, of which the best is scored."""
    if config.best_from is None:
        return False
    return options.run.num_epochs is not None or options.run.num_steps >= config.best_from


def _longer(options: PretrainConfig, row: Row) -> dict[str, Any]:
    """Return the length of a run and its milestones as options, times those of its row."""
    run, optim = options.run, options.optim
    length: dict[str, Any] = {"num_steps": max(1, round(run.num_steps * row.times))}
    if run.num_epochs is not None:
        length = {"num_epochs": run.num_epochs * row.times}
    longer = scaled_milestones(optim, row.times)
    return {"run": length, **({"optim": {"milestones": list(longer)}} if longer else {})}


def _network(config: StudyConfig) -> dict[str, Any]:
    """Return the options of the network of the study's `init`, if it decides on the network."""
    if config.init is None or config.names_network:
        return {}
    try:
        return {"backbone": dict(_network_of(config.init, config.image_size))}
    except CheckpointError:
        if (network := _stored_network(config)) is None:
            raise
        return {"backbone": network}


def _stored_network(config: StudyConfig) -> dict[str, Any] | None:
    """Return the options of the network of a row that has begun; None where there is none.

    A study whose rows are done needs the weights no longer, and rows that are not name them.
    """
    for row in config.rows:
        own = {**(row.pretrain or {}), **config.row_options.get(row.name, {})}
        for seed in config.seeds_of(row) if "backbone" not in own else ():
            folder = RunFolder(_folder(config, row, seed))
            if folder.has_begun():
                stored = stored_config(folder, last=LAST).get("backbone", {})
                return {name: value for name, value in stored.items() if name in OF_NETWORK}
    return None


@functools.cache
def _network_of(init: str, image_size: int) -> Mapping[str, Any]:
    """Return the options of the network of an INIT and of the normalization of its images."""
    requested = BackboneConfig(name=FROM_INIT)
    backbone = architecture_to_train(open_init(init), requested, image_size=image_size)
    return {name: value for name, value in to_dict(backbone).items() if name in OF_NETWORK}


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
