"""What all `virtex transfer` commands share: which backbone, on what data, where results go."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, get_args

from virtex import distributed
from virtex.data.example import Indices, Source, Subset
from virtex.data.source import Needs, SourceConfig, Split, open_source
from virtex.data.subsets import few_shots, labeled_fraction
from virtex.data.transforms import MAX_SIDE
from virtex.engine.inference import InferenceConfig
from virtex.errors import ConfigError, DataError, listing, out_of_range, raise_all
from virtex.files import sha256
from virtex.models.backbone import BackboneConfig
from virtex.transfer.features import Extraction
from virtex.transfer.protocol import Protocol, Result
from virtex.zoo.backbones import architecture_of, build_backbone, origin_of
from virtex.zoo.init import Opened, open_init

log = logging.getLogger("virtex")


@dataclass(frozen=True, kw_only=True)
class MeasurementConfig:
    """Options of every protocol."""

    init: str
    """Whose weights: a run folder, a weights file, or a published name."""
    out: Path
    """Folder for the result (or a .json file) and for what a second call reuses."""
    seed: int = 0
    """Of all that is random."""

    @property
    def folder(self) -> Path:
        """Where what is not the result goes."""
        return self.out.parent if self.out.suffix == ".json" else self.out

    def problems(self) -> list[str]:
        """What is wrong with these options."""
        problems = []
        places = self.folder, *self.folder.parents
        blocked = [place for place in places if place.exists() and not place.is_dir()]
        if blocked:
            problems.append(
                f"out {self.out}: {blocked[0]} is no folder; give a folder (or a .json)"
            )
        if self.seed < 0:
            problems.append(f"seed {self.seed} must be 0 or more")
        return problems


@dataclass(frozen=True, kw_only=True)
class CommandConfig(MeasurementConfig):
    """Options of every protocol that takes a backbone."""

    init: str
    """Whose backbone: random, imagenet, a run folder, a weights file, or a published name."""
    backbone: BackboneConfig | None = None
    """The architecture where INIT does not say it: for random, imagenet, bare weights."""
    backbone_from: str | None = None
    """For `--init random`: take the architecture of this run folder or weights file."""
    seed: int = 0
    """Of random initial weights, of few labels, of the order of training."""
    num_seeds: int = 1
    """Measure so many times, with seeds from `seed` on: a result each, mean and deviation over
    all."""

    @property
    def seeds(self) -> range:
        """All seeds."""
        return range(self.seed, self.seed + self.num_seeds)


@dataclass(frozen=True, kw_only=True)
class LabelledConfig(CommandConfig):
    """Options of every protocol that classifies images."""

    labels: float = 1.0
    """Share of the training images of each class to use, 0.01 for 1 %; other ones for each seed."""
    shots: int | None = None
    """Use this many training images of each class; other ones for each seed."""


@dataclass(frozen=True, kw_only=True)
class TransferConfig(InferenceConfig, LabelledConfig):
    """Options of every protocol that works on frozen features."""

    image_size: int = 224
    """Side of the centre crop, in pixels; the short side is resized to image_size * 256 / 224."""
    bad_image_limit: float = 0.01
    """Stop when more than this share of the images (of 1,000 at least) cannot be read."""


def extraction(config: TransferConfig) -> Extraction:
    """How this command turns images into features."""
    problems = [*config.inference_problems(), *out_of_range(config, {"image_size": (1, MAX_SIDE)})]
    raise_all(ConfigError, "the options cannot work", problems)
    device = config.open_device()
    return Extraction(
        image_size=config.image_size,
        precision=config.resolved_precision(device),
        batch_size=config.batch_size,
        num_workers=config.num_workers,
        device=device,
        bad_image_limit=config.bad_image_limit,
        cache=config.folder / "features",
    )


def architecture(config: CommandConfig) -> BackboneConfig | None:
    """Return the architecture that the command names beside INIT, if it names one.

    Raises:
        ConfigError: Options that contradict each other.
        CheckpointError: A file that cannot be found or read.
    """
    if config.backbone_from is None:
        return config.backbone
    if config.init != "random" or config.backbone is not None:
        raise ConfigError(
            f"backbone_from gives `--init random` its architecture; with init {config.init!r}"
            f"{' and backbone.*' if config.backbone else ''} it says nothing. Leave one out."
        )
    return architecture_of(open_init(config.backbone_from))


def record_of(opened: Opened, tokenizer: Path | None) -> dict[str, Any]:
    """Return the record of where a whole model came from, and its vocabulary where it has none."""
    record = asdict(origin_of(opened))
    return record if tokenizer is None else {**record, "tokenizer": sha256(tokenizer)}


def run_protocol(protocol: Protocol, config: CommandConfig, data: SourceConfig) -> list[Result]:
    """Measure the backbone that a command names on its data, and write a result for each seed.

    Returns:
        The results on the main process, none on the others.

    Raises:
        ConfigError, DataError, CheckpointError: A mistake of the user's.
    """
    check_command(config)
    with distributed.process_group(protocol.device):
        train, test = open_splits(data, protocol.needs)
        opened, named = open_init(config.init), architecture(config)
        results = []
        for seed in config.seeds:
            backbone = build_backbone(opened, config=named, seed=seed)
            result = replace(protocol, seed=seed).run(
                backbone,
                train=with_fewer_labels(train, config, seed=seed),
                test=test,
                initialisation=asdict(origin_of(opened, backbone.config)),
            )
            if distributed.is_main():
                log.info("wrote %s", result.write(config.out))
                results.append(result)
    return results


def check_command(config: CommandConfig) -> None:
    """Find the mistakes in the options that all commands have.

    Raises:
        ConfigError: All of them.
    """
    problems = config.problems()
    if config.num_seeds < 1:
        problems.append(f"num_seeds {config.num_seeds} must be at least 1")
    if config.num_seeds > 1 and config.out.suffix == ".json":
        problems.append(f"out {config.out} is one file for {config.num_seeds} seeds: give a folder")
    if isinstance(config, LabelledConfig):
        problems += _label_problems(config)
    raise_all(ConfigError, "the options cannot work", problems)


def _label_problems(config: LabelledConfig) -> list[str]:
    problems = []
    if not 0 < config.labels <= 1:
        problems.append(f"labels {config.labels} must be above 0 and at most 1: 0.01 is 1 %")
    if config.shots is not None and config.shots < 1:
        problems.append(f"shots {config.shots} must be at least 1")
    if config.shots is not None and config.labels < 1:
        problems.append("labels and shots both say how many training images: leave one out")
    return problems


def with_fewer_labels(train: Source, config: CommandConfig, *, seed: int) -> Source:
    """The part of the training images that a command allows."""
    if not isinstance(config, LabelledConfig):
        return train
    if config.shots is not None:
        drawn = few_shots(train, config.shots, seed=seed)
        _tell_of_rare(train, config.shots)
        return DrawnImages(train, drawn.indices, rule=f"shots {config.shots}")
    if config.labels < 1:
        drawn = labeled_fraction(train, config.labels, seed=seed)
        return DrawnImages(train, drawn.indices, rule=f"labels {config.labels}")
    return train


def _tell_of_rare(train: Source, shots: int) -> None:
    counts = Counter(label for index in range(len(train)) for label in train.labels(index))
    rare = [name for label, name in enumerate(train.categories) if counts[label] < shots]
    if rare:
        log.warning(
            "%d of %d classes have fewer than %d training images and give all they have: %s",
            len(rare), len(train.categories), shots, listing(rare),
        )  # fmt: skip


class DrawnImages(Subset):
    """Images that a seed drew by a rule; their number may be another one for another seed.

    The identity says by which rule and from how many.
    """

    def __init__(self, source: Source, indices: Indices, *, rule: str) -> None:
        super().__init__(source, indices)
        self.rule = rule

    def identity(self) -> dict[str, str | int]:
        drawn: dict[str, str | int] = {"drawn": self.rule, "drawn_from": len(self.source)}
        return {**super().identity(), **drawn}


def check_single_labels(source: Source, name: str) -> None:
    """See that each image has one class, before any work is done.

    Args:
        name: Which images they are: training, test.

    Raises:
        DataError: Some have none or several.
    """
    wrong = [index for index in range(len(source)) if len(source.labels(index)) != 1]
    if wrong:
        raise DataError(
            f"each image must have one class, but {len(wrong):,} of {len(source):,} {name} images "
            f"have none or several: {listing(source[index].location for index in wrong[:3])}. For "
            "several classes an image use voc07."
        )


def open_splits(data: SourceConfig, needs: Needs = Needs(labels=True)) -> tuple[Source, Source]:  # noqa: B008
    """What a protocol trains on, and what it tests on.

    Raises:
        ConfigError, DataError: A mistake of the user's; a missing test split is one too.
    """
    train, test = (open_source(data, split=split, needs=needs) for split in get_args(Split))
    if train is None or test is None:
        raise ConfigError(
            f"there is no test data: name it with data.val_split, data.val_root or data.val_share "
            f"(source {data.source}, root {data.root})."
        )
    return train, test


def summary(results: Sequence[Result]) -> str:
    """Each result in a line; of several seeds mean and deviation in a last one."""
    lines = [result.summary() for result in results]
    if len(results) > 1:
        lines.append(_over_seeds(results))
    return "\n".join(lines)


def _over_seeds(results: Sequence[Result]) -> str:
    first, scores = results[0], [result.score for result in results]
    return (
        f"{first.protocol} {first.headline} {fmean(scores):.2f} +- {stdev(scores):.2f} "
        f"(mean and deviation over {len(scores)} seeds)"
    )
