"""The learning rate of each row: short runs, scored on a part of the target's training images.

Every row gets the same grid of factors and the same number of steps. The images that score were
held out of the target's training images, so that its test images choose nothing.
"""

import json
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from virtex import distributed, files
from virtex.config import to_dict
from virtex.data.example import Source, Subset
from virtex.data.source import Needs, open_source
from virtex.data.subsets import held_out
from virtex.engine.optim import scaled_milestones
from virtex.engine.run import RunFolder
from virtex.errors import ConfigError, DataError, DivergedError, listing, raise_all
from virtex.options.bounded_yaml import load_json
from virtex.pretrain import PretrainConfig
from virtex.pretrain_team import pretrain_in_team
from virtex.processes import Requested
from virtex.study.plan import Run, with_seed
from virtex.study.study_config import TARGET, Row, StudyConfig, Tuning
from virtex.transfer.choosing import choosing_data, choosing_protocol
from virtex.transfer.command import TransferConfig, extraction
from virtex.transfer.identities import identities_of, same_data
from virtex.transfer.protocol import MAX_BYTES, Protocol, Result
from virtex.zoo.backbones import build_backbone, origin_of
from virtex.zoo.init import open_init

log = logging.getLogger("virtex")
OPTIONS = "options.json"
"""File beside the trials of a row, with the options of `tune`."""
LOCK = ".lock"
"""File whose lock a process holds that carries out a row's trials, or, in its folder, a trial."""
NOT_HELD_OUT = "not_held_out.txt"
"""File beside the trials of a row that learns from the target, with the ids of its images there."""


@dataclass(frozen=True)
class Trial:
    """A short run of a row with one factor of its learning rates."""

    factor: float
    options: PretrainConfig

    @property
    def path(self) -> Path:
        """Path of the trial's score."""
        return self.options.out / "result.json"

    @property
    def lost_path(self) -> Path:
        """Path of the error of a trial that diverged, in place of a score."""
        return self.options.out / "diverged.txt"


def is_tuned(config: StudyConfig, row: Row) -> bool:
    """Return whether the learning rates of a row are chosen among several."""
    return bool(config.tune.factors) and row.pretrain is not None


def trials(config: StudyConfig, run: Run) -> list[Trial]:
    """Return the trials of a run's row, which all of its runs share; none if it is not tuned.

    They end with their last checkpoint: the best one is chosen by the target's test images. A row
    that learns from the target does so without the images that score: it would know their labels.
    """
    if not is_tuned(config, run.row):
        return []
    length = replace(run.options.run, num_steps=config.tune.num_steps, num_epochs=None)
    last = replace(run.options.early_stopping, protocol="none", first_step=0, patience=0)
    data = run.options.data
    if run.row.root == TARGET:
        data = replace(data, keep=_folder(run) / NOT_HELD_OUT)
    optim = run.options.optim
    if run.options.run.num_epochs is None:
        share = config.tune.num_steps / run.options.run.num_steps
        optim = replace(optim, milestones=scaled_milestones(optim, share))
    short = replace(run.options, data=data, run=length, optim=optim, early_stopping=last)
    return [
        Trial(
            factor,
            with_seed(
                scaled(short, factor), config.tune.seed, out=_folder(run) / f"factor_{factor:g}"
            ),
        )
        for factor in config.tune.factors
    ]


def scaled(options: PretrainConfig, factor: float) -> PretrainConfig:
    """Return options with both learning rates times a factor."""
    lr, backbone_lr = options.optim.lr, options.optim.backbone_lr
    optim = replace(options.optim, lr=factor * lr, backbone_lr=factor * backbone_lr)
    return replace(options, optim=optim)


def tuned(config: StudyConfig, run: Run) -> PretrainConfig:
    """Return the options of a run with the best factor so far; without trials as the row has them.

    Equal scores prefer the first factor.
    """
    scores = _scores(config, run)
    return scaled(run.options, max(scores, key=scores.__getitem__)) if scores else run.options


def _scores(config: StudyConfig, run: Run) -> dict[float, float]:
    """Return the scores so far by their factors."""
    return {
        trial.factor: Result.read(trial.path).score
        for trial in trials(config, run)
        if trial.path.exists()
    }


def check_grids(config: StudyConfig, runs: Sequence[Run]) -> None:
    """Raise ConfigError for rows that have begun with other factors or options of `tune`.

    A tuned row whose folder has no options, of an earlier version, is known by its trials alone.
    """
    problems: dict[str, str] = {}
    for run in runs:
        if run.row.name not in problems and (what := _other_grid(config, run)):
            problems[run.row.name] = f"row {run.row.name!r} {what}"
    about = (
        "the learning rates of rows that have begun were chosen otherwise: keep `tune` as it was, "
        "or give --out a new folder"
    )
    raise_all(ConfigError, about, [*problems.values()])


def _other_grid(config: StudyConfig, run: Run) -> str:
    """Return how the tuning of a row that has begun differs from the study's; empty if not."""
    now = to_dict(config.tune) if is_tuned(config, run.row) else {}
    path = _folder(run) / OPTIONS
    if path.exists():
        stored = load_json(files.read_text(path, most=MAX_BYTES), "options")
        before = {**to_dict(Tuning()), **stored}
        changes = [name for name in {**now, **before} if before.get(name) != now.get(name)]
        return ", ".join(f"{name} {before.get(name)}, now {now.get(name)}" for name in changes)
    has_begun = RunFolder(run.folder).has_begun()
    tried = {trial.parent.name for trial in _folder(run).glob("factor_*/result.json")}
    planned = {trial.options.out.name for trial in trials(config, run)}
    if tried - planned or (has_begun and tried != planned):
        return f"tried {listing(sorted(tried)) or 'none'}, now {listing(sorted(planned)) or 'none'}"
    return ""


def _folder(run: Run) -> Path:
    """Return the folder of the trials of a run's row."""
    return run.folder.parent / "tuning"


def tune(config: StudyConfig, run: Run, processes: Requested, runs: Sequence[Run] = ()) -> None:
    """Carry out the missing trials of a run's row; a rate at which training diverges is lost.

    All random seeds share the trials, so that another process that carries them out is waited for.
    A trial that another row has with the same options, as one that is longer has, is not repeated.

    Args:
        runs: Those of the study, which may have such trials.

    Raises:
        ConfigError: Another process has tried other rates, or on other data, meanwhile.
        DivergedError: Training diverges at all rates.
    """
    if not is_tuned(config, run.row):
        return
    before = _tried(config, run)
    subject = f"the choice of learning rates of row {run.row.name!r}"
    with files.locked(_folder(run) / LOCK, subject=subject, patience=math.inf):
        check_grids(config, [run])
        if _tried(config, run) != before:
            check_trials(config, [run])
        _write_options(config, run)
        for trial in trials(config, run):
            if not _is_tried(trial):
                _wait_for(trial)
            if not _is_tried(trial) and not _take_from_another_row(config, runs, trial):
                _try(config, run, trial, processes)
    if all(trial.lost_path.exists() for trial in trials(config, run)):
        raise DivergedError(
            f"training diverged at all factors {config.tune.factors} of the learning rates: "
            "give lower ones by --tune.factors, and --out a new folder"
        )
    scores = _scores(config, run)
    if len(set(scores.values())) == 1 < len(scores):
        log.warning(
            "row %r: all of its learning rates score the same, so the first factor, %g, is taken",
            run.row.name,
            config.tune.factors[0],
        )


def _is_tried(trial: Trial) -> bool:
    return trial.path.exists() or trial.lost_path.exists()


def _tried(config: StudyConfig, run: Run) -> list[float]:
    """Return the factors that were tried so far, by whichever process."""
    return [trial.factor for trial in trials(config, run) if _is_tried(trial)]


def _write_options(config: StudyConfig, run: Run) -> None:
    """Write how the rates of a row are chosen, and which images its trials may learn from."""
    files.write(_folder(run) / OPTIONS, json.dumps(to_dict(config.tune), indent=2) + "\n")
    if run.row.root == TARGET:
        train, _ = _halves(config)
        ids = map(train.image_id, range(len(train)))
        files.write(_folder(run) / NOT_HELD_OUT, "".join(f"{one}\n" for one in ids))


def _wait_for(trial: Trial) -> None:
    """Wait for a process that trains without the row's lock.

    It was started by one that was killed since, or is of an earlier version.
    """
    folder = trial.options.out
    with files.locked(folder / LOCK, subject=f"the run {folder}", patience=math.inf):
        pass


def _take_from_another_row(config: StudyConfig, runs: Sequence[Run], trial: Trial) -> bool:
    """Copy the score of another row's trial with the same options, or its error; say if any has."""
    folder = trial.options.out
    for other in (other for run in runs for other in trials(config, run) if _is_tried(other)):
        if other.options.out != folder and replace(other.options, out=folder) == trial.options:
            path = other.path if other.path.exists() else other.lost_path
            files.write(folder / path.name, path.read_bytes())
            log.info("%s is that of %s, which has the same options", folder, other.options.out)
            return True
    return False


def _try(config: StudyConfig, run: Run, trial: Trial, processes: Requested) -> None:
    """Carry out a trial, and write its score, or the error where training diverged."""
    try:
        if pretrain_in_team(trial.options, processes).reason == "interrupted":
            raise KeyboardInterrupt
    except DivergedError as error:
        log.warning("row %r, factor %g is lost: %s", run.row.name, trial.factor, error)
        files.write(trial.lost_path, f"{error}\n")
    else:
        _score(config, trial).write(trial.path)


def _score(config: StudyConfig, trial: Trial) -> Result:
    train, test = _halves(config)
    chosen = _protocol(config, trial.options.out, num_train=len(train))
    opened = open_init(str(trial.options.out))
    with distributed.process_group(chosen.device):
        backbone = build_backbone(opened)
        origin = origin_of(opened, backbone.config).record()
        return chosen.run(backbone, train=train, test=test, initialisation=origin)


def check_trials(config: StudyConfig, runs: Sequence[Run]) -> None:
    """Check the data that choose the learning rates, and existing trials.

    Raises:
        ConfigError: An existing trial was scored on other data, or otherwise.
        DataError: The training images are too few to be divided, or their parts show other classes.
    """
    if not config.tune.factors:
        return
    train, test = _halves(config)
    chosen = _protocol(config, config.out, num_train=len(train))
    chosen.check(train, test)
    _check_held_out(config, train, test)
    expected = identities_of(train, test)
    paths = {trial.path for run in runs for trial in trials(config, run)}
    problems = []
    for path in sorted(path for path in paths if path.exists()):
        result = Result.read(path)
        what = "other data" if not same_data(result.data, expected) else _difference(result, chosen)
        problems += [f"{path} was measured with {what}"] if what else []
    about = "existing trials are of another study: remove them, or give --out a new folder"
    raise_all(ConfigError, about, problems)


def _check_held_out(config: StudyConfig, train: Source, test: Source) -> None:
    """Raise DataError if most images that score are of classes that the other part lacks."""
    if config.tune.protocol != "linear":  # voc07 checks each class itself
        return
    known = {train.labels(index)[0] for index in range(len(train))}
    labels = [test.labels(index)[0] for index in range(len(test))]
    lacking = [label for label in labels if label not in known]
    if 2 * len(lacking) > len(labels):
        raise DataError(
            f"{len(set(lacking))} of the {len(set(labels))} classes of the images held out have no "
            f"other training image, and these are {len(lacking)} of the {len(labels)} images: no "
            "rate would look better than another. Give more images of each class, another "
            "tune.held_out or tune.seed, or no tune.factors."
        )


def _difference(result: Result, chosen: Protocol) -> str:
    """Return the first difference of a trial's protocol from that of the study; empty for none."""
    before = {"protocol": result.protocol, **result.settings}
    now = json.loads(json.dumps({"protocol": chosen.name, **chosen.settings()}))
    return next(
        (
            f"{name} {before.get(name)}, now {now.get(name)}"
            for name in [*now, *(before.keys() - now.keys())]
            if before.get(name) != now.get(name)
        ),
        "",
    )


def _protocol(config: StudyConfig, out: Path, *, num_train: int) -> Protocol:
    """Return the protocol that scores the trials, on frozen features."""
    shared = TransferConfig(
        init="random", out=out, image_size=config.image_size, num_workers=config.num_workers
    )
    return choosing_protocol(
        config.tune.protocol,
        extraction(shared),
        data=config.target,
        num_train=num_train,
        leave_out_rare=config.leave_out_rare,
    )


def _halves(config: StudyConfig) -> tuple[Source, Source]:
    """Return the target's training images in two parts: to train on, and held out to score."""
    target = choosing_data(config.tune.protocol, config.target)
    whole = open_source(target, split="train", needs=Needs(labels=True))
    assert whole is not None, "every source has training images"
    ids = map(whole.image_id, range(len(whole)))
    is_held = held_out(ids, config.tune.held_out, seed=config.tune.seed)
    return Subset(whole, np.flatnonzero(~is_held)), Subset(whole, np.flatnonzero(is_held))
