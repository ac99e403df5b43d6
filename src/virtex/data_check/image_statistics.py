"""Statistics of the images of a source, of which a sample is read and decoded at reduced size."""

import errno
import itertools
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from virtex.data.example import Source
from virtex.data.images import BadImageError, Box, open_image
from virtex.data.pixels import MAX_FILE_BYTES
from virtex.data.shards.store_types import StoreError
from virtex.data_check.duplicates import hash_bytes
from virtex.errors import DataError
from virtex.files import read_regular
from virtex.progress import ProgressBar

AHEAD = 4
"""Images that each thread may be ahead."""
FORMATS = {
    b"\xff\xd8\xff": "JPEG", b"\x89PNG": "PNG", b"GIF8": "GIF", b"BM": "BMP", b"II*\0": "TIFF",
    b"MM\0*": "TIFF", **{b"P%d" % number: "PPM" for number in range(1, 7)},
}  # fmt: skip
"""First bytes of the formats."""
OTHER, DRAWN = "other", "pixels"
OF_THE_SYSTEM = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""Errors that no image causes."""


class ImageFacts(NamedTuple):
    """What is known of one image."""

    height: int
    width: int
    num_bytes: int
    format: str
    digest: int
    fault: str
    """Reason why it cannot be read; empty if it can."""


@dataclass
class ImageStatistics:
    """Facts of the R images that were read."""

    indices: NDArray[np.int64]
    """Index of each image in its source, ascending."""
    heights: NDArray[np.int64] = field(init=False)
    """Height in pixels; 0 where the image cannot be read, as its width."""
    widths: NDArray[np.int64] = field(init=False)
    num_bytes: NDArray[np.int64] = field(init=False)
    digests: NDArray[np.int64] = field(init=False)
    formats: Counter[str] = field(default_factory=Counter)
    faults: dict[int, str] = field(default_factory=dict)
    """Reason why an image cannot be read, by its index."""

    def __post_init__(self) -> None:
        for name in ("heights", "widths", "num_bytes", "digests"):
            setattr(self, name, np.zeros(len(self.indices), np.int64))

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def is_good(self) -> NDArray[np.bool_]:
        """Whether each image could be read."""
        return self.heights > 0

    @property
    def short_sides(self) -> NDArray[np.int64]:
        """Short sides of the images that could be read."""
        return np.minimum(self.heights, self.widths)[self.is_good]

    def add(self, position: int, facts: ImageFacts) -> None:
        """Enter the facts of the image at a position of `indices`."""
        self.heights[position], self.widths[position] = facts.height, facts.width
        self.num_bytes[position], self.digests[position] = facts.num_bytes, facts.digest
        self.formats[facts.format] += 1
        if facts.fault:
            self.faults[int(self.indices[position])] = facts.fault


class ImageReader:
    """Reads and decodes the images at some indices of a source, in parts or at once.

    Args:
        indices: Ascending.
    """

    def __init__(self, source: Source, indices: NDArray[np.int64], *, num_threads: int) -> None:
        self.source, self.num_threads = source, num_threads
        self.statistics = ImageStatistics(indices)
        self.num_read = 0

    def read_before(self, stop: int) -> None:
        """Read the images before an index that have not been read yet, whatever they are."""
        end = int(np.searchsorted(self.statistics.indices, stop))
        if end > self.num_read:
            self._read(end, lambda: None)

    def read_rest(self, title: str) -> ImageStatistics:
        """Read the images that are left, and return the facts of all."""
        total = len(self.statistics)
        if total > self.num_read:
            with ProgressBar(title, total, start=self.num_read) as bar:
                self._read(total, bar.advance)
        return self.statistics

    def _read(self, end: int, on_image: Callable[[], object]) -> None:
        indices = self.statistics.indices[self.num_read : end].tolist()
        with (
            warnings.catch_warnings(),  # here: readers in threads restore each other's filters
            ThreadPoolExecutor(self.num_threads) as threads,
        ):
            warnings.simplefilter("ignore")
            for one in _in_order(threads, self.source, indices, ahead=AHEAD * self.num_threads):
                self.statistics.add(self.num_read, one)
                self.num_read += 1
                on_image()


def facts_of(source: Source, index: int) -> ImageFacts:
    """Read and decode one image at reduced size."""
    height = width = digest = 0
    data: bytes | bytearray = b""
    kind = OTHER
    try:
        image = source[index].image
        if isinstance(image, np.ndarray):
            data, kind = image.tobytes(), DRAWN
            opened = open_image(image)
        else:
            data = read_regular(image, limit=MAX_FILE_BYTES) if isinstance(image, Path) else image
            kind = format_of(data)
            opened = open_image(bytes(data))
        digest = hash_bytes(data)
        opened.decode(Box(0, 0, opened.height, opened.width), min_size=1)
        height, width = opened.height, opened.width
    except StoreError:  # no fault of the image
        raise
    except (DataError, OSError) as error:
        if isinstance(error, OSError) and error.errno in OF_THE_SYSTEM:
            raise
        return ImageFacts(0, 0, len(data), kind, digest or hash_bytes(data), _reason(error))
    return ImageFacts(height, width, len(data), kind, digest, "")


def format_of(data: bytes | bytearray) -> str:
    """Return the name of an image file's format, by its first bytes."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    if data[4:12] in (b"ftypavif", b"ftypavis"):
        return "AVIF"
    return next((name for start, name in FORMATS.items() if data.startswith(start)), OTHER)


def _reason(error: Exception) -> str:
    if isinstance(error, BadImageError):
        return error.reason
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _in_order(
    threads: ThreadPoolExecutor, source: Source, indices: Iterable[int], *, ahead: int
) -> Iterator[ImageFacts]:
    """Yield the facts of images in order, while threads read a few more."""
    pending: deque[Future[ImageFacts]] = deque()
    rest = iter(indices)
    for index in itertools.islice(rest, ahead):
        pending.append(threads.submit(facts_of, source, index))
    while pending:
        yield pending.popleft().result()
        for index in itertools.islice(rest, 1):
            pending.append(threads.submit(facts_of, source, index))
