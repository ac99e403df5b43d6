"""The columns of a study: a transfer protocol for each, with its options and its results.

The options of a score lie beside it, so that a score that was measured otherwise is never taken for
one of this study.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from virtex import files
from virtex.config import flat, parse, to_dict, with_recipes
from virtex.data.source import SourceConfig
from virtex.engine.inference import InferenceConfig
from virtex.errors import ConfigError, did_you_mean, listing, raise_all
from virtex.options.bounded_yaml import load_json
from virtex.study.plan import Run, folder_name
from virtex.study.study_config import Score, StudyConfig
from virtex.transfer import voc07
from virtex.transfer.command import CommandConfig, LabelledConfig, TransferConfig, open_splits
from virtex.transfer.protocol import MAX_BYTES, Result
from virtex.transfer.protocols import PROTOCOLS
from virtex.zoo.init import UNTRAINED

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
        text = json.dumps(_binding(self.options), indent=2) + "\n"
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
        options = _options(config, run, score)  # parsed once
        for draw in range(score.draws):
            path, seed = _path(config, run, score, draw), run.seed * score.draws + draw
            yield Measurement(run, score, replace(options, seed=seed, out=path))


def check_scores(config: StudyConfig, runs: Sequence[Run]) -> None:
    """Check the options and data of all scores, and that existing ones have the same.

    Raises:
        ConfigError: Options cannot work, or data or options of an existing score differ.
        DataError: The target's data are missing or broken.
    """
    planned = [one for run in runs for one in measurements(config, run)]
    first = {one.score.name: one for one in reversed(planned)}
    identities = {}
    for name, one in first.items():
        one.options.check()
        if isinstance(one.options, LabelledConfig | TransferConfig):
            data = _with_splits(one)
            train, test = open_splits(data)
            identities[name] = {"train": train.identity(), "test": test.identity()}
    problems = [
        f"{one.path} was measured with {what}"
        for one in planned
        if one.path.exists() and (what := _difference(one, identities.get(one.score.name)))
    ]
    about = "existing scores are of another study: remove them, or give --out a new folder"
    raise_all(ConfigError, about, problems)


def columns(config: StudyConfig) -> list[str]:
    """Return the names of the table's columns."""
    return [name for score in scores_of(config) for name in _columns_of(score)]


def numbers_of(config: StudyConfig, run: Run) -> dict[str, float]:
    """Return the scores of a run that exist with all their draws, by the names of their columns.

    Raises:
        ConfigError: A result has no number of the name that a score gives.
    """
    results: dict[str, list[Result | None]] = {}
    for one in measurements(config, run):
        result = Result.read(one.path) if one.path.exists() else None
        results.setdefault(one.score.name, []).append(result)
    numbers = {}
    for score in scores_of(config):
        drawn = [result for result in results.get(score.name, []) if result is not None]
        if len(drawn) == score.draws:
            for column, name in _columns_of(score).items():
                numbers[column] = fmean(_number(result, name) for result in drawn)
    return numbers


def _columns_of(score: Score) -> dict[str, str]:
    """Return the names of a score's numbers by the names of their columns."""
    if len(score.numbers) <= 1:
        return {score.name: "".join(score.numbers)}
    return {f"{score.name}, {name}": name for name in score.numbers}


def _number(result: Result, name: str) -> float:
    name = name or result.headline
    if name not in result.numbers:
        raise ConfigError(
            f"{result.protocol} gives no number {name!r}; it gives {listing(result.numbers)}."
        )
    return result.numbers[name]


def _fits(score: Score, run: Run) -> bool:
    """Return whether a protocol can score a run: one of captions needs a model that has them."""
    if score.protocol not in OF_CAPTIONS:
        return True
    if not run.is_pretrained:
        return run.start not in UNTRAINED
    writes = run.options.task.writes_captions
    return writes or (score.protocol != "captioning" and run.options.task.needs.captions)


def _options(config: StudyConfig, run: Run, score: Score) -> CommandConfig:
    """Return the options of a protocol: its recipe, the study's options, then the score's own."""
    if score.protocol not in PROTOCOLS:
        hint = did_you_mean(score.protocol, PROTOCOLS)
        raise ConfigError(f"score {score.name!r}: unknown protocol {score.protocol!r}. {hint}")
    config_class = PROTOCOLS[score.protocol].config
    whole = {**_shared(config, config_class), **_start(run), "out": str(run.folder)}
    if score.root is not None:  # the layout is that of the protocol's recipe
        whole["data"] = {"root": str(config.roots[score.root])}
    texts = [part for one in (whole, score.options) for part in ("--config", yaml.safe_dump(one))]
    try:
        arguments = with_recipes(["--config", score.protocol, *texts], "transfer")
        options: CommandConfig = parse(config_class, arguments, prog="virtex transfer")
    except ConfigError as error:
        raise ConfigError(f"score {score.name!r}: {error}") from error
    return options


def _shared(config: StudyConfig, config_class: type) -> dict[str, Any]:
    """Return the study's options that a protocol has."""
    shared: dict[str, Any] = {"data": to_dict(config.target)}
    if issubclass(config_class, TransferConfig):
        shared["image_size"] = config.image_size
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
        start["backbone"] = to_dict(run.options.backbone)
    return start


def _path(config: StudyConfig, run: Run, score: Score, draw: int) -> Path:
    if not config.scores:
        return run.folder / "result.json"
    return run.folder / "scores" / folder_name(score.name) / f"draw_{draw}.json"


def _with_splits(one: Measurement) -> SourceConfig:
    """Return the data that a protocol opens."""
    data: SourceConfig = one.options.data  # type: ignore[attr-defined]
    return voc07.with_voc_splits(data) if one.score.protocol == "voc07" else data


def _binding(options: CommandConfig) -> dict[str, Any]:
    """Return the options that a score depends on, by their dotted names."""
    values = flat(to_dict(options))
    return {name: value for name, value in values.items() if not name.startswith(FREE)}


def _difference(one: Measurement, identity: Mapping[str, Any] | None) -> str:
    """Return the first difference of an existing score from a planned one; empty for none."""
    result, now = Result.read(one.path), _binding(one.options)
    # whole data alone have an identity that does not depend on the seed
    is_whole = "drawn" not in result.data.get("train", {})
    if is_whole and identity is not None and result.data != identity:
        return "other data"
    before = dict(result.settings)
    if one.options_path.exists():
        before = load_json(files.read_text(one.options_path, most=MAX_BYTES), "options")
    for name, value in json.loads(json.dumps(now)).items():
        if name in before and before[name] != value:
            return f"{name} {before[name]}, now {value}"
    return ""
