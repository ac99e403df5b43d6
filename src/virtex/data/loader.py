"""Batches whose content depends on the seed and the step alone.

virtex.data.order says which examples make up a batch; the randomness of each comes from (seed,
epoch, index) and, if repeated, the repetition. So workers, ranks and the step at which a run
resumes change nothing. Each batch also holds `index` (B,), the indices of its examples.

A bad image is counted and logged, and an example that the source names replaces it, by default one
drawn from (seed, epoch, index), until too many images are bad.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from virtex.data.example import Example, Source
from virtex.data.fault_log import FaultLog
from virtex.data.images import BadImageError
from virtex.data.lanes import LaneOrder
from virtex.data.order import Sample, TrainingOrder, validation_order
from virtex.data.worker_limits import Need, need_of
from virtex.data.workers import Prepared
from virtex.distributed import Share
from virtex.errors import ConfigError, DataError, VirTexError, out_of_range, raise_all

Encoded = dict[str, Tensor]
Batch = dict[str, Tensor]
Encode = Callable[[Example, np.random.Generator], Encoded]
Collate = Callable[[Sequence[Encoded]], Batch]
BadImage = tuple[str, str]
"""The location of an image, and the reason why it cannot be read."""

MAX_REPLACEMENTS = 30
"""Replacements tried for a bad image before the data counts as broken."""
FEWEST_SEEN = 1000
"""Least number of examples that the fraction of bad images refers to."""
REPLACEMENT_STREAM = 1
"""Seed that sets the generator of replacements apart from the example's own."""
REPETITION_STREAM = 0x2B1D_FACE_3A5E_7EED
"""Seed that sets the generators of an example's repetitions apart from that of its replacements."""
VALIDATION_SEED = 0

logger = logging.getLogger("virtex")


@dataclass(frozen=True)
class LoaderConfig:
    """Options that prepare batches, and do not change their content."""

    num_workers: int = 4
    """Worker processes that decode images, per training process; 0 decodes in that process."""
    prefetch: int = 2
    """Batches that each worker prepares ahead."""
    bad_image_limit: float = 0.01
    """Largest fraction of the examples seen (at least 1,000) that may be unreadable."""

    def __post_init__(self) -> None:
        problems = out_of_range(self, {"num_workers": (0, 1024), "prefetch": (1, 1024)})
        if not 0 <= self.bad_image_limit <= 1:
            problems.append(f"bad_image_limit {self.bad_image_limit} must be from 0 to 1")
        raise_all(ConfigError, "the loader options cannot work", problems)


def training_batches(
    source: Source,
    encode: Encode,
    collate: Collate,
    *,
    seed: int,
    batch_size: int,
    start_step: int = 0,
    share: Share = Share(),
    repeats: NDArray[np.float64] | None = None,
    num_pieces: int = 1,
    config: LoaderConfig | None = None,
    num_lanes: int | None = None,
    fault_limit: float | None = None,
    fault_log: FaultLog | None = None,
) -> "TrainingBatches":
    """Return endless batches from number `start_step` on, in the order that `seed` gives.

    Each is this rank's part of the batch, in pieces that are collated by themselves. A source in
    shards is read in the lane order, any other in a permutation of each epoch.

    Args:
        encode: Turns an example into tensors; picklable, and random only through its generator.
        collate: Turns encoded examples into a batch; picklable.
        batch_size: Examples over all ranks.
        start_step: Number of earlier batches; skipping them is free.
        repeats: (N,) repeat factors, at least 1; None for 1.
        num_pieces: Number of equal pieces of a rank's part.
        num_lanes: Lanes of a source in shards; see `LaneOrder`.
        fault_limit: `SourceConfig`'s limit of a source in shards, instead of bad_image_limit.
        fault_log: List of the bad images.

    Raises:
        ConfigError: A batch cannot be split evenly over the ranks and pieces.
        DataError: There are no examples or, while iterating, too many images are bad.
    """
    config = config or LoaderConfig()
    _check(source, batch_size=batch_size, share=share, num_pieces=num_pieces)
    if seed < 0 or start_step < 0:
        raise ConfigError(f"seed {seed} and start_step {start_step} must be 0 or more")
    order: TrainingOrder | LaneOrder
    if source.shard_counts is not None and repeats is None:
        order = LaneOrder(
            source.shard_counts.counts,
            weights=source.shard_counts.weights,
            seed=seed,
            batch_size=batch_size,
            num_lanes=num_lanes,
            start_step=start_step,
            share=share,
        )
    else:
        order = TrainingOrder(
            len(source),
            seed=seed,
            batch_size=batch_size,
            start_step=start_step,
            share=share,
            repeats=repeats,
        )
    reader = _Reader(source, encode, collate, seed=seed, replaces_bad=True, num_pieces=num_pieces)
    tally = _Tally(config.bad_image_limit)
    if fault_limit is not None:
        tally = _Tally(fault_limit, option="data.fault_limit")
    return TrainingBatches(reader, order, config, tally, fault_log)


def validation_batches(
    source: Source,
    encode: Encode,
    collate: Collate,
    *,
    batch_size: int,
    share: Share = Share(),
    config: LoaderConfig | None = None,
) -> Iterator[Batch]:
    """Return batches of all examples in order; Args and Raises: see `training_batches`.

    Bad images are left out, so a batch may be smaller. The last one may be smaller too, and some
    ranks may have one batch fewer. The generator of `encode` depends on the example's index alone.
    """
    config = config or LoaderConfig()
    _check(source, batch_size=batch_size, share=share)
    parts = validation_order(len(source), batch_size, share=share)
    largest = next(validation_order(len(source), batch_size, share=share), [])
    reader = _Reader(source, encode, collate, seed=VALIDATION_SEED, replaces_bad=False)
    return _validation(reader, parts, config, largest=largest)


class TrainingBatches:
    """An endless iterator over the pieces of this rank's part of each batch."""

    def __init__(
        self,
        reader: "_Reader",
        order: TrainingOrder | LaneOrder,
        config: LoaderConfig,
        tally: "_Tally",
        fault_log: FaultLog | None = None,
    ) -> None:
        self._tally, self._fault_log, self._step = tally, fault_log, order.start_step
        self._batches = _prepared(reader, order, config, largest=next(iter(order)))

    @property
    def bad_images(self) -> set[BadImage]:
        """The bad images that were met."""
        return self._tally.bad_images

    @property
    def num_bad_uses(self) -> int:
        """The number of times that a bad image was met."""
        return self._tally.num_bad_uses

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> list[Batch]:
        try:
            read = next(self._batches)
            self._step += 1
            if self._fault_log is not None:
                self._fault_log.add(self._step, read.bad_images)
            return self._tally.add(read)
        except VirTexError:
            self.close()
            raise

    def close(self) -> None:
        """Stop the workers, and the iteration."""
        self._batches.close()


class _Read(NamedTuple):
    """A batch as a worker sends it, with the problems that it met."""

    pieces: list[Batch]
    """None or one for validation, since bad images are left out; all of them for training."""
    num_seen: int
    bad_images: list[BadImage]
    error: VirTexError | None = None


class _Reader(Dataset[_Read]):
    """A reader of batches in a worker; torch calls it a data set whose items are batches."""

    def __init__(
        self,
        source: Source,
        encode: Encode,
        collate: Collate,
        *,
        seed: int,
        replaces_bad: bool,
        num_pieces: int = 1,
    ) -> None:
        self.source, self.encode, self.collate = source, encode, collate
        self.seed, self.replaces_bad, self.num_pieces = seed, replaces_bad, num_pieces

    def __getitem__(self, samples: list[Sample]) -> _Read:
        read: list[tuple[int, Encoded]] = []
        bad_images: list[BadImage] = []
        try:
            for sample in samples:
                read.extend(self._read(sample, bad_images))
            size = max(1, len(read) // self.num_pieces)
            pieces = [self._collate(read[at : at + size]) for at in range(0, len(read), size)]
        except VirTexError as error:  # which torch would wrap in the worker's traceback
            return _Read([], len(samples), bad_images, error)
        num_replacements = len(bad_images) if self.replaces_bad else 0
        return _Read(pieces, len(samples) + num_replacements, bad_images)

    def need(self, samples: list[Sample]) -> Need | None:
        """Return the size of a batch, judged by the first example; None if that cannot be read."""
        try:
            read = self._read(samples[0], []) if samples else []
            need = need_of(self._collate(read), num_examples=len(samples)) if read else None
            return need and need._replace(num_tensors=need.num_tensors * self.num_pieces)
        except VirTexError:  # a worker will report it
            return None

    def _collate(self, read: list[tuple[int, Encoded]]) -> Batch:
        indices, encoded = zip(*read, strict=True)
        return {**self.collate(encoded), "index": torch.tensor(indices)}

    def _read(self, sample: Sample, bad_images: list[BadImage]) -> list[tuple[int, Encoded]]:
        """Return the sample's example or its replacement; nothing if it is bad and not replaced."""
        for index in self._candidates(sample):
            stream = [sample.repetition, REPETITION_STREAM] if sample.repetition else []
            rng = np.random.default_rng([self.seed, sample.epoch, index, *stream])
            try:
                return [(index, self.encode(self.source[index], rng))]
            except BadImageError as error:
                bad_images.append((error.location, error.reason))
        if not self.replaces_bad:
            return []
        raise DataError(
            f"{MAX_REPLACEMENTS + 1} examples drawn in a row cannot be read; the last is "
            f"{bad_images[-1][0]}: {bad_images[-1][1]}. Check that the images are all there"
        )

    def _candidates(self, sample: Sample) -> Iterator[int]:
        yield sample.example_index
        if self.replaces_bad:
            rng = np.random.default_rng([self.seed, *sample[:2], REPLACEMENT_STREAM])
            yield from self.source.replacements(sample.example_index, rng, number=MAX_REPLACEMENTS)


class _Tally:
    """A count of bad images, which logs each once and raises an error at too many."""

    def __init__(self, limit: float, *, option: str = "bad_image_limit") -> None:
        self.limit, self.option, self.num_seen = limit, option, 0
        self.num_bad_uses = 0
        self.bad_images: set[BadImage] = set()
        self.last: BadImage | None = None

    def add(self, read: _Read) -> list[Batch]:
        """Count the bad images of a batch and return its pieces."""
        self.num_seen += read.num_seen
        for location, reason in read.bad_images:
            self.num_bad_uses, self.last = self.num_bad_uses + 1, (location, reason)
            if self.last not in self.bad_images:
                self.bad_images.add(self.last)
                logger.warning("bad image %s: %s (%d so far)", location, reason, self.num_bad_uses)
        if read.error is not None:
            raise read.error
        most = self.limit * max(self.num_seen, FEWEST_SEEN)
        if self.last is not None and self.num_bad_uses > most:
            location, reason = self.last
            raise DataError(
                f"{self.num_bad_uses} of {self.num_seen} examples cannot be read, more than the "
                f"{self.limit:.2%} that {self.option} allows; the last is {location}: {reason}. "
                "Replace or remove these images, or raise the limit"
            )
        return read.pieces


def _validation(
    reader: _Reader,
    parts: Iterable[list[Sample]],
    config: LoaderConfig,
    *,
    largest: list[Sample],
) -> Iterator[Batch]:
    tally, num_batches = _Tally(config.bad_image_limit), 0
    with closing(_prepared(reader, parts, config, largest=largest)) as prepared:
        for read in prepared:
            for batch in tally.add(read):
                num_batches += 1
                yield batch
    if tally.last is not None and not num_batches:
        location, reason = tally.last
        raise DataError(
            f"none of the {tally.num_seen} examples can be read; the last is {location}: {reason}. "
            "Check that the images are all there"
        )


def _prepared(
    reader: _Reader, parts: Iterable[list[Sample]], config: LoaderConfig, *, largest: list[Sample]
) -> Prepared[_Read]:
    return Prepared(
        reader,
        parts,
        num_workers=config.num_workers,
        prefetch=config.prefetch,
        need=reader.need(largest) if config.num_workers else None,
        pin_memory=torch.cuda.is_available(),
    )


def _check(source: Source, *, batch_size: int, share: Share, num_pieces: int = 1) -> None:
    if batch_size < 1 or batch_size % (share.world_size * num_pieces):
        raise ConfigError(
            f"batch_size {batch_size} must be a multiple of the {share.world_size} processes"
            + (f" with {num_pieces} pieces each" if num_pieces > 1 else "")
        )
    if not len(source):
        raise DataError("there are no examples to read: the source is empty")
