"""The images that a file of COCO's form lists: ids, paths and sizes."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from virtex.data.checks import Problems, absent_files, path_inside
from virtex.data.packed import PackedStrings
from virtex.data.sources.coco_file import CocoFile
from virtex.data.sources.coco_masks import is_numbers


def read_images(
    file: CocoFile,
    folder: Path,
    problems: Problems,
    *,
    field: str = "file_name",
    path_of: Callable[[str], str] = str,
) -> tuple[list[str], PackedStrings]:
    """Ids, and paths relative to `folder`, of all images.

    Args:
        field: What tells where the image lies.
        path_of: Makes the path out of it.
    """
    rows = file.rows_with("images", {"id": int | str, field: str})
    ids = [str(row["id"]) for row in rows]
    file.check_ids("image", ids)
    absolute = os.path.abspath(folder)  # noqa: PTH100 (resolve() would follow links)
    names = [path_inside(absolute, path_of(row[field])) for row in rows]
    leaving = [row[field] for row, name in zip(rows, names, strict=True) if name is None]
    file.add_all(f"images outside {folder}", leaving, "Move them into it.")
    paths = [name or "" for name in names]
    if not rows:
        problems.add(f"{file.name} lists no images. Is it the right file?")
    elif not folder.is_dir():
        problems.add(f"the folder of images, {folder}, is missing. Unpack the images there.")
    else:
        absent = absent_files(folder, (name for name in paths if name))
        remedy = f"Put them into {folder}, or remove them from {file.name}."
        file.add_all("images listed but absent", absent, remedy)
    return ids, PackedStrings(paths)


def positions_of(ids: list[str]) -> dict[str, int]:
    """Where each image stands."""
    return {image_id: place for place, image_id in enumerate(dict.fromkeys(ids))}


def read_sizes(file: CocoFile, positions: dict[str, int]) -> NDArray[np.float64]:
    """(N, 2) height and width of each image; NaN where the file does not say it."""
    sizes = np.full((len(positions), 2), np.nan)
    broken = []
    for row in file.rows("images"):
        place, size = positions.get(str(row.get("id"))), [row.get("height"), row.get("width")]
        if place is None or size == [None, None]:
            continue
        if is_numbers(size) and min(size) > 0:
            sizes[place] = size
        else:
            broken.append(f"image {row.get('id')}: {size[1]} x {size[0]}")
    remedy = "Both are pixels, or both are left out."
    file.add_all('images whose "width" or "height" is missing or broken', broken, remedy)
    return sizes
