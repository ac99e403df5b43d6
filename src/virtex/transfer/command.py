"""Options and steps that all `virtex transfer` commands share."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import get_args

from virtex import distributed, files
from virtex.data.example import Indices, Source, Subset
from virtex.data.source import Needs, SourceConfig, Split, open_source
from virtex.data.subsets import few_shots, labeled_fraction
from virtex.data.transforms import MAX_SIDE
from virtex.data.validation import check_disjoint
from virtex.engine.inference import InferenceConfig
from virtex.errors import ConfigError, DataError, listing, out_of_range, raise_all
from virtex.models.backbone import BackboneConfig
from virtex.models.layer_features import LAST, layer_problems
from virtex.transfer.features import Extraction
from virtex.transfer.protocol import Protocol, Result
from virtex.zoo.backbones import (
    architecture_of,
    build_backbone,
    origin_of,
    whole_architecture,
)
from virtex.zoo.init import UNTRAINED, open_init_in_all

log = logging.getLogger("virtex")


@dataclass(frozen=True, kw_only=True)
class MeasurementConfig:
    """Options of every protocol."""

    init: str
    """Weights to measure: a run folder, a weights file, or a published name."""
    out: Path
    """Folder for the result (or a .json file) and for what a second call reuses."""
    seed: int = 0
    """Random seed."""

    @property
    def folder(self) -> Path:
        """Folder of everything but the result."""
        return self.out.parent if self.out.suffix == ".json" else self.out

    def problems(self) -> list[str]:
        """Return what is wrong with these options."""
        problems = []
        folders = self.folder, *self.folder.parents
        blocked = [folder for folder in folders if folder.exists() and not folder.is_dir()]
        if blocked:
            problems.append(
                f"out {self.out}: {blocked[0]} is no folder; give a folder (or a .json)"
            )
        if self.seed < 0:
            problems.append(f"seed {self.seed} must be 0 or more")
        return problems

    def check(self) -> None:
        """Refuse options that cannot work, before anything is loaded.

        Raises:
            ConfigError: All problems.
        """
        raise_all(ConfigError, "the options cannot work", self.problems())

    def check_before_work(self) -> None:
        """Refuse options that cannot work, and an `out` that cannot be written.

        Raises:
            ConfigError: All problems of the options, or why nothing can be written.
        """
        self.check()
        files.check_out(self.out, is_file=self.out.suffix == ".json")


@dataclass(frozen=True, kw_only=True)
class CommandConfig(MeasurementConfig):
    """Options of every protocol that takes a backbone."""

    init: str
    """Backbone to measure: random, imagenet, a run folder, a weights file, or a published name."""
    backbone: BackboneConfig | None = None
    """Architecture where INIT does not define it: for random, imagenet, bare weights."""
    backbone_from: str | None = None
    """Run folder or weights file whose architecture `--init random` takes."""
    seed: int = 0
    """Random seed of initial weights, of few labels, and of the order of training."""
    num_seeds: int = 1
    """Number of repetitions, with seeds from `seed` on: one result each, and their mean and
    deviation."""

    @property
    def side_of_images(self) -> int | None:
        """Side in pixels of the images, if all have the same and are square."""
        return None

    def problems(self) -> list[str]:
        problems = super().problems()
        if self.num_seeds < 1:
            problems.append(f"num_seeds {self.num_seeds} must be at least 1")
        if self.num_seeds > 1 and self.out.suffix == ".json":
            problems.append(f"out {self.out} is one file for {self.num_seeds} seeds: give a folder")
        return problems


@dataclass(frozen=True, kw_only=True)
class LabelledConfig(CommandConfig):
    """Options of every protocol that classifies images."""

    labels: float = 1.0
    """Fraction of each class's training images to use, 0.01 for 1 %; each seed draws others."""
    shots: int | None = None
    """Number of training images of each class to use; each seed draws others."""

    def problems(self) -> list[str]:
        problems = super().problems()
        if not 0 < self.labels <= 1:
            problems.append(f"labels {self.labels} must be above 0 and at most 1: 0.01 is 1 %")
        if self.shots is not None and self.shots < 1:
            problems.append(f"shots {self.shots} must be at least 1")
        if self.shots is not None and self.labels < 1:
            problems.append(
                "labels and shots both set the number of training images: leave one out"
            )
        return problems


@dataclass(frozen=True, kw_only=True)
class TransferConfig(InferenceConfig, LabelledConfig):
    """Options of every protocol that works on frozen features."""

    image_size: int = 224
    """Side of the centre crop, in pixels; the short side is resized to image_size * 256 / 224."""
    whole_image: bool = False
    """Resize the whole image to a square of image_size instead, with nothing cropped."""
    layer: str = LAST
    """Layer of the backbone whose features are scored: last, or stage1, stage2, ... (stage1 is
    layer1 of a ResNet, or the first block of a ViT)."""
    feature_size: int | None = None
    """Number of features to which the layer's grid is pooled, about: 8192 gives 6 x 6, 4 x 4, 3 x 3
    and 2 x 2 cells of a ResNet-50's stages; null: the mean over all cells."""
    bad_image_limit: float = 0.01
    """Largest fraction of the images (of 1,000 at least) that may be unreadable."""

    @property
    def side_of_images(self) -> int:
        return self.image_size

    def problems(self) -> list[str]:
        sizes = out_of_range(self, {"image_size": (1, MAX_SIDE)})
        layers = layer_problems(self.layer, self.feature_size)
        return [*super().problems(), *self.inference_problems(), *sizes, *layers]


def extraction(config: TransferConfig) -> Extraction:
    """Return how this command turns images into features.

    Raises:
        ConfigError: Options that cannot work.
    """
    config.check()
    device = config.open_device()
    return Extraction(
        image_size=config.image_size,
        precision=config.resolved_precision(device),
        batch_size=config.batch_size,
        num_workers=config.num_workers,
        device=device,
        bad_image_limit=config.bad_image_limit,
        cache=config.folder / "features",
        layer=config.layer,
        feature_size=config.feature_size,
        whole_image=config.whole_image,
    )


def architecture(config: CommandConfig) -> BackboneConfig | None:
    """Return the architecture that is named beside INIT, if there is one.

    Raises:
        ConfigError: Options that contradict each other.
        CheckpointError: A file that cannot be found or read.
    """
    if config.backbone_from is None:
        size = config.side_of_images
        if config.init in UNTRAINED and config.backbone and size is not None:
            return whole_architecture(config.backbone, image_size=size)
        return config.backbone
    if config.init != "random" or config.backbone is not None:
        raise ConfigError(
            f"backbone_from gives `--init random` its architecture; with init {config.init!r}"
            f"{' and backbone.*' if config.backbone else ''} it has no effect. Leave one out."
        )
    return architecture_of(open_init_in_all(config.backbone_from))


def run_protocol(protocol: Protocol, config: CommandConfig, data: SourceConfig) -> list[Result]:
    """Measure a backbone with each seed, and write the results.

    Returns:
        The results on the main process, none on the others.

    Raises:
        ConfigError, DataError, CheckpointError: Invalid options, data or weights.
    """
    config.check_before_work()
    with distributed.process_group(protocol.device):
        train, test = open_splits(data, protocol.needs)
        opened, named = open_init_in_all(config.init), architecture(config)
        results = []
        for seed in range(config.seed, config.seed + config.num_seeds):
            backbone = build_backbone(opened, config=named, seed=seed)
            result = replace(protocol, seed=seed).run(
                backbone,
                train=with_fewer_labels(train, config, seed=seed),
                test=test,
                initialisation=origin_of(opened, backbone.config).record(),
            )
            if distributed.is_main():
                log.info("wrote %s", result.write(config.out))
                results.append(result)
    return results


def open_data(protocol: Protocol, config: CommandConfig, data: SourceConfig) -> dict[str, Source]:
    """Open the images of a measurement by their roles, and check them as it will.

    Raises:
        ConfigError, DataError: Invalid options or data.
    """
    whole, test = open_splits(data, protocol.needs)
    train = with_fewer_labels(whole, config, seed=config.seed)
    protocol.check(train, test)
    return {"train": train, "test": test}


def with_fewer_labels(train: Source, config: CommandConfig, *, seed: int) -> Source:
    """Return the training images that `labels` or `shots` draw; by default all."""
    if not isinstance(config, LabelledConfig):
        return train
    if config.shots is not None:
        _warn_of_rare(train, config.shots)
        drawn = few_shots(train, config.shots, seed=seed)
        return DrawnImages(train, drawn.indices, rule=f"shots {config.shots}")
    if config.labels < 1:
        drawn = labeled_fraction(train, config.labels, seed=seed)
        return DrawnImages(train, drawn.indices, rule=f"labels {config.labels}")
    return train


def _warn_of_rare(train: Source, shots: int) -> None:
    counts = Counter(label for index in range(len(train)) for label in train.labels(index))
    rare = [name for label, name in enumerate(train.categories) if counts[label] < shots]
    if rare:
        log.warning(
            "%d of %d classes have fewer than %d training images and give all they have: %s",
            len(rare), len(train.categories), shots, listing(rare),
        )  # fmt: skip


class DrawnImages(Subset):
    """Images that a seed drew by a rule; their number may depend on the seed.

    The identity holds the rule and the number of images before.
    """

    def __init__(self, source: Source, indices: Indices, *, rule: str) -> None:
        super().__init__(source, indices)
        self.rule = rule

    def identity(self) -> dict[str, str | int]:
        drawn: dict[str, str | int] = {"drawn": self.rule, "drawn_from": len(self.source)}
        return {**super().identity(), **drawn}


def check_single_labels(source: Source, name: str) -> None:
    """Check that each image has exactly one class.

    Args:
        name: Role of the images, training or test.

    Raises:
        DataError: Images with no class or several.
    """
    wrong = [index for index in range(len(source)) if len(source.labels(index)) != 1]
    if wrong:
        raise DataError(
            f"each image must have one class, but {len(wrong):,} of {len(source):,} {name} images "
            f"have none or several: {listing(source[index].location for index in wrong[:3])}. For "
            "several classes an image use voc07."
        )


def open_splits(data: SourceConfig, needs: Needs = Needs(labels=True)) -> tuple[Source, Source]:  # noqa: B008
    """Open the training and the test images.

    Raises:
        ConfigError, DataError: Invalid options or data, no test split, or images in both.
    """
    train, test = (open_source(data, split=split, needs=needs) for split in get_args(Split))
    if train is None or test is None:
        raise ConfigError(
            f"there is no test data: name it with data.val_split, data.val_root or data.val_share "
            f"(source {data.source}, root {data.root})."
        )
    check_disjoint(train, test)
    return train, test


def summary(results: Sequence[Result]) -> str:
    """Return a line for each result, and for several seeds a last one with mean and deviation."""
    lines = [result.summary() for result in results]
    if len(results) > 1:
        first, scores = results[0], [result.score for result in results]
        lines.append(
            f"{first.protocol} {first.headline} {fmean(scores):.2f} +- {stdev(scores):.2f} "
            f"(mean and deviation over {len(scores)} seeds)"
        )
    return "\n".join(lines)
