"""Comparison of a run with its beginning: the same options, and the same data wherever they lie."""

import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from virtex import config as config_files
from virtex import distributed, files
from virtex.data.example import Source
from virtex.data.fingerprint import differences, fingerprint
from virtex.data.source_options import is_manifest
from virtex.engine.optim import unread
from virtex.engine.run import RunFolder
from virtex.engine.stored_config import stored_config
from virtex.errors import ConfigError, DataError, VirTexError, raise_all
from virtex.launcher import num_restarts
from virtex.models.backbone import BackboneConfig
from virtex.models.backbone_config import FROM_INIT
from virtex.pretrain_config import LAST, PretrainConfig, with_absolute_paths, with_steps
from virtex.run_data import RunData
from virtex.zoo.hub import LOCAL
from virtex.zoo.init import UNTRAINED, open_init

log = logging.getLogger("virtex")

FREE = (
    "out", "num_samples", "accept_changed_data", "loader.", "run.device", "run.log_every",
    "run.validate_every", "run.checkpoint_every", "run.keep_", "run.tensorboard",
    "run.elastic", "run.track", "run.project", "run.monitors",
    "early_stopping.batch_size", "early_stopping.num_workers",
    "early_stopping.patience",
    "data.root", "data.val_root", "data.image_root", "early_stopping.data.root",
    "early_stopping.data.val_root", "early_stopping.data.image_root", "tokenizer.original",
    "backbone.grad_checkpointing", "data.fault_limit", "data.cache_dir", "data.cache_size",
    "data.store_retries", "data.needs_root",
)  # fmt: skip
"""Options, or prefixes of options, that may change on resume: the weights stay the same."""
BY_FINGERPRINT = (
    "data.keep", "data.train_split", "data.val_split", "data.num_val_images", "data.image_column",
    "data.caption_column", "data.bad_object_limit", "data.missing_caption_limit",
    "data.mix",
)  # fmt: skip
"""Further ones, where a fingerprint of the data shows that these are the same."""
TOKENIZER, CONCEPTS = "tokenizer.tokenizer_path", "task.concepts_path"
"""Options that name files: of the first, a resumed run holds a copy; the second is read again."""
LANES = "data.num_lanes"
REMEDIES = {
    "init": " (a run that has begun needs no --init: leave it out, or give the first one, as a "
    "study has to)"
}
AUTO = "auto"


def with_stored_choices(config: PretrainConfig, folder: RunFolder) -> PretrainConfig:
    """Return options with what was settled when the run began, if it has.

    That is the precision that `auto` stood for, the number of steps that the epochs gave, the
    number of lanes, the network and its normalization, if these are those of `init`, and the paths
    of first weights and vocabulary, if there are none at those given: it needs them no longer.

    Raises:
        ConfigError: The run began with another number of epochs, or with one of steps.
    """
    in_lanes = config.data.num_lanes is None and is_manifest(config.data)
    takes_init = config.backbone.name == FROM_INIT or config.backbone.image_mean is None
    is_open = config.run.num_epochs is not None or config.run.precision == AUTO or in_lanes
    lacks_file = _is_missing(config.init) or _is_missing(config.tokenizer.tokenizer_path)
    if not (is_open or takes_init or lacks_file) or not folder.has_begun():
        return config
    whole = stored_config(folder, last=LAST)
    stored = whole["run"]
    config = _with_stored_paths(config, whole)
    if takes_init:
        first = config_files.from_dict(BackboneConfig, whole.get("backbone", {}))
        config = replace(config, backbone=_with_network(config.backbone, first))
    if in_lanes:
        num_lanes = whole["data"].get("num_lanes")
        config = replace(config, data=replace(config.data, num_lanes=num_lanes))
    if config.run.precision == AUTO:
        config = replace(config, run=replace(config.run, precision=stored["precision"]))
    return config if config.run.num_epochs is None else _with_steps_of(config, folder, stored)


def _with_stored_paths(config: PretrainConfig, stored: Mapping[str, Any]) -> PretrainConfig:
    """Return options with a run's first weights and vocabulary where the files have gone.

    That is where no file is at a path that, seen from the working directory, is the end of the
    run's own: the file was moved, or the command is given in another directory.
    """
    init = stored.get("init", "random")
    if _is_missing(config.init) and _is_end(config.init, init):
        config = replace(config, init=init)
    vocabulary = stored.get("tokenizer", {}).get("tokenizer_path") or ""
    if _is_missing(path := config.tokenizer.tokenizer_path) and _is_end(str(path), vocabulary):
        config = replace(
            config, tokenizer=replace(config.tokenizer, tokenizer_path=Path(vocabulary))
        )
    return config


def _is_missing(path: Path | str | None) -> bool:
    """Return whether an option names a file or folder that does not exist."""
    return path not in (None, *UNTRAINED) and not Path(str(path).removeprefix(LOCAL)).exists()


def _is_end(path: str, whole: str) -> bool:
    """Return whether a path, seen from the working directory, is the end of an absolute one."""
    earlier = Path(whole.removeprefix(LOCAL))
    seen = Path(os.path.relpath(path.removeprefix(LOCAL))).parts
    parts = tuple(part for part in seen if part != "..")
    return bool(parts) and earlier.is_absolute() and earlier.parts[-len(parts) :] == parts


def _with_network(backbone: BackboneConfig, first: BackboneConfig) -> BackboneConfig:
    """Return options with the network and normalization of a run, where `init` is to state them."""
    if backbone.name == FROM_INIT:
        options = {**first.options, **backbone.options}
        backbone = replace(backbone, name=first.name, options=options)
    if backbone.image_mean is None:
        backbone = replace(backbone, image_mean=first.image_mean, image_std=first.image_std)
    return backbone


def _with_steps_of(
    config: PretrainConfig, folder: RunFolder, stored: Mapping[str, Any]
) -> PretrainConfig:
    """Return options with the number of steps that the run's epochs gave."""
    data, num_steps = RunData.read(folder.path), stored["num_steps"]
    if data is None or data.num_epochs != config.run.num_epochs:
        began = (
            f"{num_steps} steps"
            if data is None or data.num_epochs is None
            else f"{data.num_epochs:g} epochs"
        )
        raise ConfigError(
            f"run.num_epochs is {config.run.num_epochs:g}, and the run in {folder.path} began with "
            f"{began}: give the same to resume it, or another --out to start a new run"
        )
    return with_steps(config, num_steps)


def resumes(config: PretrainConfig, folder: RunFolder) -> bool:
    """Return whether there is a run to resume.

    Raises:
        ConfigError: The run's options differ in a way that affects the weights; names each.
    """
    if not folder.has_begun():
        return False
    data = RunData.read(folder.path)
    earlier = with_absolute_paths(
        config_files.from_dict(PretrainConfig, stored_config(folder, last=LAST))
    )
    before, now = (
        config_files.flat(config_files.to_dict(options))
        for options in (earlier, with_absolute_paths(config))
    )
    names = {name for name in before.keys() | now.keys() if before.get(name) != now.get(name)}
    if "task.name" in names:  # each task has options of its own
        names = {name for name in names if name == "task.name" or not name.startswith("task.")}
    if "data.source" in names and AUTO in (before["data.source"], now["data.source"]) and data:
        names.remove("data.source")
    if not names & {"optim.optimizer", "optim.schedule"}:
        names -= {f"optim.{name}" for name in unread(config.optim)}
    free = FREE + (BY_FINGERPRINT if data else ()) + (("data.",) * config.accept_changed_data)
    changed = [
        _change(name, before, now)
        for name in sorted(names)
        if not name.startswith(free) and not _is_same_file(name, now.get(name), data)
    ]
    raise_all(
        ConfigError,
        f"{config.out} holds a run with other options (give the same to resume it, or another "
        "--out to start a new run)",
        changed,
    )
    return True


def _change(name: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return in words how an option changed."""
    if name != LANES or None not in (before.get(name), now.get(name)):
        return f"{name} was {before.get(name)!r}, now {now.get(name)!r}{REMEDIES.get(name, '')}"
    kinds = [
        "a folder of shards, in a permutation of all examples"
        if options.get(name) is None
        else f"a manifest, in {options[name]} lanes"
        for options in (before, now)
    ]
    root = before.get("data.root")
    remedy = f"resume it with --data.root {root}" if root else "resume it without --data.root"
    return f"the run reads {kinds[0]}, and now it would read {kinds[1]}: {remedy}"


def check_data(
    config: PretrainConfig,
    train: Source,
    validation: Source | None,
    *,
    resumed: bool,
    init_sha256: str | None = None,
) -> RunData:
    """See that a resumed run has the data that it began with; store and return what those are.

    The main process does it; all of them raise its errors.

    Args:
        init_sha256: Digest of the file that `config.init` names, for a run that begins.

    Raises:
        DataError: The training data differ, and `accept_changed_data` is not set.
    """

    def check() -> RunData:
        now = _data_of(config, train, validation, resumed=resumed)
        if init_sha256 is not None:
            now = replace(now, files={**now.files, "init": init_sha256})
        before = RunData.read(config.out) if resumed else None
        if resumed and before is None:
            log.info("%s is of an earlier version: the data now count as its own", config.out)
        if before is not None:
            now = _compared(before, now, config)
        if now != before:
            now.write(config.out)
        return now

    return distributed.on_main(check)


def check_files(config: PretrainConfig) -> None:
    """Raise a ConfigError if a file that the task or a new vocabulary needs is missing."""
    options = config_files.flat(config_files.to_dict(config))
    names = [CONCEPTS] if RunFolder(config.out).has_begun() else [CONCEPTS, TOKENIZER]
    missing = [
        f"{name} {options[name]}: no such file; give the path of one"
        for name in names
        if options.get(name) and not Path(options[name]).is_file()
    ]
    raise_all(ConfigError, "files that options name are missing", missing)


def _compared(before: RunData, now: RunData, config: PretrainConfig) -> RunData:
    """Return the data to store from now on, once they are found or accepted to be the same."""
    changes = differences(before.train, now.train)
    if CONCEPTS in before.files and before.files[CONCEPTS] != now.files.get(CONCEPTS):
        changes.append(f"{CONCEPTS}: other words")
    if changes and not config.accept_changed_data:
        raise_all(
            DataError,
            f"{config.out} holds a run on other data (give the same, wherever they lie; or go on "
            "with these by --accept_changed_data; or start a new run in another --out)",
            changes,
        )
    if changes:
        log.warning("the training data changed, which was accepted: %s", "; ".join(changes))
    if others := differences(before.validation or {}, now.validation or {}):
        log.warning("the validation data changed: %s", "; ".join(others))
    _compare_processes(before, now, config)
    return replace(
        now,
        files={**before.files, **now.files},
        num_epochs=before.num_epochs,
        changes=(*before.changes, *changes),
    )


def _compare_processes(before: RunData, now: RunData, config: PretrainConfig) -> None:
    """Say that the number of processes changed, or refuse it where nobody chose it."""
    if before.num_processes in (None, now.num_processes):
        return
    change = f"{now.num_processes} instead of {before.num_processes}"
    if num_restarts(os.environ) and not config.run.elastic:
        raise ConfigError(
            f"torchrun restarted {config.out} with another number of processes, {change}: a "
            "machine was lost or came back, and the run would not go on bit for bit. Give "
            "--run.elastic to let it; or give --nnodes one number, for which torchrun waits; or "
            "start the command again to go on with these."
        )
    log.log(
        logging.WARNING if config.run.elastic else logging.INFO,
        "%s goes on with another number of processes, %s: on the same data, but not bit for bit as "
        "it would have",
        config.out, change,
    )  # fmt: skip


def _data_of(
    config: PretrainConfig, train: Source, validation: Source | None, *, resumed: bool
) -> RunData:
    needs, options = config.task.needs, config_files.flat(config_files.to_dict(config))
    named = [name for name in (TOKENIZER, CONCEPTS)[resumed:] if options.get(name)]
    return RunData(
        fingerprint(train, needs),
        None if validation is None else fingerprint(validation, needs),
        files={name: files.sha256(Path(options[name])) for name in named},
        num_epochs=config.run.num_epochs,
        num_processes=distributed.world_size(),
    )


def _is_same_file(name: str, path: Any, data: RunData | None) -> bool:
    """Return whether an option names a file, now elsewhere, with the content that it had."""
    if data is None or path is None or data.files.get(name) is None:
        return False
    try:
        digest = open_init(path).sha256 if name == "init" else files.sha256(Path(path))
    except (OSError, VirTexError):
        return False
    return digest == data.files[name]
