"""Batches on the device, each copied there while the step before it is computed."""

from collections.abc import Callable, Mapping
from typing import Protocol

import torch

from virtex import distributed
from virtex.engine.meter import Speed
from virtex.engine.run import RunConfig
from virtex.engine.signals import StopSignals
from virtex.tasks.base import Batch


class BatchStream(Protocol):
    """An endless iterator over the pieces of this process's part of each batch."""

    def __iter__(self) -> "BatchStream": ...

    def __next__(self) -> list[Batch]: ...

    def close(self) -> None: ...


class BatchesAhead:
    """A stream's batches on the device, of which one is fetched ahead.

    Whether all processes have a batch is agreed on while the step before it is computed.

    Args:
        dynamic: See `Task.dynamic`; empty for a task that is not compiled.
    """

    failure: Exception | None = None
    """The error because of which this process has no next batch."""

    def __init__(
        self,
        stream: BatchStream,
        device: torch.device,
        run: RunConfig,
        *,
        stop: StopSignals,
        speed: Speed,
        dynamic: Mapping[str, int],
    ) -> None:
        self.stream, self.device, self.channels_last = stream, device, run.channels_last
        self.stop, self.speed, self.dynamic = stop, speed, dynamic
        self._copies = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._pieces: list[Batch] | None = None
        self._any_lacks: Callable[[], bool] | None = None

    def fetch(self) -> None:
        """Wait for the stream's next batch, and begin to copy it."""
        pieces = self._next()
        with torch.cuda.stream(self._copies):
            self._pieces = None if pieces is None else [self._moved(piece) for piece in pieces]
        self._any_lacks = distributed.any_true_later(pieces is None)

    def take(self) -> list[Batch] | None:
        """Return the batch that was fetched, or None if some process has none.

        A process that is alone obeys a signal at once; several take the step that they agreed on.
        """
        if self._any_lacks is None:
            self.fetch()
        assert self._any_lacks is not None
        lacks, pieces = self._any_lacks(), self._pieces
        self._pieces = self._any_lacks = None
        is_stopped = self.stop.requested and distributed.world_size() == 1
        if lacks or is_stopped or pieces is None:
            return None
        if self._copies is not None:
            current = torch.cuda.current_stream(self.device)
            current.wait_stream(self._copies)
            for tensor in (tensor for piece in pieces for tensor in piece.values()):
                tensor.record_stream(current)
        return pieces

    def _next(self) -> list[Batch] | None:
        """Return the stream's next batch, None after a signal or an error."""
        try:
            return self.stop.next(lambda: self.speed.next(self.stream))
        except Exception as error:  # any kind: the steps before it are worth a checkpoint
            self.failure = error
            return None

    def _moved(self, piece: Batch) -> Batch:
        moved = to_device(piece, self.device, channels_last=self.channels_last)
        mark_dynamic(moved, self.dynamic)
        return moved


def to_device(batch: Batch, device: torch.device, *, channels_last: bool) -> Batch:
    """Move a batch to a device; images (B, 3, H, W) take the memory format of convolutions.

    The host does not wait for the copy of pinned memory.
    """
    layouts = {True: torch.channels_last, False: torch.preserve_format}
    return {
        name: value.to(
            device, non_blocking=True, memory_format=layouts[channels_last and value.dim() == 4]
        )
        for name, value in batch.items()
    }


def mark_dynamic(batch: Batch, dynamic: Mapping[str, int]) -> None:
    """Tell torch.compile which sizes change from batch to batch: see `Task.dynamic`."""
    for name in dynamic.keys() & batch.keys():
        torch._dynamo.maybe_mark_dynamic(batch[name], dynamic[name])
