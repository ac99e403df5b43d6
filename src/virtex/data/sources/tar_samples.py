"""Images in a tar with their captions: which files belong together.

Captions have their image's name, but for the suffix. An image without such captions has those of
its group, the files whose names are equal up to the first dot: 1.input.jpg and 1.output.txt. If a
group has an image of just that name, its other images without captions of their own are additions,
such as 1.mask.png.
"""

import posixpath
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from virtex.data.image_files import IMAGE_SUFFIXES, PassedOver
from virtex.data.sources.tar_members import BrokenShardError, Extent, Member

KINDS = {**dict.fromkeys(IMAGE_SUFFIXES, "image"), ".txt": "text", ".json": "metadata"}


class TarSample(NamedTuple):
    """An image and its caption files."""

    key: str
    """The image's name without its suffix."""
    image: Extent
    text: Extent | None
    metadata: Extent | None


@dataclass
class _Files:
    """The files of one kind."""

    members: dict[str, Member] = field(default_factory=dict)
    """By stem: the normalized name without its suffix."""
    groups: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """Stems by what is before their first dot."""
    used: set[str] = field(default_factory=set)
    """Stems of the files that belong to a sample."""

    def add(self, member: Member, stem: str) -> None:
        """Add a file; a BrokenShardError says that there are two of its name."""
        if stem in self.members:
            raise BrokenShardError(f"it holds two files {member.name}, or one of the same stem")
        self.members[stem] = member
        self.groups[_group_of(stem)].append(stem)

    def find(self, stem: str) -> Extent | None:
        """Return a file, which then is used."""
        if stem not in self.members:
            return None
        self.used.add(stem)
        return self.members[stem].extent

    def find_alone(self, group: str) -> Extent | None:
        """Return the file of a group that has only one of this kind."""
        stems = self.groups.get(group, [])
        return self.find(stems[0]) if len(stems) == 1 else None

    def unused(self) -> list[str]:
        """Return the names of the files that belong to no sample."""
        return [one.name for stem, one in self.members.items() if stem not in self.used]


def find_samples(members: Iterable[Member]) -> tuple[list[TarSample], Counter[str]]:
    """Return the images with their captions, and a count by suffix of the files left out.

    Raises:
        BrokenShardError: Two images, or two caption files, have the same name.
    """
    files = {kind: _Files() for kind in ("image", "text", "metadata")}
    passed_over = PassedOver()
    for member in members:
        stem, suffix = posixpath.splitext(posixpath.normpath(member.name))
        kind = KINDS.get(suffix.lower())
        if posixpath.basename(stem).startswith("."):  # hidden, as in folders
            continue
        if kind is None:
            passed_over.add([member.name])
        else:
            files[kind].add(member, stem)
    samples = _join(**files)
    for one in files.values():
        passed_over.add(one.unused())
    return samples, passed_over.counts


def _join(image: _Files, text: _Files, metadata: _Files) -> list[TarSample]:
    """Return the samples, in the order of their images."""
    samples = []
    additions = _additions(image, text, metadata)
    for stem, member in image.members.items():
        if stem in additions:
            continue
        image.used.add(stem)
        found = text.find(stem), metadata.find(stem)
        group = _group_of(stem)
        if found == (None, None) and set(image.groups[group]) - additions == {stem}:
            found = text.find_alone(group), metadata.find_alone(group)
        samples.append(TarSample(posixpath.splitext(member.name)[0], member.extent, *found))
    return samples


def _additions(images: _Files, texts: _Files, metadata: _Files) -> set[str]:
    """Return the stems of the images that belong to the image of their group."""
    return {
        stem
        for group, stems in images.groups.items()
        if group in images.members
        for stem in stems
        if stem != group and stem not in texts.members and stem not in metadata.members
    }


def _group_of(stem: str) -> str:
    folder, name = posixpath.split(stem)
    return posixpath.join(folder, name.partition(".")[0])
