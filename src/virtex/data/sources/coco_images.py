"""The images that a file in COCO's format lists: ids, paths and sizes."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from virtex.data.checks import absent_files, path_inside, repaired_paths
from virtex.data.example import Example, ImageFile
from virtex.data.packed import PackedStrings
from virtex.data.sources.coco_file import CocoFile, id_text, numbers_in


@dataclass(frozen=True, eq=False)
class CocoImages:
    """The listed images (N) without annotations."""

    folder: Path
    ids: PackedStrings
    paths: PackedStrings
    """Paths of the images relative to `folder`, (N,)."""

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Example:
        return Example(image_id=self.ids[index], image=self.folder / self.paths[index])

    def file(self, index: int) -> ImageFile:
        """Return where an image is stored."""
        return ImageFile(f"{self.folder}/{self.paths[index]}")

    def indices(self) -> dict[str, int]:
        """Return the index of each image by its id."""
        return {image_id: index for index, image_id in enumerate(dict.fromkeys(self.ids))}


def read_images(
    file: CocoFile,
    folder: Path,
    *,
    field: str = "file_name",
    path_of: Callable[[str], str] = str,
) -> CocoImages:
    """Return the images that a file lists.

    Args:
        field: Name of the field that locates an image.
        path_of: Returns the path relative to `folder` from the field's value.
    """
    rows = file.rows_with("images", field)
    ids = [id_text(row["id"]) or "" for row in rows]
    file.check_ids("image", ids)
    absolute = os.path.abspath(folder)  # noqa: PTH100 (resolve() would follow links)
    names = [path_inside(absolute, path_of(row[field])) for row in rows]
    leaving = [row[field] for row, name in zip(rows, names, strict=True) if name is None]
    file.add_all(f"images outside {folder}", leaving, "Move them into it.")
    paths = [name or "" for name in names]
    if not rows:
        file.problems.add(f"{file.name} lists no images. Is it the right file?")
    elif not folder.is_dir():
        file.problems.add(f"the folder of images, {folder}, is missing. Unpack the images there.")
    else:
        absent = absent_files(folder, (name for name in paths if name))
        repaired = repaired_paths(folder, absent)
        paths = [repaired.get(name, name) for name in paths]
        absent = [name for name in absent if name not in repaired]
        remedy = f"Put them into {folder}, or remove them from {file.name}."
        file.add_all("images listed but absent", absent, remedy)
    return CocoImages(folder, PackedStrings(ids), PackedStrings(paths))


def read_sizes(file: CocoFile, indices: dict[str, int]) -> NDArray[np.float64]:
    """Return the height and width of each image (N, 2), NaN where the file lacks them."""
    sizes = np.full((len(indices), 2), np.nan)
    broken = []
    for row in file.rows("images"):
        index = indices.get(id_text(row.get("id")) or "")
        size = [row.get("height"), row.get("width")]
        if index is None or size == [None, None]:
            continue
        numbers = numbers_in(size)
        if numbers is not None and min(numbers) > 0:
            sizes[index] = numbers
        else:
            broken.append(f"image {row.get('id')}: {size[1]} x {size[0]}")
    remedy = "Both are pixels, or both are left out."
    file.add_all('images whose "width" or "height" is missing or broken', broken, remedy)
    return sizes
