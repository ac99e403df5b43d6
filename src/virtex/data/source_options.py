"""The options that name a source of data, and which of them go together."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from virtex.data.sources.voc_splits import overlap
from virtex.errors import ConfigError, raise_all

SourceName = Literal[
    "scenes", "coco", "lvis", "folder", "table", "webdataset", "classes", "inaturalist", "voc"
]
BAD_OBJECT_LIMIT = 0.001
"""Large files of real annotations hold a few degenerate objects: one in a thousand is let go."""


@dataclass(frozen=True)
class SourceConfig:
    """Where images and their annotations come from."""

    source: SourceName = "scenes"
    """Layout of the data. scenes: drawn on the fly, nothing to download; coco: COCO's annotation
    files; lvis: LVIS v1; folder: images with captions in .txt or .json beside them; table: CSV,
    TSV, JSONL or Parquet; webdataset: tar shards; classes: one folder a class; inaturalist:
    iNaturalist 2018; voc: PASCAL VOC."""
    root: Path | None = None
    """Folder of the data; for table the file itself."""
    val_root: Path | None = None
    """Folder (for table: file) of the validation data, where it is not under `root`."""
    train_split: str | None = None
    """Name of the training split: train by default; for folder, webdataset and classes a subfolder,
    or all of `root` where there is none; for voc also with years: 2007_trainval+2012_trainval."""
    val_split: str | None = None
    """Name of the validation split: val by default; without it, or `val_root` or `val_share`,
    there is no validation."""
    val_share: float = 0.0
    """Share of the images held out for validation (folder, table, webdataset, classes), chosen by
    a hash of each image's relative path, so that an image keeps its side when others are added."""
    image_root: Path | None = None
    """For table: folder that image paths start from; by default the table's own."""
    image_column: str | None = None
    """For table: column of image paths; image, filepath, path or file_name by default."""
    caption_column: str | None = None
    """For table: column of captions; caption, captions, text or title by default."""
    num_images: int = 8000
    """For scenes: number of training images."""
    num_val_images: int = 1000
    """For scenes: number of validation images; 0 for none."""
    image_size: int = 96
    """For scenes: side of the drawn images, in pixels."""
    seed: int = 0
    """Seed of the drawn scenes, of `val_share` and of `share`."""
    share: float = 1.0
    """Share of the training images to use, for classes and inaturalist that of each class; a
    smaller share is part of every larger one."""
    num_captions: int | None = None
    """Use at most the first this many captions of each training image."""
    bad_object_limit: float = BAD_OBJECT_LIMIT
    """For coco, lvis and voc: share of the objects that may be bad (outside their image, or without
    area); those are dropped and named in the log, more are an error."""


class Needs(NamedTuple):
    """What a task asks of each image."""

    captions: bool = False
    objects: bool = False
    """Boxes with their classes."""
    labels: bool = False
    """Classes present in the image."""
    masks: bool = False
    """A mask for each box."""


IN_FOLDERS = frozenset({"root", "val_root", "train_split", "val_split", "val_share"})
OPTIONS: dict[str, frozenset[str]] = {
    "scenes": frozenset({"num_images", "num_val_images", "image_size", "seed"}),
    "coco": IN_FOLDERS - {"val_share"} | {"bad_object_limit"},
    "lvis": IN_FOLDERS - {"val_share"} | {"bad_object_limit"},
    "folder": IN_FOLDERS,
    "table": frozenset(
        {"root", "val_root", "val_share", "image_root", "image_column", "caption_column"}
    ),
    "webdataset": IN_FOLDERS,
    "classes": IN_FOLDERS,
    "inaturalist": IN_FOLDERS - {"val_share"},
    "voc": IN_FOLDERS - {"val_share"} | {"bad_object_limit"},
}
"""The options of each source, beside `source` and `share`."""
WITH_CAPTIONS = frozenset({"scenes", "coco", "folder", "table", "webdataset"})
WITH_OBJECTS = frozenset({"scenes", "coco", "lvis", "voc"})
WITH_MASKS = frozenset({"scenes", "coco", "lvis"})
WITH_LABELS = WITH_OBJECTS | {"classes", "inaturalist"}


def check_options(config: SourceConfig, needs: Needs) -> None:
    """See that the options can work together and give what is needed.

    Raises:
        ConfigError: Everything wrong with them.
    """
    if config.source not in get_args(SourceName):
        allowed = ", ".join(get_args(SourceName))
        raise ConfigError(f"unknown --data.source {config.source!r}; it is one of {allowed}.")
    problems = [
        *_unused(config),
        *_out_of_range(config),
        *_contradictions(config),
        *_unmet(config, needs),
    ]
    raise_all(ConfigError, "the data options cannot work", problems)


def _unused(config: SourceConfig) -> list[str]:
    """Options that were set, though the source has no use for them."""
    used = OPTIONS[config.source] | {"source", "share"}
    if config.source in WITH_CAPTIONS:
        used |= {"num_captions"}
    if config.share < 1 or config.val_share > 0:
        used |= {"seed"}
    unused = [
        option.name
        for option in fields(config)
        if option.name not in used and getattr(config, option.name) != option.default
    ]
    allowed = ", ".join(sorted(used - {"source"}))
    return [
        f"--data.{name} {getattr(config, name)} means nothing to --data.source {config.source}, "
        f"which uses {allowed}. Leave it out."
        for name in unused
    ]


def _out_of_range(config: SourceConfig) -> list[str]:
    ranges = {
        "share": (0 < config.share <= 1, "above 0 and at most 1"),
        "val_share": (0 <= config.val_share < 1, "at least 0 and below 1"),
        "num_captions": (config.num_captions is None or config.num_captions >= 1, "at least 1"),
        "num_images": (config.num_images >= 1, "at least 1"),
        "num_val_images": (config.num_val_images >= 0, "at least 0"),
        "image_size": (config.image_size >= 1, "at least 1"),
        "bad_object_limit": (0 <= config.bad_object_limit < 1, "at least 0 and below 1"),
    }
    return [
        f"--data.{name} must be {allowed}, not {getattr(config, name)}."
        for name, (is_good, allowed) in ranges.items()
        if not is_good
    ]


def _contradictions(config: SourceConfig) -> list[str]:
    problems = []
    if config.source != "scenes" and config.root is None:
        what = "the table, a file" if config.source == "table" else "the folder of the data"
        problems.append(f"--data.source {config.source} needs --data.root: {what}.")
    for name in ("val_root", "val_split"):
        if config.val_share > 0 and getattr(config, name) is not None:
            problems.append(
                f"--data.val_share and --data.{name} both name validation data. Give one of them."
            )
    train, val = config.train_split or "train", config.val_split or "val"
    if train == val and config.val_root is None:
        problems.append(
            f"training and validation are the same split, {train}. Give another --data.val_split "
            "or --data.train_split, or a --data.val_root."
        )
    elif config.source == "voc" and config.val_root is None:
        problems += [
            f"VOC's {one} and {other} share images, to be trained on and tested on. Give "
            "--data.val_split test, or train on train."
            for one, other in overlap(train, val)
        ]
    return problems


def _unmet(config: SourceConfig, needs: Needs) -> list[str]:
    """What is needed and the source has not."""
    wanted = (
        ("captions", needs.captions, WITH_CAPTIONS),
        ("boxes", needs.objects, WITH_OBJECTS),
        ("labels", needs.labels, WITH_LABELS),
        ("masks", needs.masks, WITH_MASKS),
    )
    return [
        f"{what} are needed, and --data.source {config.source} has none; these have: "
        f"{', '.join(sorted(sources))}."
        for what, is_needed, sources in wanted
        if is_needed and config.source not in sources
    ]
