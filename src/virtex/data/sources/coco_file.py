"""COCO's annotation files: lists of JSON objects that refer to images by id."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from virtex.data.checks import Problems, read_json
from virtex.data.segmentations import is_numbers

KINDS = ("captions", "instances", "image_info")
NUMBER = re.compile(r" *[-+]?[0-9]{1,15}(\.[0-9]{0,20})?(e[-+]?[0-9]{1,3})? *", re.IGNORECASE)
Row = dict[str, Any]


class CocoFile:
    """One annotation file, whose problems are added to `problems` as it is read."""

    def __init__(self, path: Path, problems: Problems) -> None:
        self.name, self.problems = path.name, problems
        self._document, self.sha256 = read_json(path, problems)
        self._is_read = bool(self.sha256)
        self._rows: dict[str, list[Row]] = {}

    def rows(self, key: str) -> list[Row]:
        """Return the objects listed under `key`; their problems are added once."""
        if key not in self._rows:
            self._rows[key] = self._find_rows(key)
        return self._rows[key]

    def _find_rows(self, key: str) -> list[Row]:
        rows = self._document.get(key) if isinstance(self._document, dict) else None
        if not isinstance(rows, list):
            if self._is_read:
                self.problems.add(f'{self.name} has no list "{key}". Is it in COCO\'s format?')
            return []
        bad = [f"entry {index}" for index, row in enumerate(rows) if not isinstance(row, dict)]
        self.add_all(f'entries of "{key}" that are not objects', bad, "Remove or correct them.")
        return [row for row in rows if isinstance(row, dict)]

    def rows_with(self, key: str, field: str) -> list[Row]:
        """Return the objects listed under `key` that have an id, and text in `field`."""
        good: list[Row] = []
        bad: list[Row] = []
        for row in self.rows(key):
            is_whole = id_text(row.get("id")) is not None and isinstance(row.get(field), str)
            (good if is_whole else bad).append(row)
        remedy = "Each needs them, text or whole number as in COCO's own files."
        self.add_all(f'entries of "{key}" without "id" or "{field}"', bad, remedy)
        return good

    def annotations(
        self, images: dict[str, int], *, listed_by: str | None = None
    ) -> Iterator[tuple[int, Row]]:
        """Yield each annotation with the index of its image, which `images` gives by image id.

        Args:
            listed_by: Name of the file that lists these images, if it is another one.
        """
        rows = self.rows("annotations")
        ids = [row["id"] for row in rows if "id" in row]
        if any(one != ids[0] for one in ids):  # some exports write 0 everywhere
            self.check_ids("annotation", ids)
        unknown = []
        for row in rows:
            image = images.get(id_text(row.get("image_id")) or "")
            if image is None:
                unknown.append(row.get("image_id"))
            else:
                yield image, row
        own = self.image_ids() if unknown and listed_by is not None else set()
        remedy = "Add the image or remove the annotations."
        for is_own, what in ((False, 'is not under "images"'), (True, f"{listed_by} lacks")):
            names = [f"image_id {one}" for one in unknown if (id_text(one) in own) == is_own]
            self.add_all(f"annotations of an image that {what}", names, remedy)

    def image_ids(self) -> set[str]:
        """Return the ids of the images that the file lists."""
        return {id_text(row.get("id")) or "" for row in self.rows("images")}

    def check_ids(self, what: str, ids: Sequence[object]) -> None:
        """Add a problem for ids that occur more than once."""
        if len(set(texts := [id_text(one) or str(one) for one in ids])) < len(ids):
            twice = [one for one, count in Counter(texts).items() if count > 1]
            self.add_all(f"{what} ids given more than once", twice, "Make each id unique.")

    def add(self, text: str) -> None:
        """Add one problem of this file, if it could be read; `text` ends with what to do."""
        if self._is_read:
            self.problems.add(f"{self.name}: {text}")

    def add_all(self, what: str, items: Sequence[object], remedy: str) -> None:
        """Add one problem that all `items` of this file have."""
        self.problems.add_all(f"{self.name}: {what}", items, remedy)


def id_text(value: object) -> str | None:
    """Return an id as text, the same for 7, 7.0 and "7"; None if the value is no id."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value) if isinstance(value, int | str) and not isinstance(value, bool) else None


def numbers_in(values: object) -> list[float] | None:
    """Return a list of finite numbers, or of such numbers as text; None for anything else."""
    if isinstance(values, list) and values and all(isinstance(value, str) for value in values):
        if not all(NUMBER.fullmatch(value) for value in values):
            return None
        values = [float(value) for value in values]
    return values if is_numbers(values) else None


def kinds_of(*, with_captions: bool, with_instances: bool) -> list[str]:
    """Return the required files; none if only the images are needed."""
    return ["captions"] * with_captions + ["instances"] * with_instances


def matching_split(root: Path, split: str, kinds: Sequence[str]) -> str | None:
    """Return `split`, or `split` with 2017 appended, as the files have it; None without files.

    Args:
        kinds: Files that the split must have; any one of KINDS if empty.
    """
    for name in (split, f"{split}2017"):
        exist = [annotation_path(root, kind, name).is_file() for kind in kinds or KINDS]
        if all(exist) if kinds else any(exist):
            return name
    return None


def annotation_path(root: Path, kind: str, split: str) -> Path:
    """Return the path of an annotation file in COCO's layout."""
    return root / "annotations" / f"{kind}_{split}.json"


def find_split(root: Path, split: str, kinds: Sequence[str], problems: Problems) -> str:
    """Return `matching_split`, or raise a DataError if there is none."""
    name = matching_split(root, split, kinds)
    if name is None:
        folder = root / "annotations"
        needed = " and ".join(f"{kind}_{split}.json" for kind in kinds or KINDS[:1])
        found = sorted(path.name for kind in KINDS for path in folder.glob(f"{kind}_*.json"))
        problems.fail(
            f"{folder} must hold {needed} (or the same with 2017 after {split}) but holds "
            f"{', '.join(found) or 'no such file'}. Name the folder above annotations with "
            f"--data.root, and what follows {(*kinds, *KINDS)[0]}_ with --data.train_split or "
            "--data.val_split."
        )
    return name
