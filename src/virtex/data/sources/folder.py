"""A folder of images with caption files beside them; also img2dataset's "files" layout."""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import groupby
from pathlib import Path

from virtex.data.checks import Problems, quoted, sha256_of_captions, sha256_of_strings
from virtex.data.example import Example, ImageFile, Source
from virtex.data.image_files import PassedOver, is_image, suffix_of, walk
from virtex.data.missing_captions import skipped_identity
from virtex.data.packed import PackedLists, PackedStrings
from virtex.data.sidecars import (
    MAX_BYTES,
    NO_KEYS,
    UNREADABLE,
    Sidecar,
    find_captioned,
    key_counts,
    keys_and_weights,
    keys_identity,
    read_sidecar,
)
from virtex.data.source_options import MISSING_CAPTION_LIMIT
from virtex.errors import listing, one_line
from virtex.files import read_regular

log = logging.getLogger("virtex")

SUFFIXES = (".txt", ".json")
"""Suffixes of captions, in upper or lower case."""


class FolderSource(Source):
    """Images at any depth under `root`; the captions of x.jpg are in x.txt, or else in x.json.

    Hidden files and folders are left out. `with_captions`, images without a caption are skipped.

    Args:
        missing_caption_limit, caption_keys: See `SourceConfig`.
    """

    def __init__(
        self,
        root: Path,
        *,
        with_captions: bool = True,
        missing_caption_limit: float = MISSING_CAPTION_LIMIT,
        caption_keys: Mapping[str, float] = NO_KEYS,
    ) -> None:
        problems = Problems(f"the folder {root}")
        if not root.is_dir():
            problems.fail("It is not a folder. Name a folder of images with --data.root.")
        self.root = root
        self._keys = dict(caption_keys)
        keys = caption_keys if with_captions else None
        names, sidecars, passed_over = _search(root, keys=keys)
        passed_over.log(root)
        if not names:
            nothing = passed_over.within("There are no images in it.")
            problems.add(f"{nothing} Name a folder of images with --data.root.")
        self._captions: PackedLists | None = None
        self._num_skipped = 0
        if with_captions:
            faults = [sidecar.fault for sidecar in sidecars]
            kept = find_captioned(names, faults, problems, limit=missing_caption_limit).tolist()
            _log_shared(root, (names[index] for index in kept))
            self._captions = PackedLists([sidecars[index].captions for index in kept])
            self.caption_keys = tuple(caption_keys)
            self._key_counts = key_counts([sidecars[index] for index in kept], caption_keys)
            self._num_skipped = len(names) - len(kept)
            names = [names[index] for index in kept]
        self.image_ids = PackedStrings(names)
        problems.check()

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: int) -> Example:
        name = self.image_ids[index]
        if self._captions is None:
            return Example(name, self.root / name)
        keys, weights = keys_and_weights(self._key_counts[index].tolist(), self._keys)
        return Example(name, self.root / name, self._captions[index], weights, keys)

    def image_file(self, index: int) -> ImageFile:
        return ImageFile(f"{self.root}/{self.image_ids[index]}")

    def identity(self) -> dict[str, str | int]:
        own: dict[str, str | int] = {"source": "folder", "root": str(self.root)}
        own["images"] = len(self)
        if self._captions is None:
            return {**own, "names_sha256": sha256_of_strings(self.image_ids)}
        own["captions"] = len(self._captions.strings)
        own |= skipped_identity(self._num_skipped) | keys_identity(self._keys)
        return {**own, "sha256": sha256_of_captions(self.image_ids, self._captions)}


def _search(
    root: Path, *, keys: Mapping[str, float] | None
) -> tuple[list[str], list[Sidecar], PassedOver]:
    """Return the images below a folder, their captions, and what else it holds.

    Args:
        keys: Keys of captions, if any are; None if captions are not read.
    """
    names: list[str] = []
    sidecars: list[Sidecar] = []
    passed_over = PassedOver()
    for prefix, files in walk(root):
        beside = _caption_files(files)
        images = [name for name in files if is_image(name)]
        names += [prefix + name for name in images]
        if keys is not None:
            sidecars += [_read_beside(root / prefix, name, beside, keys) for name in images]
        passed_over.add(_left_out(files, images, beside))
    return names, sidecars, passed_over


def _caption_files(files: list[str]) -> dict[str, str]:
    """Return the caption files in a folder by their names with a suffix in lower case.

    Of a.TXT and a.txt the latter, which comes last in the sorted list.
    """
    suffixes = ((name, suffix_of(name)) for name in files)
    return {_stem(name) + suffix: name for name, suffix in suffixes if suffix in SUFFIXES}


def _read_beside(
    folder: Path, image_name: str, beside: dict[str, str], keys: Mapping[str, float]
) -> Sidecar:
    """Return the captions in the files beside an image; `beside` are those in `folder`."""
    text_name, metadata_name = (beside.get(_stem(image_name) + suffix) for suffix in SUFFIXES)
    try:
        text = _read(folder, text_name)
        is_enough = text is not None and not keys
        metadata = None if is_enough else _read(folder, metadata_name)
    except OSError:
        return Sidecar((), UNREADABLE)
    return read_sidecar(text, metadata, keys)


def _read(folder: Path, name: str | None) -> bytes | None:
    return None if name is None else bytes(read_regular(folder / name, limit=MAX_BYTES))


def _log_shared(root: Path, names: Iterable[str]) -> None:
    """Log the images with captions whose files are those of another image too."""
    shared: list[str] = []
    for _, one_folder in groupby(names, key=lambda name: name.rpartition("/")[0]):
        images = list(one_folder)
        counts = Counter(map(_stem, images))
        shared += [name for name in images if counts[_stem(name)] > 1]
    if shared:
        log.warning(
            "%s: %s images share a caption file with an image of the same name but for the suffix "
            "(%s). If some are masks or copies, move them out of it",
            one_line(str(root)), f"{len(shared):,}", listing(map(quoted, shared)),
        )  # fmt: skip


def _left_out(files: list[str], images: list[str], beside: dict[str, str]) -> list[str]:
    """Return the files in a folder that are neither images nor an image's captions."""
    used = {beside.get(_stem(name) + suffix) for name in images for suffix in SUFFIXES}
    return [name for name in files if not is_image(name) and name not in used]


def _stem(name: str) -> str:
    return name.rpartition(".")[0]
