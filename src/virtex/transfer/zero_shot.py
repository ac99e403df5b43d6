"""Zero-shot classification: each image's class is the one whose name fits it best, untrained.

A class is scored by captions that say its name (`templates`), as Radford et al. did with "CLIP",
ICML 2021, section 3.1. Captioners score them by their likelihood, contrastively trained runs by
their cosine similarity; over several templates the mean counts. (CLIP takes the similarity with the
mean of the texts' vectors, made one long again.)
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from virtex import distributed
from virtex.data.checks import subfolders
from virtex.data.example import Source
from virtex.data.source import Needs, SourceConfig, open_source
from virtex.data.source_options import check_options
from virtex.data.sources.classes import ClassesSource
from virtex.errors import ConfigError, DataError, listing
from virtex.predict.matching import DEFAULT_TEMPLATES, match_names, template_problems
from virtex.transfer.command import check_single_labels
from virtex.transfer.matching import (
    MatchingProtocolConfig,
    drawn_images,
    open_matcher,
    result_of,
    scored_images,
)
from virtex.transfer.metrics.classification import true_ranks
from virtex.transfer.protocol import Result, digest

NAME = "zero-shot"
HEADLINE = "top1"
NEEDS = Needs(labels=True)


@dataclass(frozen=True, kw_only=True)
class ZeroShotConfig(MatchingProtocolConfig):
    """Options of `virtex transfer zero-shot`."""

    usual_prior: ClassVar[float] = 0.0
    data: SourceConfig = field(default_factory=lambda: SourceConfig("classes"))
    """Images of one class each; those of the val split are classified."""
    templates: tuple[str, ...] = DEFAULT_TEMPLATES
    """Captions with {} for the class's name; a class's score is the mean over them."""
    class_names: Path | None = None
    """What to call the classes: a name a line in the order of the sorted folders, or a .json object
    from folder to name. By default the folders' own names, with spaces for underscores."""

    def problems(self) -> list[str]:
        """What is wrong with these options."""
        problems = [*super().problems(), *template_problems(self.templates)]
        if self.class_names is not None and not self.class_names.is_file():
            problems.append(f"class_names {self.class_names} is no file")
        return problems


def run(config: ZeroShotConfig) -> list[Result]:
    """Classify the val split and write the result.

    Returns:
        The result on the main process, none on the others.

    Raises:
        ConfigError, DataError, CheckpointError: A mistake of the user's.
    """
    config.check()
    device = config.open_device()
    with distributed.process_group(device):
        source = open_images(config.data)
        names = names_of(source.categories, config.class_names)
        check_single_labels(source, "test")
        result = _measure(config, drawn_images(source, config), names, device)
        if result is None:
            return []
        result.write(config.out)
    return [result]


def open_images(data: SourceConfig) -> Source:
    """The images to classify: the val split; of class folders without splits all images.

    Raises:
        ConfigError, DataError: A mistake of the user's.
    """
    if data.source == "classes" and data.val_share == 0:
        check_options(data, NEEDS)
        return ClassesSource(_class_folders(data))
    source = open_source(data, split="val", needs=NEEDS)
    if source is None:
        raise ConfigError(
            "there are no images to classify: name them with data.val_split or data.val_root "
            f"(source {data.source}, root {data.root})."
        )
    return source


def _class_folders(data: SourceConfig) -> Path:
    """The folder of class folders: that of the val split, or the root where there is no split.

    A class may be called train or val as well: only a split's folder holds folders.

    Raises:
        DataError: The val split that was named is missing, or there are training images alone.
    """
    root = data.val_root or data.root
    assert root is not None, "check_options sees to it"
    val, train = root / (data.val_split or "val"), root / (data.train_split or "train")
    if _is_split(val):
        return val
    if data.val_split is not None:
        raise DataError(f"{val} holds no class folders. Name a split in {root} by data.val_split.")
    if _is_split(train):
        raise DataError(
            f"{root} holds {train.name} but no val. To classify the training images, which the "
            f"model may have seen, say so: --data.val_root {train}."
        )
    return root


def _is_split(folder: Path) -> bool:
    return folder.is_dir() and bool(subfolders(folder))


def names_of(folders: Sequence[str], path: Path | None) -> list[str]:
    """What each class is called in captions, in the order of the folders.

    Raises:
        DataError: A single class, or a file that does not name them all.
    """
    if len(folders) < 2:
        raise DataError(f"classes {list(folders)}: classification needs at least two.")
    if path is None:
        return [folder.replace("_", " ") for folder in folders]
    named = _names_in(path, folders)
    unnamed = [
        folder
        for folder, name in zip(folders, named, strict=True)
        if not isinstance(name, str) or not name.strip()
    ]
    if unnamed:
        raise DataError(
            f"class_names {path} names {listing(unnamed)} by no text. Give each a name."
        )
    return [name.strip() for name in named]


def _names_in(path: Path, folders: Sequence[str]) -> list[Any]:
    """What a file holds for each folder, whatever that is.

    Raises:
        DataError: It cannot be read, or holds more or less.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors begin a file with a mark
        named = json.loads(text) if path.suffix == ".json" else text.splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"class_names {path} cannot be read: {error}") from error
    if path.suffix == ".json" and not isinstance(named, dict):
        raise DataError(f"class_names {path} holds no object from folder to name.")
    if isinstance(named, dict):
        missing = [folder for folder in folders if folder not in named]
        if missing:
            raise DataError(
                f"class_names {path} has no name for {len(missing)} of {len(folders)} folders: "
                f"{listing(missing)}. Add them."
            )
        return [named[folder] for folder in folders]
    if len(named) != len(folders):
        raise DataError(
            f"class_names {path} names {len(named)} classes of {len(folders)}: give a name a line "
            "in the order of the sorted folders, or a .json object from folder to name."
        )
    return list(named)


def _measure(
    config: ZeroShotConfig, source: Source, names: Sequence[str], device: torch.device
) -> Result | None:
    """The result on the main process; on the others none."""
    opened = open_matcher(config, device)
    match = match_names(opened.matcher, names, config.templates, config.matching_of(opened.matcher))
    places, ranks = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for indices, scores in scored_images(source, match, opened.matcher, config):
        places.append(indices.numpy())
        ranks.append(true_ranks(_labels(source, places[-1]), scores.numpy()))
    parts = distributed.gather_on_main((np.concatenate(places), np.concatenate(ranks)))
    if not distributed.is_main():
        return None
    all_places, all_ranks = (np.concatenate(part) for part in zip(*parts, strict=True))  # type: ignore[call-overload]
    return result_of(
        opened,
        config,
        source,
        protocol=NAME,
        headline=HEADLINE,
        numbers={
            **accuracies(_labels(source, all_places), all_ranks, num_classes=len(names)),
            "num_images": float(len(all_places)),
            "num_bad": float(len(source) - len(all_places)),
        },
        settings={"templates": list(config.templates), "class_names": digest(list(names))},
    )


def _labels(source: Source, places: NDArray[np.int64]) -> NDArray[np.int64]:
    """(N,) the one class of each image."""
    return np.fromiter((source.labels(place)[0] for place in places.tolist()), np.int64)


def accuracies(
    labels: NDArray[np.int64], ranks: NDArray[np.int64], *, num_classes: int
) -> dict[str, float]:
    """In percent: top1, of more than five classes top5, the mean of each class's top1, and chance.

    Args:
        labels: (N,) the true class of each image.
        ranks: (N,) its place among the scores, 1 being the best.
    """
    shares = {f"top{k}": float((ranks <= k).mean()) for k in (1, 5) if k == 1 or num_classes > k}
    of_class = [float((ranks[labels == label] == 1).mean()) for label in np.unique(labels)]
    shares["class_mean_top1"] = float(np.mean(of_class))
    shares["chance_top1"] = 1 / num_classes
    return {**{name: 100 * share for name, share in shares.items()}, "num_classes": num_classes}
