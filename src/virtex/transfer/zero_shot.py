"""Zero-shot classification: the prediction is the class whose name matches an image best.

A class is scored by captions with its name (`templates`), as in Radford et al., "CLIP", ICML 2021,
section 3.1. Captioners score them by their likelihood, contrastively trained runs by their cosine
similarity; the score of several templates is their mean. (CLIP takes the similarity with the
normalised mean of the text embeddings.)
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from virtex import distributed
from virtex.data.checks import lines_of
from virtex.data.example import Source
from virtex.data.image_files import subfolders
from virtex.data.source import Needs, SourceConfig, resolved
from virtex.data.source_options import check_options
from virtex.data.sources.classes import ClassesSource
from virtex.errors import DataError, listing, raise_all
from virtex.predict.embedder import Embedder
from virtex.predict.label_texts import LabelTexts
from virtex.predict.matching import DEFAULT_TEMPLATES, match_names, template_problems
from virtex.predict.predictor import Predictor
from virtex.transfer.command import check_single_labels
from virtex.transfer.matching import (
    MatchingProtocolConfig,
    drawn_images,
    open_matcher,
    scored_images,
    settings_of,
)
from virtex.transfer.metrics.classification import top_accuracies, true_ranks
from virtex.transfer.protocol import Result, digest
from virtex.transfer.whole_model import Measured, open_val_images, run_whole_model

NEEDS = Needs(labels=True)


@dataclass(frozen=True, kw_only=True)
class ZeroShotConfig(MatchingProtocolConfig):
    """Options of `virtex transfer zero-shot`."""

    usual_prior: ClassVar[float] = 0.0
    data: SourceConfig = field(default_factory=lambda: SourceConfig("classes"))
    """Images of one class each; those of the val split are classified."""
    templates: tuple[str, ...] = DEFAULT_TEMPLATES
    """Captions with {} for the name of the class, whose score is the mean over them."""
    class_names: Path | None = None
    """File of class names: one a line in the order of the sorted folders, or a .json object from
    folder to name. By default the folders' own names, with spaces for underscores."""

    def problems(self) -> list[str]:
        problems = [*super().problems(), *template_problems(self.templates)]
        if self.class_names is not None and not self.class_names.is_file():
            problems.append(f"class_names {self.class_names} is no file")
        return problems


def run(config: ZeroShotConfig) -> list[Result]:
    """Classify the val split, and write the result; see `run_whole_model`."""
    return run_whole_model(config, partial(test_images, config), partial(_measure, config))


def test_images(config: ZeroShotConfig) -> Source:
    """Open and check the images of `run`."""
    source = open_images(config.data)
    check_single_labels(source, "test")
    return drawn_images(source, config)


def open_images(data: SourceConfig) -> Source:
    """Open the images to classify: the val split, or all of class folders without splits.

    Raises:
        ConfigError, DataError: Invalid options or data.
    """
    data = resolved(data, NEEDS)
    if data.source == "classes" and data.val_share == 0:
        check_options(data, NEEDS)
        return ClassesSource(_class_folders(data))
    return open_val_images(data, NEEDS, purpose="classify")


def _class_folders(data: SourceConfig) -> Path:
    """Return the folder of class folders: that of the val split, or the root without splits.

    A class may be called train or val as well; only a split's folder holds folders.

    Raises:
        DataError: The named val split is missing, or there are training images alone.
    """
    root = data.val_root or data.root
    assert root is not None, "check_options has refused that"
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
    """Return the name of each class, in the order of the folders.

    Raises:
        DataError: A single class, or a file that does not name all classes.
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
            f"class_names {path} has no text as name of {listing(unnamed)}. Give each a name."
        )
    return [name.strip() for name in named]


def _names_in(path: Path, folders: Sequence[str]) -> list[Any]:
    """Return a file's value for each folder, of any type.

    Raises:
        DataError: It cannot be read, or holds too many or too few.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors write a byte order mark
        named = json.loads(text) if path.suffix == ".json" else lines_of(text)
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


def check_names(
    names: Sequence[str], templates: Sequence[str], matcher: Predictor | Embedder
) -> None:
    """Check that a model can compare the names of classes; equal names tie.

    A contrastively trained model cuts long texts, as in its training; a captioner would score a
    part of them, so it does not take any.

    Raises:
        DataError: A name is blank, has characters that the vocabulary lacks or makes too long a
            text, or names are the same once they are cut.
    """
    texts = LabelTexts.of(names, templates, matcher)
    cuts = isinstance(matcher, Embedder)
    long = texts.alike_once_cut() if cuts else texts.too_long()
    raise_all(
        DataError,
        "names of classes cannot be compared (--class_names FILE gives others)",
        [*texts.unreadable(), *long],
    )


def _measure(config: ZeroShotConfig, source: Source, device: torch.device) -> Measured | None:
    names = names_of(source.categories, config.class_names)
    matcher, initialisation = open_matcher(config, device)
    check_names(names, config.templates, matcher)
    match = match_names(matcher, names, config.templates, config.matching_of(matcher))
    labels, ranks = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for indices, scores in scored_images(source, match, matcher, config):
        labels.append(np.array([source.labels(index)[0] for index in indices.tolist()]))
        ranks.append(true_ranks(labels[-1], scores))
    parts = distributed.gather_on_main((np.concatenate(labels), np.concatenate(ranks)))
    if not distributed.is_main():
        return None
    all_labels, all_ranks = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Measured(
        protocol="zero-shot",
        headline="top1",
        numbers={
            **accuracies(all_labels, all_ranks, num_classes=len(names)),
            "num_images": float(len(all_ranks)),
            "num_bad": float(len(source) - len(all_ranks)),
        },
        settings={
            "templates": list(config.templates),
            "class_names": digest(list(names)),
            **settings_of(config, matcher),
        },
        initialisation=initialisation,
    )


def accuracies(
    labels: NDArray[np.int64], ranks: NDArray[np.int64], *, num_classes: int
) -> dict[str, float]:
    """Return top-1, top-5, mean per-class top-1 and chance, in percent.

    Args:
        labels: (N,) the true class of each image.
        ranks: (N,) its rank by descending score, from 1.
    """
    fractions = top_accuracies(ranks, num_classes=num_classes)
    of_class = [float((ranks[labels == label] == 1).mean()) for label in np.unique(labels)]
    fractions["class_mean_top1"] = float(np.mean(of_class))
    fractions["chance_top1"] = 1 / num_classes
    percents = {name: 100 * fraction for name, fraction in fractions.items()}
    return {**percents, "num_classes": num_classes}
