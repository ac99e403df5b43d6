"""Pieces of a shard, packed by worker processes."""

from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from typing import Any, NamedTuple

from torch.utils.data import Dataset

from virtex.data.example import Example, Source
from virtex.data.images import BadImageError
from virtex.data.shard_files import sample_files
from virtex.data.sidecars import TEXT_KEY
from virtex.data.workers import Prepared
from virtex.errors import VirTexError
from virtex.pack.packed_image import PackedImage, pack_image
from virtex.pack.shard_plan import Piece, ShardPlan

PREFETCH = 4
REMEDY = "Lower --processes, or give the command more memory"


class LeftOut(NamedTuple):
    """An example without a readable image."""

    key: str
    image_id: str
    location: str
    reason: str


class PackedPiece(NamedTuple):
    """A piece of a shard as a worker sends it."""

    tar: bytes
    """The members of its examples, one after another."""
    num_examples: int
    num_source_bytes: int
    left_out: list[LeftOut]
    error: VirTexError | None = None


class Packer(Dataset[PackedPiece]):
    """A data set whose items are pieces of shards."""

    def __init__(self, source: Source, plan: ShardPlan, *, short_side: int, quality: int) -> None:
        self.source, self.plan = source, plan
        self.short_side, self.quality = short_side, quality

    def __getitem__(self, piece: Piece) -> PackedPiece:
        tar, left_out, num_source_bytes = bytearray(), list[LeftOut](), 0
        try:
            for position, index in enumerate(self.plan.indices(piece), start=piece.start):
                example, key = self.source[index], self.plan.key(piece.shard, position)
                try:
                    image = pack_image(example, short_side=self.short_side, quality=self.quality)
                except BadImageError as error:
                    left_out.append(LeftOut(key, example.image_id, error.location, error.reason))
                    continue
                tar += self._files(key, example, image)
                num_source_bytes += image.num_source_bytes
        except VirTexError as error:  # which torch would wrap in the worker's traceback
            return PackedPiece(b"", 0, 0, left_out, error)
        num_examples = piece.stop - piece.start - len(left_out)
        return PackedPiece(bytes(tar), num_examples, num_source_bytes, left_out)

    def _files(self, key: str, example: Example, image: PackedImage) -> bytes:
        """Return the members of one example."""
        (width, height), (original_width, original_height) = image.size, image.original_size
        metadata: dict[str, Any] = {
            "id": example.image_id,
            "captions": list(example.captions),
            "width": width,
            "height": height,
            "original_width": original_width,
            "original_height": original_height,
        }
        if example.labels:
            names = [self.source.categories[label] for label in example.labels]
            metadata |= {"labels": list(example.labels), "label_names": names}
        by_key = self._by_key(example)
        return sample_files(
            key,
            image.data,
            suffix=image.suffix,
            captions=by_key.pop(TEXT_KEY, example.captions),
            metadata=metadata,
            captions_by_key=by_key,
        )

    def _by_key(self, example: Example) -> dict[str, Sequence[str]]:
        """Return the captions under each key of the source."""
        by_key: dict[str, Sequence[str]] = {}
        if self.source.caption_keys:
            keys = example.caption_keys or (TEXT_KEY,) * len(example.captions)  # of a mixed source
            captions = list(zip(keys, example.captions, strict=True))
            for key in self.source.caption_keys:
                by_key[key] = [caption for own, caption in captions if own == key]
        return by_key


def packed_pieces(
    packer: Packer, pieces: Iterable[Piece], *, num_processes: int
) -> Generator[PackedPiece]:
    """Yield pieces in their order; one process packs them itself, several start workers.

    Raises:
        VirTexError: The source cannot give an example, or a worker has died.
    """
    num_workers = num_processes if num_processes > 1 else 0
    with closing(
        Prepared(packer, pieces, num_workers=num_workers, prefetch=PREFETCH, remedy=REMEDY)
    ) as prepared:
        for packed in prepared:
            if packed.error is not None:
                raise packed.error
            yield packed
