"""Rows of a data set of the library `datasets`: images with captions or labels, read by index."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from virtex.data.checks import Problems, absent_files, sha256_of_strings
from virtex.data.example import Example, ImageFile, Source
from virtex.data.missing_captions import good_captions, skipped_identity
from virtex.data.packed import PackedLists, PackedStrings, starts_of
from virtex.data.pixels import MAX_FILE_BYTES, BadImageError
from virtex.data.source_options import MISSING_CAPTION_LIMIT, Needs
from virtex.data.sources.huggingface_columns import (
    Chosen,
    choose_caption,
    choose_image,
    choose_label,
    item_of,
    texts_in,
)
from virtex.data.sources.huggingface_sets import WHOLE, Kind, Rows, cache_folder, kinds_of
from virtex.errors import ConfigError

MAX_CLASSES = 1_000_000
"""Largest label plus one where classes have no names, since each takes a row of a classifier."""


class HuggingFaceSource(Source):
    """The rows of one split; each is an example, also if several rows have the same image.

    An example's id is the file name that the data set keeps of its image or, if not each row has a
    name of its own, the number of the row.

    Args:
        splits: All splits, as `load_splits` returns them.
        image_column, caption_column, label_column, missing_caption_limit: See `SourceConfig`.
        needs: What is read beside the images; without captions, no row is skipped.

    Raises:
        ConfigError: Several columns fit, or a named one does not.
    """

    def __init__(
        self,
        root: Path,
        splits: Mapping[str, Any],
        split: str,
        *,
        image_column: str | None = None,
        caption_column: str | None = None,
        label_column: str | None = None,
        needs: Needs,
        missing_caption_limit: float = MISSING_CAPTION_LIMIT,
    ) -> None:
        of_split = f" (split {split})" if split != WHOLE else ""
        problems = Problems(f"the data set {root}{of_split}")
        self.root, self.split = root, split
        dataset, kinds = splits[split], kinds_of(splits[split])
        self._columns = {"image": _chosen(choose_image, image_column, kinds, problems)}
        if needs.captions:
            self._columns["caption"] = _chosen(choose_caption, caption_column, kinds, problems)
        if needs.labels:
            self._columns["label"] = _chosen(choose_label, label_column, kinds, problems)
        if not len(dataset):
            problems.add("It has no rows. Name another split with --data.train_split.")
        problems.check()
        self._images = Rows(dataset, self._columns["image"].column)
        # A data set of others may name files of its download alone, one's own any file.
        within = None if root.is_dir() else cache_folder()
        names, self._sizes = _names_and_sizes(self._images, problems, within=within)
        self.row_names = PackedStrings(names)
        """The file name of each example's image, which several may share, or its row's number."""
        ids = names if len(set(names)) == len(names) else map(str, range(len(names)))
        self.image_ids, self._rows = PackedStrings(ids), np.arange(len(names))
        self._captions: PackedLists | None = None
        if needs.captions:
            rows = _captions(dataset, self._columns["caption"])
            self._keep(
                good_captions(rows, kind="rows", limit=missing_caption_limit, problems=problems)
            )
        self._labels: NDArray[np.int64] | None = None
        if needs.labels:
            column = self._columns["label"].column
            self.categories = _categories(kinds[column], column, splits.values(), problems)
            self._labels, self._label_starts = _labels(Rows(dataset, column), self, problems)
        problems.check()

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: int) -> Example:
        captions, labels = self.captions(index), self.labels(index)
        return Example(self.image_id(index), self._image(index), captions, labels=labels)

    def image_id(self, index: int) -> str:
        return self.image_ids[index]

    def image_file(self, index: int) -> ImageFile:
        return ImageFile(str(self.root / self.split), int(self._rows[index]))

    def captions(self, index: int) -> tuple[str, ...]:
        return () if self._captions is None else self._captions[index]

    def labels(self, index: int) -> tuple[int, ...]:
        if self._labels is None:
            return ()
        row = self._rows[index]
        first, end = self._label_starts[row : row + 2].tolist()
        return tuple(self._labels[first:end].tolist())

    def identity(self) -> dict[str, str | int]:
        counts: dict[str, str | int] = {"images": len(self)}
        if self._captions is not None:
            counts["captions"] = len(self._captions.strings)
        if self.categories:
            counts["classes"] = len(self.categories)
        columns = {f"{use}_column": str(chosen) for use, chosen in self._columns.items()}
        origin = {"source": "huggingface", "root": str(self.root), "split": self.split}
        skipped = skipped_identity(len(self._images) - len(self))
        return {**origin, **columns, **counts, **skipped, "sha256": self._sha256()}

    def _sha256(self) -> str:
        """Return a digest of the examples, with the sizes of their image files for the pixels."""
        return sha256_of_strings(
            text
            for index in range(len(self))
            for text in (
                self.image_id(index),
                str(self._sizes[self._rows[index]]),
                *map(str, self.labels(index)),
                *self.captions(index),
                "",
            )
        )

    def _image(self, index: int) -> bytes | Path:
        """Return the bytes of an image's file, or its path where the data set holds that alone."""
        row = int(self._rows[index])
        if (size := int(self._sizes[row])) > MAX_FILE_BYTES:
            raise BadImageError(self.image_id(index), f"a file of {size:,} bytes")
        value = self._images[row]
        if not isinstance(value, dict):
            return value or b""
        return Path(value["path"]) if value["bytes"] is None else value["bytes"]

    def _keep(self, captions: list[list[str]]) -> None:
        """Keep the captions of all rows, and leave out those without one."""
        kept = [row for row, texts in enumerate(captions) if texts]
        self._captions = PackedLists([captions[row] for row in kept])
        if len(kept) < len(captions):
            self._rows = np.asarray(kept, np.int64)
            self.image_ids = PackedStrings(self.image_ids[row] for row in kept)
            self.row_names = PackedStrings(self.row_names[row] for row in kept)


def _chosen(choose: Any, named: str | None, kinds: Mapping[str, Kind], problems: Problems) -> Any:
    """Return a chosen column; an error names the data set."""
    try:
        return choose(named, kinds, problems)
    except ConfigError as error:
        raise ConfigError(f"{problems.subject}: {error}") from error


def _names_and_sizes(
    images: Rows, problems: Problems, *, within: Path | None
) -> tuple[list[str], NDArray[np.int64]]:
    """Return each row's file name, or number without one, and the size of its bytes, or -1.

    The bytes are not touched.
    """
    import pyarrow
    from pyarrow import compute

    paths: list[str | None] = []
    sizes = [np.empty(0, np.int64)]
    for array in images.arrays():
        is_record = pyarrow.types.is_struct(array.type)
        data = compute.struct_field(array, "bytes") if is_record else array
        has_path = is_record and array.type.get_field_index("path") >= 0
        found = compute.struct_field(array, "path").to_pylist() if has_path else [None] * len(array)
        paths += found
        sizes.append(compute.fill_null(compute.binary_length(data), -1).to_numpy())
    joined = np.concatenate(sizes)
    _check_images(paths, joined, problems, within=within)
    return [_name(row, path) for row, path in enumerate(paths)], joined


def _name(row: int, path: str | None) -> str:
    return (path or "").rpartition("/")[2] or str(row)


def _check_images(
    paths: Sequence[str | None],
    sizes: NDArray[np.int64],
    problems: Problems,
    *,
    within: Path | None,
) -> None:
    """Add a problem for the rows that have neither bytes nor a path of a file here.

    Args:
        within: Folder that the files must lie in; None: they may lie anywhere.
    """
    outside = {row: paths[row] for row in np.flatnonzero(sizes < 0).tolist()}
    files = {path[1:] for path in outside.values() if path and path.startswith(os.sep)}
    absent = set(absent_files(Path(os.sep), files))
    lost = [
        f"row {row}: {path}"
        for row, path in outside.items()
        if not path
        or path[1:] in absent
        or not path.startswith(os.sep)
        or (within is not None and not Path(path).resolve().is_relative_to(within))
    ]
    remedy = "Save the data set with its images, as save_to_disk does, or remove these rows."
    problems.add_all("rows whose image is neither in the data set nor a file", lost, remedy)


def _captions(dataset: Any, chosen: Chosen) -> Iterator[tuple[str, list[object]]]:
    """Yield the name of each row and its captions, of any type."""
    for row, value in enumerate(Rows(dataset, chosen.column).values()):
        yield f"row {row}", list(texts_in(value, chosen.field))


def _categories(kind: Kind, column: str, datasets: Any, problems: Problems) -> tuple[str, ...]:
    """Return the names of the classes; of integers the numbers up to the largest of all splits."""
    if (classes := item_of(kind).classes) or item_of(kind).name == "class":
        return classes
    largest = max(
        (
            label
            for dataset in datasets
            if column in dataset.features
            for value in Rows(dataset, column).values()
            for label in _list(value)
        ),
        default=-1,
    )
    if largest >= MAX_CLASSES:
        problems.fail(
            f"The largest label in column {column} is {largest:,}, above {MAX_CLASSES:,}. Name a "
            "column of classes with --data.label_column."
        )
    return tuple(map(str, range(largest + 1)))


def _labels(
    rows: Rows, source: Source, problems: Problems
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the labels of all rows (P,), and where those of each row start."""
    values = [_list(value) for value in rows.values()]
    bad = [
        f"row {row}"
        for row, labels in enumerate(values)
        if any(not 0 <= label < len(source.categories) for label in labels)
    ]
    remedy = "A label must be from 0 to the number of classes less one. Name another split."
    problems.add_all("rows with a label that is no class", bad, remedy)
    flat = np.fromiter((label for labels in values for label in labels), np.int64)
    return flat, starts_of([len(labels) for labels in values])


def _list(value: Any) -> list[int]:
    """Return the distinct labels of a row in their order; null is none."""
    values = value if isinstance(value, list) else [value]
    return [label for label in dict.fromkeys(values) if label is not None]
