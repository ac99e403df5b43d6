"""Images that one file lists with their captions, at paths below one folder."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from virtex.data.checks import Problems, absent_files, path_inside
from virtex.data.example import Example, ImageFile, Source
from virtex.data.missing_captions import good_captions, skipped_identity
from virtex.data.packed import PackedLists, PackedStrings


class ListedCaptions(Source):
    """Images with captions, in the order of the list.

    Args:
        listed: The captions of each image, by its path below `folder`.
        origin: First entries of the identity.
        with_captions: Keep captions, and skip images without one.
        missing_caption_limit: See `SourceConfig`.

    Raises:
        DataError: All problems, those that are in `problems` included.
    """

    def __init__(
        self,
        listed: Mapping[str, Sequence[object]],
        *,
        folder: Path,
        origin: Mapping[str, str],
        problems: Problems,
        with_captions: bool,
        missing_caption_limit: float,
    ) -> None:
        self.folder, self._origin = folder, origin
        self._num_listed = len(listed)
        _check_images(listed, folder, problems)
        names = list(listed)
        self._captions: PackedLists | None = None
        if with_captions:
            captions = good_captions(
                listed.items(), kind="images", limit=missing_caption_limit, problems=problems
            )
            names = [name for name, texts in zip(names, captions, strict=True) if texts]
            self._captions = PackedLists([texts for texts in captions if texts])
        problems.check()
        self.image_ids = PackedStrings(names)

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: int) -> Example:
        name = self.image_ids[index]
        return Example(image_id=name, image=self.folder / name, captions=self.captions(index))

    def image_file(self, index: int) -> ImageFile:
        return ImageFile(f"{self.folder}/{self.image_ids[index]}")

    def captions(self, index: int) -> tuple[str, ...]:
        return () if self._captions is None else self._captions[index]

    def identity(self) -> dict[str, str | int]:
        counts: dict[str, str | int] = {"images": len(self)}
        if self._captions is not None:
            counts["captions"] = len(self._captions.strings)
        return {**self._origin, **counts, **skipped_identity(self._num_listed - len(self))}


def _check_images(names: Mapping[str, object], folder: Path, problems: Problems) -> None:
    """Add problems for images that are absent or outside the folder, or if there are none."""
    if not names:
        problems.add("It lists no images. Is it the right file?")
    root = os.path.abspath(folder)  # noqa: PTH100 (resolve() would follow links)
    outside = [name for name in names if path_inside(root, name) != name]
    problems.add_all(f"image paths that lead out of {folder}", outside, "Correct them.")
    remedy = f"Put them below {folder}, or name another folder with --data.image_root."
    inside = set(names) - set(outside)
    problems.add_all("images listed but absent", absent_files(folder, inside), remedy)
