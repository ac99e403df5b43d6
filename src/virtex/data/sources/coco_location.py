"""Where a data set in COCO's format lies: in COCO's layout, or in files that are named."""

from collections.abc import Sequence
from pathlib import Path

from virtex.data.checks import Problems
from virtex.data.sources.coco_file import KINDS, CocoFile, annotation_path, find_split
from virtex.data.sources.image_folders import image_folder


def is_annotation_file(root: Path) -> bool:
    """Whether a root names one annotation file, not the folder of COCO's layout."""
    return root.suffix.lower() == ".json"


def annotation_files(
    root: Path, split: str, kinds: Sequence[str], problems: Problems
) -> tuple[str, dict[str, Path]]:
    """Return the split's name and the path of each of the required files, or of one of images.

    A named file gives the split its name: train2017 for captions_train2017.json. Where instances
    are required, instances_train2017.json beside it is read too, if it exists.

    Raises:
        DataError: COCO's layout has no such split, or the named file does not exist.
    """
    if not is_annotation_file(root):
        name = find_split(root, split, kinds, problems)
        paths = {kind: annotation_path(root, kind, name) for kind in KINDS}
        kinds = kinds or [kind for kind in KINDS if paths[kind].is_file()][:1]
        return name, {kind: paths[kind] for kind in kinds}
    if not root.is_file():
        problems.fail("There is no such file. Name an annotation file with --data.root.")
    first, _, rest = root.stem.partition("_")
    if first not in KINDS or not rest:
        return root.stem, dict.fromkeys(kinds or KINDS[:1], root)
    paths = {kind: root.with_name(f"{kind}_{rest}{root.suffix}") for kind in kinds or [first]}
    return rest, {kind: path if path.is_file() else root for kind, path in paths.items()}


def folder_of_images(
    root: Path, split: str, image_root: Path | None, file: CocoFile, problems: Problems
) -> Path:
    """Return the folder of a split's images: in `image_root`, or else in COCO's layout.

    Raises:
        DataError: A named file's images lie in several folders near it.
    """
    if image_root is None and not is_annotation_file(root):
        return root / split
    names = (str(row.get("file_name", "")) for row in file.rows("images"))
    beside = root.parent.parent / split if image_root is None else image_root / split
    path = root if is_annotation_file(root) else root / "annotations" / file.name
    return image_folder(path, names, problems, named=image_root, first=beside)
