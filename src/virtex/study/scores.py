"""The columns of a study: a transfer protocol for each, with its options and its results.

The options of a score lie beside it, so that a score that was measured otherwise is never taken for
one of this study.
"""

import functools
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from virtex import files
from virtex.config import flat, parse, to_dict, with_recipes
from virtex.engine.inference import InferenceConfig
from virtex.errors import ConfigError, VirTexError, did_you_mean, listing
from virtex.study.plan import Run
from virtex.study.study_config import (
    DRAW_STRIDE,
    Row,
    Score,
    StudyConfig,
    columns_of,
    folder_name,
)
from virtex.transfer import voc07
from virtex.transfer.command import CommandConfig, TransferConfig
from virtex.transfer.image_classification import ImageClassificationConfig
from virtex.transfer.protocol import Result
from virtex.transfer.protocols import PROTOCOLS
from virtex.zoo import models
from virtex.zoo.init import UNTRAINED, open_init
from virtex.zoo.released import released_kind

log = logging.getLogger("virtex")
OF_CAPTIONS = ("captioning", "retrieval", "zero-shot")
"""Protocols of a whole model, which reads captions."""
FREE = ("init", "out", "backbone", "batch_size", "device", "num_workers", "loader.", "data.")
"""Options, or prefixes of options, that a stored score may differ in: the data are compared by
their content."""


@dataclass(frozen=True)
class Measurement:
    """One draw of one score of one run."""

    run: Run
    score: Score
    options: CommandConfig
    """Options of the protocol; `out` is the result's file."""

    @property
    def path(self) -> Path:
        """Path of the result."""
        return self.options.out

    @property
    def options_path(self) -> Path:
        """Path of the options that the result was measured with."""
        return self.path.with_suffix(".options.json")

    def carry_out(self) -> None:
        """Measure, and write the options and the result."""
        text = json.dumps(binding(self.options), indent=2) + "\n"
        files.write(self.options_path, text)
        PROTOCOLS[self.score.protocol].run(self.options)


def scores_of(config: StudyConfig) -> list[Score]:
    """Return the columns of the table whose data are given, by default VOC07 alone."""
    if config.scores:
        return [one for one in config.scores if one.root is None or one.root in config.roots]
    headline, source = voc07.MultiLabelSvm.headline, config.target.source
    return [Score(f"VOC07 {headline}" if source == "voc" else f"{headline} on {source}")]


def measurements(config: StudyConfig, run: Run) -> Iterator[Measurement]:
    """Yield the measurements of a run.

    Raises:
        ConfigError: Unknown protocols, or options that a protocol does not have.
    """
    for score in scores_of(config):
        if not _fits(score, run):
            continue
        options = replace(options_of(config, score, run.row), **_start(run))
        for draw in range(score.draws):
            path, seed = _path(config, run, score, draw), run.seed + DRAW_STRIDE * draw
            yield Measurement(run, score, replace(options, seed=seed, out=path))


def columns(config: StudyConfig) -> list[str]:
    """Return the names of the table's columns."""
    return [name for score in scores_of(config) for name in columns_of(score)]


def results_of(config: StudyConfig, run: Run) -> dict[str, list[Result | None]]:
    """Return a result for each draw of a run's scores by their names, None where it is missing."""
    results: dict[str, list[Result | None]] = {}
    for score in scores_of(config):
        if _fits(score, run):
            paths = [_path(config, run, score, draw) for draw in range(score.draws)]
            results[score.name] = [Result.read(path) if path.exists() else None for path in paths]
    return results


def numbers_of(
    config: StudyConfig, results: Mapping[str, Sequence[Result | None]]
) -> dict[str, float]:
    """Return the scores of a run that exist with all their draws, by the names of their columns.

    Those that a protocol does not give are left out, with a warning.
    """
    numbers = {}
    for score in scores_of(config):
        drawn = [result for result in results.get(score.name, []) if result is not None]
        if len(drawn) == score.draws:
            for column, name in columns_of(score).items():
                if all((name or one.headline) in one.numbers for one in drawn):
                    numbers[column] = fmean(one.numbers[name or one.headline] for one in drawn)
                else:
                    _warn_of_number(score.name, name, listing(drawn[0].numbers, limit=20))
    return numbers


@functools.cache  # once, not after each run
def _warn_of_number(score: str, number: str, given: str) -> None:
    log.warning(
        "score %r has no number %r, so its cells stay empty; it gives %s", score, number, given
    )


def _fits(score: Score, run: Run) -> bool:
    """Return whether a protocol can score a run: one of captions needs a model that has them."""
    if score.protocol not in OF_CAPTIONS:
        return True
    task = run.options.task
    reads, writes = task.needs.captions, task.writes_captions
    if not run.is_pretrained:
        reads, writes = _captions_of(run.start)
    return writes or (score.protocol != "captioning" and reads)


def empty_cells(config: StudyConfig, runs: Sequence[Run]) -> dict[str, list[str]]:
    """Return the names of the rows that a score cannot measure, by the names of such scores."""
    empty: dict[str, list[str]] = {}
    for score in scores_of(config):
        if rows := [run.row.name for run in runs if not _fits(score, run)]:
            empty[score.name] = list(dict.fromkeys(rows))
    return empty


@functools.cache
def _captions_of(start: str) -> tuple[bool, bool]:
    """Return whether the model of an INIT reads captions, and whether it writes them.

    A file that cannot be read has neither: the checks of rows report it.
    """
    if start in UNTRAINED:
        return False, False
    with suppress(VirTexError):
        if (published := models.find(start)) is not None:  # which need not be downloaded
            return published.writes_captions, published.writes_captions
        opened = open_init(start)
        if opened.kind == "run":
            task = opened.trained.task
            return task.needs.captions, task.writes_captions
        writes = released_kind(opened.state, opened.path) in ("bicaptioning", "captioning")
        return writes, writes
    return False, False


def options_of(config: StudyConfig, score: Score, row: Row) -> CommandConfig:
    """Return a protocol's options: its recipe or the row's, the study's, then the score's own.

    Raises:
        ConfigError: An unknown protocol, or options that it does not have.
    """
    if score.protocol not in PROTOCOLS:
        hint = did_you_mean(score.protocol, PROTOCOLS)
        raise ConfigError(f"unknown protocol {score.protocol!r}. {hint}")
    config_class = PROTOCOLS[score.protocol].config
    whole = {**_shared(config, config_class), "init": "random", "out": str(config.out)}
    if score.root is not None:  # the layout is that of the protocol's recipe
        whole["data"] = {"root": str(config.roots[score.root])}
    own = score.options, config.score_options.get(score.name, {})
    texts = [part for one in (whole, *own) for part in ("--config", yaml.safe_dump(one))]
    recipe = row.score_recipes.get(score.name, score.protocol)
    return _parsed(config_class, "--config", recipe, *texts)


@functools.lru_cache
def _parsed(config_class: type, *arguments: str) -> CommandConfig:
    """Return parsed options, which take a tenth of a second: all runs have the same of a score."""
    options: CommandConfig = parse(
        config_class, with_recipes(arguments, "transfer"), prog="virtex transfer"
    )
    return options


def _shared(config: StudyConfig, config_class: type) -> dict[str, Any]:
    """Return the study's options that a protocol has."""
    shared: dict[str, Any] = {"data": to_dict(config.target)}
    if issubclass(config_class, TransferConfig):
        shared["image_size"] = config.image_size
    elif issubclass(config_class, ImageClassificationConfig):
        shared["image"] = {"size": config.image_size}
    if issubclass(config_class, InferenceConfig):
        shared["num_workers"] = config.num_workers
    else:
        shared["loader"] = {"num_workers": config.num_workers}
    if issubclass(config_class, voc07.Voc07Config):
        shared["leave_out_rare"] = config.leave_out_rare
    return shared


def _start(run: Run) -> dict[str, Any]:
    """Return the weights that are scored, with an architecture where they have none."""
    if run.is_pretrained:
        return {"init": str(run.folder)}
    start: dict[str, Any] = {"init": run.start}
    if run.start in UNTRAINED:
        start["backbone"] = run.options.backbone
    return start


def _path(config: StudyConfig, run: Run, score: Score, draw: int) -> Path:
    if not config.scores:
        return run.folder / "result.json"
    return run.folder / "scores" / folder_name(score.name) / f"draw_{draw}.json"


def binding(options: CommandConfig) -> dict[str, Any]:
    """Return the options that a score depends on, by their dotted names."""
    values = flat(to_dict(options))
    return {name: value for name, value in values.items() if not name.startswith(FREE)}
