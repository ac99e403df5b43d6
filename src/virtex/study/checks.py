"""Checks of a study before its first row runs: of options, data and weights."""

import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from virtex import files
from virtex.config import to_dict
from virtex.data.fingerprint import differences
from virtex.engine.run import RunFolder
from virtex.errors import ConfigError, DataError, VirTexError, raise_all
from virtex.options.bounded_yaml import load_json
from virtex.predict.loading import open_whole_model
from virtex.pretrain import PretrainConfig, check, check_inputs
from virtex.run_data import RunData
from virtex.study.mistakes import Mistakes
from virtex.study.plan import Run, is_to_run
from virtex.study.scores import (
    Measurement,
    binding,
    measurements,
    options_of,
    scores_of,
)
from virtex.study.study_config import Score, StudyConfig
from virtex.study.tuning import check_grids, check_trials, trials, tuned
from virtex.transfer.command import architecture
from virtex.transfer.identities import Identities, same_data
from virtex.transfer.protocol import MAX_BYTES, Result, digest
from virtex.transfer.protocols import PROTOCOLS
from virtex.transfer.whole_model import WholeModelConfig
from virtex.zoo.backbones import architecture_of, build_backbone, origin_of
from virtex.zoo.init import UNTRAINED, open_init, plain_init


def check_all(config: StudyConfig, runs: Sequence[Run]) -> None:
    """Check the options, data and weights of all rows and columns, and what exists against them.

    Data and weights of rows that have all their scores, or are not to run, are not opened.

    Raises:
        VirTexError: All that is wrong.
    """
    check_grids(config, runs)
    mistakes = Mistakes()
    for score in scores_of(config):
        for recipe, row in {one.row.score_recipes.get(score.name): one.row for one in runs}.items():
            of_recipe = f", by recipe {recipe} of row {row.name!r}" if recipe else ""
            with mistakes.of(f"score {score.name!r}{of_recipe}"):
                options_of(config, score, row)
    can_score = not mistakes.errors
    of_runs = [(run, list(measurements(config, run)) if can_score else []) for run in runs]
    _check_options(config, runs, mistakes)
    unfinished = [
        (run, own)
        for run, own in of_runs
        if is_to_run(config, run) and not all(one.path.exists() for one in own)
    ]
    _check_rows(unfinished, mistakes)
    planned = [one for _, own in of_runs for one in own]
    identities = _check_scores(planned, mistakes)
    with mistakes.of("tune"):
        check_trials(config, runs)
    mistakes.raise_all()
    check_same_images(runs)
    _check_existing(planned, identities)


def check_same_images(runs: Sequence[Run]) -> None:
    """Raise DataError if rows whose options name the same data were trained on different ones."""
    first: dict[str, tuple[Run, RunData]] = {}
    problems: dict[str, None] = {}
    for run in runs:
        data = RunData.read(run.folder) if run.is_pretrained else None
        if data is None:
            continue
        key = digest([to_dict(run.options.data), str(run.options.task.needs)])
        other, before = first.setdefault(key, (run, data))
        if found := differences(before.train, data.train):
            names = f"rows {other.row.name!r} and {run.row.name!r}"
            problems[f"{names}: {'; '.join(found)} ({other.folder} and {run.folder})"] = None
    about = (
        "data changed while the study ran, and its rows do not compare: give all rows the same, in "
        "a new --out, or remove the folders of those on other data"
    )
    raise_all(DataError, about, [*problems])


def _check_options(config: StudyConfig, runs: Sequence[Run], mistakes: Mistakes) -> None:
    """Check each row's pretraining options, and all that has begun against them."""
    checked, sha256_of = set[str](), functools.cache(_sha256_of)
    for run in runs:
        planned = [trial.options for trial in trials(config, run)]
        planned += [tuned(config, run)] if run.is_pretrained else []
        for options in planned:
            # options that differ in seed, rate and length alone cannot work, or do, together
            if run.row.name not in checked or RunFolder(options.out).has_begun():
                checked.add(run.row.name)
                with mistakes.of(f"row {run.row.name!r}"):
                    check(options)
                    _check_first_weights(options, sha256_of)


def _check_first_weights(options: PretrainConfig, sha256_of: Callable[[str], str | None]) -> None:
    """Raise ConfigError if the file that a run began with has other content now.

    The run itself needs it no longer, but the study's other rows and seeds would begin with it.
    """
    if not (RunFolder(options.out).has_begun() and Path(options.init).exists()):
        return
    data = RunData.read(options.out)
    before, now = data and data.files.get("init"), sha256_of(options.init)
    if before is not None and now is not None and before != now:
        raise ConfigError(
            f"{options.out} began with init {options.init} of SHA-256 {before}, and the file now "
            f"has SHA-256 {now}: give the weights that it began with, or --out a new folder"
        )


def _check_rows(runs: Sequence[tuple[Run, Sequence[Measurement]]], mistakes: Mistakes) -> None:
    """Open the data of each pretraining once, and the weights that are scored without any."""
    opened: set[str] = set()
    for run, planned in runs:
        options = run.options
        key = digest([run.start, to_dict(options.backbone)])
        if run.is_pretrained:
            key = digest([to_dict(options.data), str(options.task.needs), options.init])
        if key not in opened:
            opened.add(key)
            with mistakes.of(f"row {run.row.name!r}"):
                _open_inputs(run, planned)


def _open_inputs(run: Run, planned: Sequence[Measurement]) -> None:
    """Open what a run begins with."""
    if run.is_pretrained:
        check_inputs(run.options)
        return
    named = run.options.backbone if run.start in UNTRAINED else None
    build_backbone(open_init(run.start), config=named)
    for one in planned:
        if isinstance(one.options, WholeModelConfig):
            open_whole_model(run.start, has_tokenizer=one.options.tokenizer is not None)


def _check_scores(planned: Sequence[Measurement], mistakes: Mistakes) -> dict[str, Identities]:
    """Check the options and data of each column once, and return the identities of these."""
    identities: dict[str, Identities] = {}
    for name, one in {one.score.name: one for one in reversed(planned)}.items():
        with mistakes.of(f"score {name!r}"), naming_data(one.score):
            one.options.check()
            sources = PROTOCOLS[one.score.protocol].open_images(one.options)
            identities[name] = {role: source.identity() for role, source in sources.items()}
    return identities


@contextmanager
def naming_data(score: Score) -> Iterator[None]:
    """Say in errors of a score's data, which name --data options, what these are in a study."""
    try:
        yield
    except VirTexError as error:
        root, names = score.root, str(error)
        if "data" in score.options or not any(one in names for one in ("data.", "--data")):
            raise
        here = "--data.* is --target.*" if root is None else f"--data.root is --roots.{root}"
        raise type(error)(f"(here {here}) {error}") from error


def _check_existing(planned: Sequence[Measurement], identities: dict[str, Identities]) -> None:
    """Raise ConfigError if scores exist that were measured with other options or data."""
    sha256_of = functools.cache(_sha256_of)
    problems = []
    for one in planned:
        if one.path.exists():
            result = Result.read(one.path)
            what = _difference(one, result, identities[one.score.name])
            what = what or _other_weights(one.run, result.initialisation, sha256_of)
            what = what or _other_backbone(one, result.initialisation)
            problems += [f"{one.path} was measured with {what}"] if what else []
    about = "existing scores are of another study: remove them, or give --out a new folder"
    raise_all(ConfigError, about, problems)


def _difference(one: Measurement, result: Result, identities: Identities) -> str:
    """Return the first difference of an existing score from a planned one; empty for none."""
    now = binding(one.options)
    before = dict(result.settings)
    if one.options_path.exists():
        before = load_json(files.read_text(one.options_path, most=MAX_BYTES), "options")
    for name, value in json.loads(json.dumps(now)).items():
        if name in before and before[name] != value:
            return f"{name} {before[name]}, now {value}"
    return "" if same_data(result.data, identities) else "other data"


def _other_weights(
    run: Run, recorded: Mapping[str, Any], sha256_of: Callable[[str], str | None]
) -> str:
    """Return how the recorded origin of weights differs from that of a row; empty if not.

    A pretraining is checked by its options, and the weights of a finished row may be gone.
    """
    before, now = map(plain_init, (str(recorded["init"]), run.start))
    if run.is_pretrained:
        is_own = Path(before).parts[-2:] == run.folder.parts[-2:]
        return "" if is_own else f"init {before}, now a pretraining"
    if before == now and (now in UNTRAINED or not Path(now).exists()):
        return ""
    if {before, now} & UNTRAINED.keys():
        return f"init {before}, now {now}"
    first, second = recorded.get("sha256"), sha256_of(now)
    if first == second and first is not None:
        return ""
    return f"init {before} of SHA-256 {first}, now {now} of SHA-256 {second}"


def _other_backbone(one: Measurement, recorded: Mapping[str, Any]) -> str:
    """Return how the recorded network differs from that of a row whose weights state none."""
    before = recorded.get("backbone")
    if one.run.is_pretrained or one.run.start not in UNTRAINED or before is None:
        return ""
    opened = open_init(one.run.start)
    planned = origin_of(opened, architecture_of(opened, architecture(one.options))).record()
    now = json.loads(json.dumps(planned["backbone"]))
    changed = [name for name in now if name in before and before[name] != now[name]]
    return ", ".join(f"backbone.{name} {before[name]}, now {now[name]}" for name in changed)


def _sha256_of(init: str) -> str | None:
    """Return the SHA-256 of the weights that INIT names; None if they cannot be read."""
    with suppress(VirTexError):
        return open_init(init).sha256
    return None
