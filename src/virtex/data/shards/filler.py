"""Shards of remote stores in the node's cache, fetched ahead by a process of its own.

Each training process starts one filler, a new interpreter: the threads of a store's client would
not survive the fork of workers. It imports no torch (0.3 s), and learns by files what to fetch (see
`exchange`). A worker that does not find its shard requests it and waits, which is part of the
step's "waiting for data".

    with Filler(cache, manifests) as filler:
        source = ShardedSource(manifests[0], locate=filler.locate(0))
        filler.follow(order, start_step)
        ...
        filler.advance(step)  # each step

Fillers of one node, of other runs too, share what they fetch: a shard is downloaded by the one that
locks it first. If the shards in use of all do not leave room for one of them, the others release
those that they only fetched ahead.
"""

import atexit
import contextlib
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, Self

from virtex.data.checks import quoted
from virtex.data.shards.cache import ShardCache
from virtex.data.shards.exchange import Exchange, Window
from virtex.data.shards.filling import NUM_AT_ONCE, Job
from virtex.data.shards.manifest import Manifest, SourceShard
from virtex.data.shards.retries import NUM_RETRIES
from virtex.data.shards.store_types import StoreAwayError, StoreError

MARGIN = 64
"""Steps ahead of the present one that count as in use, since workers prepare them."""
LONGEST_HORIZON = 2**20
"""Most steps that are looked ahead."""
FIRST_PAUSE, LONGEST_PAUSE = 0.002, 0.2
"""Seconds between two looks of a worker that waits."""
GOES_ON = "The same command goes on from the last checkpoint."
PROGRAM = "from virtex.data.shards.filling import main; main()"


class Order(Protocol):
    """An order that tells ahead which shards it needs."""

    def shards_needed(self, first_step: int, num_steps: int) -> Sequence[SourceShard]:
        """Return the shards of some steps, in order of first use."""


class Filler:
    """The process that fetches the shards of one training process.

    Args:
        manifests: One for each source.
        num_retries: Retries of a read that fails, with exponential back-off.
        margin: Steps ahead of the present one that count as in use.
        num_ordered: Number of the shards that the order to follow uses; by default all.

    Raises:
        ConfigError: The folder of the cache cannot be written or locked.
    """

    def __init__(
        self,
        cache: ShardCache,
        manifests: Sequence[Manifest],
        *,
        num_retries: int = NUM_RETRIES,
        margin: int = MARGIN,
        num_ordered: int | None = None,
    ) -> None:
        self.cache, self.manifests, self.margin = cache, manifests, margin
        self.order: Order | None = None
        self._shown = Window()
        self._owner, self._next_step = os.getpid(), 0
        self._num_shards = num_used(manifests) if num_ordered is None else num_ordered
        self.exchange, lock = Exchange.create(cache)
        job = Job(cache, tuple(manifests), self.exchange, num_retries, self._owner)
        with lock:  # the child inherits it
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", PROGRAM],
                stdin=subprocess.PIPE,
                pass_fds=[lock.fileno()],
                start_new_session=True,  # away from the terminal's signals
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            )
        assert self.process.stdin is not None
        with self.process.stdin as stdin, contextlib.suppress(BrokenPipeError):
            pickle.dump(job, stdin)
        atexit.register(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def locate(self, source: int = 0) -> "Locate":
        """Return the function that gives the path of a source's shard; picklable."""
        return Locate(self.cache, self.manifests[source], self.exchange, source)

    def follow(self, order: Order, step: int) -> None:
        """Fetch ahead in an order from a step on; before, only requests of readers count."""
        self.order, self._next_step = order, step
        self.advance(step)

    def advance(self, step: int) -> None:
        """Let the shards of the steps from `step` on be fetched, and earlier ones be evicted."""
        if self.order is None or step < self._next_step:
            return
        window = look_ahead(self.order, step, margin=self.margin, num_shards=self._num_shards)
        self._next_step = step + max(1, self.margin // 4)
        if window != self._shown:
            with contextlib.suppress(OSError):  # a full disk: workers request what they need
                self.exchange.show_window(window)
                self._shown = window

    def close(self) -> None:
        """End the process."""
        atexit.unregister(self.close)
        if os.getpid() == self._owner:
            self.process.kill()  # nothing is torn at any moment
            self.process.wait()
            self.exchange.remove()


@dataclass(frozen=True)
class Locate:
    """The path of a source's shard in the cache, which is waited for."""

    cache: ShardCache
    manifest: Manifest
    exchange: Exchange
    source: int
    _paths: dict[int, Path] = field(default_factory=dict, compare=False)

    def __call__(self, shard: int) -> Path:
        """Return the path of a shard; whoever cannot open it any more calls again.

        Raises:
            StoreError: The shard cannot be had.
        """
        if (path := self._paths.get(shard)) is None:
            digest = self.manifest.digests[shard].tobytes().hex()
            path = self._paths[shard] = self.cache.shard_path(digest)
        if not path.exists():
            self._wait(SourceShard(self.source, shard), path.exists)
        return path

    def _wait(self, place: SourceShard, is_there: Callable[[], bool]) -> None:
        pause = FIRST_PAUSE
        while not is_there():
            if (failure := self.exchange.failure(place)) is not None:
                raise self._error(place, *failure)
            if not self.exchange.is_alive():
                if is_there():
                    return
                raise self._end_of_filler(place)
            self.exchange.want(place)
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _error(self, place: SourceShard, reason: str, is_away: bool) -> StoreError:
        """Return the error for a shard that cannot be had, which is named once."""
        if quoted(self.manifest.names[place.shard]) not in reason:
            reason = f"{self._name(place)} cannot be had: {reason}"
        return StoreAwayError(f"{reason}. {GOES_ON}") if is_away else StoreError(reason)

    def _end_of_filler(self, place: SourceShard) -> StoreError:
        """Return the error for a filler that has ended; a kill alone may not happen again."""
        reason = self.exchange.reason_of_end()
        how = reason or "it was killed, perhaps by the system for lack of memory"
        error = StoreError if reason else StoreAwayError
        return error(
            f"{self._name(place)} cannot be had: the process that fetches shards has ended: {how}. "
            f"{GOES_ON}"
        )

    def _name(self, place: SourceShard) -> str:
        return f"{quoted(self.manifest.names[place.shard])} at {self.manifest.root}"


def num_used(manifests: Sequence[Manifest]) -> int:
    """Return the number of shards of which an example is kept."""
    return sum(int((one.num_kept > 0).sum()) for one in manifests)


def needed_at_once(
    orders: Iterable[Order], step: int, manifests: Sequence[Manifest], *, margin: int = MARGIN
) -> set[SourceShard]:
    """Return the shards in the windows of several processes, for which a cache must have room."""
    num_shards = num_used(manifests)
    windows = (look_ahead(one, step, margin=margin, num_shards=num_shards) for one in orders)
    return {place for window in windows for place in window.shards}


def look_ahead(order: Order, step: int, *, margin: int, num_shards: int) -> Window:
    """Return the shards in use from a step on, and about as many of the next ones.

    Args:
        num_shards: Number of all shards that the order uses: a search for more has no early end.
    """
    shards = order.shards_needed(step, margin)
    num_urgent, horizon = len(shards), margin
    enough = min(2 * max(num_urgent, NUM_AT_ONCE), num_shards)
    while len(shards) < enough and horizon < LONGEST_HORIZON:
        horizon *= 2
        shards = order.shards_needed(step, horizon)
    places = tuple(SourceShard(*each) for each in shards[:enough])
    return Window(places, num_urgent)
