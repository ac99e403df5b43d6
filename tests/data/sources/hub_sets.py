"""Small data sets of the library `datasets`, made in memory."""

from typing import Any

import pytest

from tests.data.sources.layouts import jpeg

datasets = pytest.importorskip("datasets", reason="the library datasets is not installed")

IMAGE, TEXT = datasets.Image(), datasets.Value("string")
CLASSES = datasets.ClassLabel(names=["cat", "dog"])


def images(*values: int, name: str = "{}.jpg") -> list[dict[str, Any]]:
    """Gray JPEG files of these values, each with a file name."""
    return [{"bytes": jpeg(value), "path": name.format(value)} for value in values]


def make_set(features: dict[str, Any], **columns: list[Any]) -> Any:
    """Return a data set of these columns, with an image in each row."""
    count = len(next(iter(columns.values()))) if columns else 3
    columns.setdefault("image", images(*range(10, 10 + count)))
    features = {"image": IMAGE, **features}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def captioned(*captions: str | list[str], column: str = "caption", **more: list[Any]) -> Any:
    """Return a data set with a string or a list of strings for each image."""
    kind = datasets.List(TEXT) if isinstance(captions[0], list) else TEXT
    return make_set({column: kind}, **{column: list(captions)}, **more)
