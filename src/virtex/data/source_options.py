"""The options of a data source, and the check that they fit together."""

import math
from collections.abc import Collection
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from virtex.data.shards.index_options import DEFAULT_OUT
from virtex.data.shards.manifest import has_manifest
from virtex.data.shards.manifest_options import mixed_twice
from virtex.data.shards.retries import MAX_RETRIES, NUM_RETRIES
from virtex.data.urls import url_problem
from virtex.errors import ConfigError, raise_all
from virtex.options.dependents import register_dependents
from virtex.options.sizes import bytes_of

SourceName = Literal[
    "auto", "scenes", "coco", "lvis", "karpathy", "flickr", "folder", "table", "webdataset",
    "huggingface", "classes", "inaturalist", "voc",
]  # fmt: skip
BAD_OBJECT_LIMIT = 0.001
"""Large annotation files hold a few degenerate objects; one in a thousand is tolerated."""
MISSING_CAPTION_LIMIT = 0.01
"""Data from the web lacks a few captions; one in a hundred is tolerated."""
FAULT_LIMIT = 0.01
"""Data from the web holds some broken images; one in a hundred is tolerated."""


@dataclass(frozen=True)
class SourceConfig:
    """Options of the images and annotations."""

    source: SourceName = "auto"
    """Layout of the data. auto: the one that `root` has, or scenes without a root, see
    `needs_root`; scenes: drawn on the fly, nothing to download; coco: COCO's annotation files;
    lvis: LVIS v1; karpathy: Karpathy's dataset_*.json; flickr: Flickr8k's and Flickr30k's lists of
    captions; folder: images with captions in .txt or .json beside them; table: CSV, TSV, JSON or
    Parquet; webdataset: tar shards; huggingface: a data set of the hub, or one that save_to_disk
    wrote; classes: one folder a class; inaturalist: iNaturalist 2018; voc: PASCAL VOC."""
    root: Path | None = None
    """Folder of the data; for table, the file; for coco, karpathy and flickr either; for webdataset
    also a manifest that `virtex index` wrote; for huggingface also user/name on the hub."""
    needs_root: bool = False
    """Whether a new run is refused where auto finds no root, instead of drawing scenes; recipes for
    data of your own set it."""
    val_root: Path | None = None
    """Folder (or file, as for `root`) of the validation data, where it is not under `root`."""
    train_split: str | None = None
    """Name of the training split: train by default; for folder, webdataset and classes a subfolder,
    or all of `root` where there is none; for voc also with years: 2007_trainval+2012_trainval; for
    karpathy also train+restval; for flickr a list of images beside the captions."""
    val_split: str | None = None
    """Name of the validation split: val by default; without it, or `val_root` or `val_share`,
    there is no validation."""
    val_share: float = 0.0
    """Fraction of the images held out for validation (folder, table, webdataset, classes, flickr,
    huggingface): a hash of the relative path decides, so an image keeps its side when others are
    added."""
    image_root: Path | None = None
    """Folder of the images that a file lists (table, coco, karpathy, flickr); by default the
    table's own, COCO's layout, or the folder near the list that holds them."""
    image_column: str | None = None
    """Column of image paths in a table; by default image, filepath, path or file_name. Of images
    in huggingface; by default the only one."""
    caption_column: str | None = None
    """Column of captions in table and huggingface; by default caption, captions, text or title. For
    records also with the field: sentences.raw."""
    label_column: str | None = None
    """Column of labels in huggingface; by default the only one of classes, or label."""
    subset: str | None = None
    """Subset (configuration) of a huggingface data set that has several."""
    encoding: str | None = None
    """Encoding of a table that is text; by default UTF-8, or what its byte order mark says."""
    num_images: int = 8000
    """Number of training images, for scenes."""
    num_val_images: int = 1000
    """Number of validation images, for scenes; 0 for none."""
    image_size: int = 96
    """Side of the drawn images in pixels, for scenes."""
    seed: int = 0
    """Random seed of the drawn scenes, of `val_share` and of a random `share`."""
    share: float = 1.0
    """Fraction of the training images to use (classes, inaturalist: of each class); a smaller
    fraction is part of every larger one."""
    share_draw: Literal["random", "first"] = "random"
    """Which images `share` takes: random ones, or in class folders the first of each class by file
    name, rounded down, as the released code's subsets of ImageNet."""
    keep: Path | None = None
    """List of the training images to use, ids one a line (.txt or .txt.gz), as `virtex data check
    --write_good` writes it; the vocabulary is trained on their captions too."""
    num_captions: int | None = None
    """Number of captions to use of each training image, the first ones; by default all. Refused
    with several `caption_keys`, which draw from all captions."""
    bad_object_limit: float = BAD_OBJECT_LIMIT
    """Largest fraction of bad objects (outside their image or without area) in coco, lvis and voc,
    which are dropped and logged; more are an error."""
    missing_caption_limit: float = MISSING_CAPTION_LIMIT
    """Largest fraction of images (for table and huggingface: rows; for coco also captions) without
    a caption, which are skipped and logged, or with one that is empty or not text, which is left
    out; more are an error."""
    num_lanes: int | None = None
    """Lanes in which the shards of a manifest are read, a divisor of the batch size and a multiple
    of the number of processes; by default the largest divisor up to 64."""
    fault_limit: float = FAULT_LIMIT
    """Largest fraction of the examples in a manifest that may be bad; also of those that a process
    has read (at least 1,000), where each is replaced by the next one and listed in faults.jsonl."""
    mix: dict[str, float] = field(default_factory=dict)
    """Manifests to mix, instead of `root`, with the proportion of each in the batches:
    {MANIFEST: 0.7, OTHER: 0.3}."""
    cache_dir: Path | None = None
    """Folder on a local disk for the shards of a remote store, which all processes of a machine
    share; by default ~/.cache/virtex/shards."""
    cache_size: str | None = None
    """Most bytes of that folder, such as 200GB; by default what is needed at once and half of the
    rest of the disk."""
    store_retries: int = NUM_RETRIES
    """Retries of a read from a store that fails, with growing waits: 12 take 6 minutes."""
    caption_keys: dict[str, float] = field(default_factory=dict)
    """Keys of captions in the .json file beside an image (folder, webdataset), txt for its .txt
    file, with the proportion of the steps that draw each: {alt_text: 0.3, synthetic: 0.7}."""


class Needs(NamedTuple):
    """The annotations that a task needs for each image."""

    captions: bool = False
    objects: bool = False
    """Boxes with their classes."""
    labels: bool = False
    """Classes present in the image."""
    masks: bool = False
    """A mask for each box."""
    can_do_without: str = ""
    """Option of the task with which it does without captions or masks, if there is one."""

    @property
    def annotations(self) -> list[str]:
        """The names of the annotations that are needed."""
        return [name for name, is_needed in self._asdict().items() if is_needed is True]


OF_ALL = frozenset({"share", "keep", "needs_root"})
"""Options that have a meaning for every source."""
OF_MANIFEST = ("num_lanes", "fault_limit", "mix", "cache_dir", "cache_size", "store_retries")
"""Options that have a meaning for a manifest alone."""
IN_FOLDERS = frozenset({"root", "val_root", "train_split", "val_split", "val_share"})
OPTIONS: dict[str, frozenset[str]] = {
    "scenes": frozenset({"num_images", "num_val_images", "image_size", "seed"}),
    "coco": IN_FOLDERS - {"val_share"}
    | {"image_root", "bad_object_limit", "missing_caption_limit"},
    "lvis": IN_FOLDERS - {"val_share"} | {"bad_object_limit"},
    "karpathy": IN_FOLDERS - {"val_share"} | {"image_root", "missing_caption_limit"},
    "flickr": IN_FOLDERS | {"image_root", "missing_caption_limit"},
    "folder": IN_FOLDERS | {"missing_caption_limit", "caption_keys"},
    "table": frozenset(
        {"root", "val_root", "val_share", "image_root", "image_column", "caption_column"}
        | {"encoding", "missing_caption_limit"}
    ),
    "huggingface": IN_FOLDERS
    | {"image_column", "caption_column", "label_column", "subset", "missing_caption_limit"},
    "webdataset": IN_FOLDERS | {"missing_caption_limit", "caption_keys", *OF_MANIFEST},
    "classes": IN_FOLDERS | {"share_draw"},
    "inaturalist": IN_FOLDERS - {"val_share"},
    "voc": IN_FOLDERS - {"val_share"} | {"bad_object_limit"},
}
"""The options of each source, beside `source` and `OF_ALL`."""
ROOTS = {
    "table": "the table, a file",
    "karpathy": "dataset_*.json, or its folder",
    "flickr": "the list of captions, or its folder",
    "huggingface": "user/name on the hub, or a folder that save_to_disk wrote",
}
"""What `root` is, where it is not the folder of the data."""
NOT_OF_MANIFEST = {
    "share": "make a manifest of a part by `virtex index --keep`",
    "keep": "make a manifest of these by `virtex index --keep`, which reads no shard again",
    "val_share": "make two manifests by `virtex index --val_share`, and name the second one with "
    "--data.val_root",
    "train_split": "name the manifest itself with --data.root",
    "val_split": "name the validation data's manifest with --data.val_root",
    "missing_caption_limit": "--data.fault_limit holds for missing captions too",
}
"""Options that have none for a manifest, and what to do instead."""
KEPT = " A run that began with a manifest keeps its lanes, and is resumed with a manifest."
WITH_IMAGES = frozenset(get_args(SourceName))
WITH_CAPTIONS = frozenset(
    {"scenes", "coco", "karpathy", "flickr", "folder", "table", "webdataset", "huggingface"}
)
WITH_OBJECTS = frozenset({"scenes", "coco", "lvis", "voc"})
WITH_MASKS = frozenset({"scenes", "coco", "lvis"})
WITH_LABELS = WITH_OBJECTS | {"classes", "inaturalist", "huggingface"}


def _is_used(source: str, option: str) -> bool:
    """Return whether an option that was set for another source has a meaning for this one."""
    if option == "num_captions":
        return source in WITH_CAPTIONS
    return source not in OPTIONS or option in OPTIONS[source] | OF_ALL | {"seed"}


register_dependents(SourceConfig, {"source": _is_used})


def check_options(config: SourceConfig, needs: Needs) -> None:
    """Raise a ConfigError with all problems if the options do not work together or meet `needs`."""
    if config.source not in get_args(SourceName):
        allowed = ", ".join(get_args(SourceName))
        raise ConfigError(f"unknown --data.source {config.source!r}; it is one of {allowed}.")
    problems = _unused(config) + _out_of_range(config)
    problems += _contradictions(config) + _of_manifests(config) + _unmet(config, needs)
    raise_all(ConfigError, "the data options cannot work", problems)


def is_manifest(config: SourceConfig) -> bool:
    """Return whether the training data are one or several manifests."""
    if config.source != "webdataset":
        return False
    return bool(config.mix) or (config.root is not None and has_manifest(config.root))


def meets(source: str, needs: Needs) -> bool:
    """Whether a source can have the annotations that a task needs."""
    return not lacking(source, needs)


def lacking(source: str, needs: Needs) -> list[str]:
    """Return the annotations that a task needs and a source cannot have."""
    return [what for what, sources in _sources_with(needs).items() if source not in sources]


def without(needs: Needs, what: Collection[str]) -> str:
    """Return a sentence on how the task does without annotations; empty if it cannot."""
    can = needs.can_do_without and not {*what}.isdisjoint({"captions", "masks"})
    return f" {needs.can_do_without} does without." if can else ""


def _sources_with(needs: Needs) -> dict[str, frozenset[str]]:
    """Return the sources that have each of the annotations that a task needs."""
    wanted = (
        ("captions", needs.captions, WITH_CAPTIONS),
        ("boxes", needs.objects, WITH_OBJECTS),
        ("labels", needs.labels, WITH_LABELS),
        ("masks", needs.masks, WITH_MASKS),
    )
    return {what: sources for what, is_needed, sources in wanted if is_needed}


def _unused(config: SourceConfig) -> list[str]:
    """Return a problem for each option that is set but that the source does not use."""
    used = OPTIONS[config.source] | OF_ALL | {"source"}
    if config.source in WITH_CAPTIONS:
        used |= {"num_captions"}
    if config.share < 1 or config.val_share > 0:
        used |= {"seed"}
    unused = [
        option.name
        for option in fields(config)
        if option.name not in used and getattr(config, option.name) != _default(option)
    ]
    allowed = ", ".join(sorted(used - {"source", "needs_root"}))
    return [
        f"--data.{name} {getattr(config, name)} means nothing to --data.source {config.source}, "
        f"which uses {allowed}. Leave it out."
        for name in unused
    ]


def _default(option: Field[Any]) -> Any:
    return option.default if option.default_factory is MISSING else option.default_factory()


def _of_manifests(config: SourceConfig) -> list[str]:
    """Return a problem for each option that is set and fits a manifest alone, or none."""
    if config.source != "webdataset":
        return []
    set_ = [one.name for one in fields(config) if getattr(config, one.name) != _default(one)]
    if not is_manifest(config):
        return [
            f"--data.{name} means something to a manifest alone, and {config.root} is none: "
            f"{_name_manifest(config.root)} with --data.root.{KEPT * (name == 'num_lanes')}"
            for name in set_
            if name in OF_MANIFEST
        ]
    problems = [
        f"--data.{name} {getattr(config, name)} means nothing to a manifest: {remedy}."
        for name, remedy in NOT_OF_MANIFEST.items()
        if name in set_
    ]
    problems += [
        f"--data.mix: {path} is no manifest: {_name_manifest(Path(path))}."
        for path in config.mix
        if not has_manifest(Path(path))
    ]
    if config.mix and config.root is not None:
        problems.append(
            "--data.mix and --data.root both name training data. Give one of them. A run that is "
            "resumed has the one that it began with: leave the other out. To go on with other data "
            "all the same, give --accept_changed_data, and --data.root null or --data.mix {}."
        )
    return problems + mixed_twice([Path(path) for path in config.mix])


def _name_manifest(root: Path | None) -> str:
    """Return what to do about a folder that is given in place of a manifest."""
    if root is not None and has_manifest(root / DEFAULT_OUT):
        return f"name {root / DEFAULT_OUT}"
    return "write one by `virtex index`, and name it"


def _out_of_range(config: SourceConfig) -> list[str]:
    ranges = {
        "share": (0 < config.share <= 1, "above 0 and at most 1"),
        "val_share": (0 <= config.val_share < 1, "at least 0 and below 1"),
        "num_captions": (config.num_captions is None or config.num_captions >= 1, "at least 1"),
        "num_images": (config.num_images >= 1, "at least 1"),
        "num_val_images": (config.num_val_images >= 0, "at least 0"),
        "image_size": (config.image_size >= 1, "at least 1"),
        "bad_object_limit": (0 <= config.bad_object_limit < 1, "at least 0 and below 1"),
        "missing_caption_limit": (0 <= config.missing_caption_limit <= 1, "from 0 to 1"),
        "num_lanes": (config.num_lanes is None or config.num_lanes >= 1, "at least 1"),
        "fault_limit": (0 <= config.fault_limit <= 1, "from 0 to 1"),
        "mix": (all(0 < weight < math.inf for weight in config.mix.values()), "weights above 0"),
        "store_retries": (0 <= config.store_retries <= MAX_RETRIES, f"from 0 to {MAX_RETRIES:,}"),
    }
    if config.cache_size is not None:
        ranges["cache_size"] = (bytes_of(config.cache_size) > 0, "a size, such as 200GB or 1.5TB")
    is_drawn = config.source == "scenes" or (config.share < 1 and config.share_draw == "random")
    lowest = 0 if is_drawn else -(2**63)
    ranges["seed"] = (lowest <= config.seed < 2**63, f"at least {lowest} and below {2**63}")
    are_weights = all(0 < weight < math.inf for weight in config.caption_keys.values())
    ranges["caption_keys"] = (are_weights, "weights above 0")
    if config.encoding is not None:
        ranges["encoding"] = (_is_encoding(config.encoding), "a text encoding, such as cp1252")
    return [
        f"--data.{name} must be {allowed}, not {getattr(config, name)}."
        for name, (is_good, allowed) in ranges.items()
        if not is_good
    ]


def _is_encoding(name: str) -> bool:
    """Whether Python knows an encoding of text by this name (rot13 and hex are others)."""
    try:
        return "".encode(name).decode(name) == ""
    except (LookupError, ValueError):
        return False


def _contradictions(config: SourceConfig) -> list[str]:
    problems = []
    if config.source != "scenes" and config.root is None and not config.mix:
        what = ROOTS.get(config.source, "the folder of the data")
        problems.append(f"--data.source {config.source} needs --data.root: {what}.")
    roots = (("root", config.root), ("val_root", config.val_root))
    for name, path in roots if config.source != "huggingface" else ():
        if path is not None and (problem := url_problem(name, path)) is not None:
            problems.append(problem)
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
    elif config.source == "karpathy" and config.val_root is None:
        problems += [
            f"the training split {train} and the validation split {val} share {part}, which would "
            "be trained on and tested on. Give --data.val_split test, or train on other splits."
            for part in sorted({*train.split("+")} & {*val.split("+")})
        ]
    return problems + _splits_of_files(config)


def _splits_of_files(config: SourceConfig) -> list[str]:
    """Return a problem for each split that is named of COCO data in one file."""
    roots = {"train_split": config.root, "val_split": config.val_root or config.root}
    return [
        f"--data.{name} {getattr(config, name)} means nothing to the file {root}, which is one "
        "split. Leave it out; name the validation data's file with --data.val_root."
        for name, root in roots.items()
        if config.source == "coco"
        and getattr(config, name)
        and root
        and root.suffix.lower() == ".json"
    ]


def _unmet(config: SourceConfig, needs: Needs) -> list[str]:
    """Return a problem for each need that the source cannot meet."""
    meeting = WITH_IMAGES.intersection(*_sources_with(needs).values())
    return [
        f"{what} are needed, and --data.source {config.source} has none; these have: "
        f"{', '.join(sorted(meeting))}.{without(needs, [what])}"
        for what in lacking(config.source, needs)
    ]
