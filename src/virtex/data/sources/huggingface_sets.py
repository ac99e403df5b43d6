"""Data sets of the library `datasets`, from a folder or the Hugging Face hub; its only door.

Nothing of a data set is run: `datasets` reads files of fixed formats alone since version 4, and the
images stay encoded.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from virtex.data.checks import quoted
from virtex.errors import ConfigError, DataError, VirTexError, listing

HUB_NAME = re.compile(r"(?P<name>[\w-][\w.-]*/[\w-][\w.-]*)(?:@(?P<revision>.+))?")
STATE = "state.json"
"""File of `save_to_disk` that names the files of a set's rows."""
SAVED = (("dataset_dict.json",), ("dataset_info.json", STATE))
"""Files that show a folder of `save_to_disk`: of several splits, or of one data set."""
WHOLE = ""
"""Name of the split of a data set that has none."""
SUBSET_FAULTS = {
    "Config name is missing": "has several subsets",
    "not found. Available": "has no such subset",
}
"""Parts of the library's reasons, and what they say of a data set."""
BATCH = 1000
"""Rows held as Python objects at a time."""
MAX_REASON = 300
"""Most characters of the library's reason in a message."""
MAX_FIELDS = 6
"""Most fields of a record in a message."""


@dataclass(frozen=True)
class Kind:
    """The type of a column, or of what is in it; `str` describes it for the user."""

    name: str
    """image, bytes, string, integer, class, list, record, or another type's own name."""
    item: "Kind | None" = None
    """Type of the items of a list."""
    fields: Mapping[str, "Kind"] = field(default_factory=dict)
    """Types of the fields of a record."""
    classes: tuple[str, ...] = ()
    """Names of the classes of a class label."""

    def __str__(self) -> str:
        if self.item is not None:
            return f"list of {self.item}"
        if self.fields:
            shown = [f"{quoted(name, limit=20)}: {kind}" for name, kind in self.fields.items()]
            more = ", ..." if len(shown) > MAX_FIELDS else ""
            return f"{{{', '.join(shown[:MAX_FIELDS])}{more}}}"
        return f"one of {len(self.classes):,} classes" if self.name == "class" else self.name


def cache_folder() -> Path:
    """Return the folder that holds all files which the library downloads."""
    from datasets import config

    return Path(config.HF_CACHE_HOME).resolve()


class Rows:
    """One column of a split, whose rows are read from memory-mapped files."""

    def __init__(self, dataset: Any, column: str) -> None:
        self._dataset = dataset.select_columns([column]).with_format("arrow")

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Any:
        return self._dataset[index].column(0)[0].as_py()

    def arrays(self) -> Iterator[Any]:
        """Yield the column in order, as arrow's arrays of at most BATCH rows."""
        for table in self._dataset.iter(BATCH):
            yield table.column(0)

    def values(self) -> Iterator[Any]:
        """Yield the values of all rows as Python objects."""
        for array in self.arrays():
            yield from array.to_pylist()


def is_saved_set(root: Path) -> bool:
    """Return whether a folder was written by `save_to_disk` of `datasets`."""
    return any(all((root / name).is_file() for name in names) for names in SAVED)


def load_splits(root: Path, subset: str | None) -> dict[str, Any]:
    """Return the splits of a data set by name, WHOLE if it has none.

    Args:
        root: A folder that `save_to_disk` wrote, a folder in the hub's layout, or `user/name` or
            `user/name@revision` on the hub, if there is no such folder.
        subset: Configuration of the data set, where it has several.

    Raises:
        ConfigError: `datasets` is not installed, or there is no such data set, or no access to it.
        DataError: It cannot be read.
    """
    try:
        import datasets
    except ImportError as error:
        raise ConfigError(
            f"--data.source huggingface needs datasets: pip install datasets ({error})"
        ) from error
    try:
        loaded = _load(datasets, root, subset)
    except Exception as error:
        if isinstance(error, VirTexError | MemoryError):
            raise
        _refuse(datasets, root, error)
    return {WHOLE: loaded} if isinstance(loaded, datasets.Dataset) else dict(loaded)


def kinds_of(dataset: Any) -> dict[str, Kind]:
    """Return the type of each column of a split."""
    return {name: _kind(feature) for name, feature in dataset.features.items()}


def _load(datasets: Any, root: Path, subset: str | None) -> Any:
    if is_saved_set(root):
        if subset is not None:
            raise ConfigError(f"--data.subset {subset} means nothing to {root}. Leave it out.")
        return datasets.load_from_disk(root, keep_in_memory=False)
    if root.is_dir():
        return datasets.load_dataset(str(root.absolute()), subset, keep_in_memory=False)
    found = HUB_NAME.fullmatch(str(root))
    if found is None or root.exists():
        raise ConfigError(
            f"--data.root {quoted(root)} is neither a folder nor the name of a data set on the "
            "Hugging Face hub, user/name or user/name@revision."
        )
    return datasets.load_dataset(
        found["name"], subset, revision=found["revision"], keep_in_memory=False
    )


def _refuse(datasets: Any, root: Path, error: Exception) -> NoReturn:
    """Raise what an error of the library means to the user."""
    if empty := _splits_without_rows(root):
        raise DataError(
            f"the data set {root} cannot be read: {listing(empty)} has no rows, for which the "
            "library finds no file. Save it again with rows, or without that split."
        ) from error
    reason = " ".join(str(error).split())
    shown = f"{type(error).__name__}: {quoted(reason, limit=MAX_REASON)}"
    if isinstance(error, datasets.exceptions.DatasetNotFoundError):
        raise ConfigError(
            f"the Hugging Face hub has no data set {root}, or does not show it to you ({shown}). "
            "Check --data.root; if it is private or gated, accept its terms on its page and log in "
            "by `hf auth login`."
        ) from error
    if isinstance(error, ConnectionError):
        raise ConfigError(
            f"the Hugging Face hub cannot be reached for {root} ({shown}). A data set is fetched "
            "once and then cached: fetch it where there is a network, or save it there by "
            "save_to_disk and give its folder with --data.root."
        ) from error
    if "scripts are no longer supported" in reason:
        raise ConfigError(
            f"{root} is made by a script, which is never run. Its files in Parquet may be had as "
            f"--data.root {str(root).partition('@')[0]}@refs/convert/parquet."
        ) from error
    for words, fault in SUBSET_FAULTS.items():
        if words in reason and isinstance(error, ValueError):
            raise ConfigError(f"{root} {fault} ({shown}). Name one with --data.subset.") from error
    raise DataError(
        f"the data set {root} cannot be read ({shown}). Write or download it again, or name "
        "another with --data.root."
    ) from error


def _splits_without_rows(root: Path) -> list[str]:
    """Return what `save_to_disk` wrote no rows of: the whole set, or splits of it."""
    empty = []
    for path in (root / STATE, *sorted(root.glob(f"*/{STATE}"))) if is_saved_set(root) else ():
        with suppress(OSError, ValueError, AttributeError):
            if json.loads(path.read_bytes()).get("_data_files") == []:
                empty.append("it" if path.parent == root else f"split {quoted(path.parent.name)}")
    return empty


def _kind(feature: Any) -> Kind:
    """Return the type of a feature; `datasets` has classes for some, and Value for the others."""
    name = type(feature).__name__
    if isinstance(feature, dict):
        return Kind("record", fields={key: _kind(value) for key, value in feature.items()})
    if isinstance(feature, list):
        return Kind("list", item=_kind(feature[0]))
    if name in ("List", "LargeList", "Sequence"):
        return Kind("list", item=_kind(feature.feature))
    if name == "ClassLabel":
        return Kind("class", classes=tuple(feature.names or ()))
    if name != "Value":
        return Kind(name.lower())
    if feature.dtype in ("string", "large_string", "string_view"):
        return Kind("string")
    if feature.dtype in ("binary", "large_binary"):
        return Kind("bytes")
    is_integer = re.fullmatch(r"u?int\d+", feature.dtype) is not None
    return Kind("integer" if is_integer else feature.dtype)
