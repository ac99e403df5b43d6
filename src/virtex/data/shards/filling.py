"""The process that fills a cache ahead of its training process: see `filler`.

It fetches the shards that workers wait for first, then those of the window in order of first use,
and holds them all. It reads stores by threads of its own, so it never forks; it imports no
torch, and it ends when its parent does.
"""

import logging
import os
import pickle
import random
import signal
import sys
import time
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

from virtex.data.shards.cache import CacheFullError, ShardCache
from virtex.data.shards.exchange import Exchange, Failure, Window
from virtex.data.shards.fetch import NUM_PARALLEL, ContentError, Remote, fetch
from virtex.data.shards.locks import Lock
from virtex.data.shards.manifest import Manifest, SourceShard
from virtex.data.shards.retries import Tries, patience
from virtex.data.shards.store import Patience, StoreAwayError, StoreError, open_store
from virtex.errors import VirTexError, printable

log = logging.getLogger("virtex")

NUM_AT_ONCE = 4
"""Shards that are fetched at once."""
NUM_MORE = 4
"""Further shards that are fetched at once if workers wait for them."""
POLL = 0.02
"""Seconds between two looks at requests and downloads."""
BUSY_WAIT = 0.1
"""Seconds after which a shard that another process fetches is looked for again."""
ROOM_WAIT = 1.0
"""Seconds after which a full cache is tried again."""
KEEP_SECONDS = 20.0
"""Seconds for which a shard is held that a worker requested outside the window."""
LOOK_EVERY = 1.0
"""Seconds between two looks whether the shards that are held are there."""
SAY_EVERY = 60.0
"""Least seconds between two messages about one store."""
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
"""Signals that are left to the parent, which needs this process to finish a step."""


class Job(NamedTuple):
    """What a filler has to do."""

    cache: ShardCache
    manifests: tuple[Manifest, ...]
    """One for each source."""
    exchange: Exchange
    num_retries: int
    parent: int
    """Number of the training process."""


@dataclass
class Item:
    """A shard that is needed."""

    place: SourceShard
    remote: Remote
    digest: str
    lock: Lock | None = None
    """Holds the shard."""
    download: "Future[Lock | None] | None" = None
    tries: Tries = field(default_factory=Tries)
    needs_room_since: float | None = None
    was_other: bool = False
    """Whether its content once was not that of the manifest."""
    failure: Failure | None = None
    """Why it cannot be had."""
    wanted_until: float = 0.0
    """Time up to which it is held for a worker that requested it."""


class Filling:
    """The work of a filler."""

    def __init__(self, job: Job) -> None:
        self.job, self.cache, self.exchange = job, job.cache, job.exchange
        once = Patience(num_tries=1)  # tried again here, where pieces that came are kept
        self.stores = [open_store(one.root, patience=once) for one in job.manifests]
        self.own = frozenset(one.tobytes().hex() for man in job.manifests for one in man.digests)
        self.items: dict[SourceShard, Item] = {}
        self.window = Window()
        self.pool = ThreadPoolExecutor(NUM_AT_ONCE + NUM_MORE)
        self.generator = random.Random()
        self.said: dict[str, float] = {}
        self.looked_at = 0.0

    def run(self) -> None:
        """Fill the cache until the parent ends."""
        self.cache.tidy()
        while os.getppid() == self.job.parent:
            self.turn(time.monotonic())
            time.sleep(POLL)

    def turn(self, now: float) -> None:
        """Do all that is due."""
        requests = [place for place in self.exchange.wanted() if self._is_known(place)]
        for place in requests:
            self._item(place).wanted_until = now + KEEP_SECONDS
        if now >= self.looked_at + LOOK_EVERY:
            self.looked_at = now
            self._release_removed()
        wanted = [place for place, item in self.items.items() if item.wanted_until > now]
        self.window = self.exchange.window()
        urgent = self.window.shards[: self.window.num_urgent]
        needed = list(dict.fromkeys([*wanted, *urgent]))
        self._collect(set(needed), now)
        wishes = list(needed)
        if not self.cache.is_short():
            wishes += [one for one in self.window.shards if one not in needed]
        self._release(set(wishes))
        self._start(needed, NUM_AT_ONCE + NUM_MORE, now)
        self._start(wishes, NUM_AT_ONCE, now)
        self._answer(requests)

    def _is_known(self, place: SourceShard) -> bool:
        manifests = self.job.manifests
        return place.source < len(manifests) and place.shard < len(manifests[place.source])

    def _item(self, place: SourceShard) -> Item:
        if place not in self.items:
            source, shard = place
            remote = Remote(self.stores[source], self.job.manifests[source], shard)
            self.items[place] = Item(place, remote, remote.shard.sha256)
        return self.items[place]

    def _release_removed(self) -> None:
        """Release the shards that somebody removed, which no filler could fetch while one holds."""
        for item in self.items.values():
            if item.lock is not None and not self.cache.has(item.digest):
                item.lock.close()
                item.lock = None

    def _release(self, wishes: set[SourceShard]) -> None:
        """Let others be evicted; those that left the window have been used."""
        in_window = set(self.window.shards)
        for place in [one for one in self.items if one not in wishes]:
            item = self.items[place]
            if item.download is not None:
                continue
            if item.lock is not None:
                if place not in in_window:
                    self.cache.mark_used(item.digest)
                item.lock.close()
            del self.items[place]

    def _start(self, places: Iterable[SourceShard], most: int, now: float) -> None:
        """Hold shards that are there, and fetch others, up to `most` at once."""
        running = {item.digest for item in self.items.values() if item.download is not None}
        for place in places:
            item = self._item(place)
            if item.lock is not None or item.digest in running or item.tries.next_at > now:
                continue
            item.lock = self.cache.hold(item.digest)
            if item.lock is None and len(running) < most:
                running.add(item.digest)
                parallel = max(1, NUM_PARALLEL >> item.tries.number)  # a slow store gets fewer
                item.download = self.pool.submit(
                    fetch, self.cache, item.remote, own=self.own, num_parallel=parallel
                )

    def _collect(self, needed: set[SourceShard], now: float) -> None:
        """Take the downloads that ended."""
        for place, item in self.items.items():
            if item.download is None or not item.download.done():
                continue
            download, item.download = item.download, None
            try:
                item.lock = download.result()
            except CacheFullError as error:
                self._lacks_room(item, error, now, is_needed=place in needed)
            except (VirTexError, OSError) as error:
                self._failed(item, error, now)
            else:
                self._succeeded(item, now)

    def _succeeded(self, item: Item, now: float) -> None:
        if item.lock is None:  # another process has it
            item.tries.next_at = now + BUSY_WAIT
            return
        if item.tries.number:
            root = item.remote.manifest.root
            if self.said.pop(root, 0.0):
                log.warning("%s is read again", item.remote)
            for other in self.items.values():  # they waited for the same store
                if other.remote.manifest.root == root:
                    other.tries.next_at = min(other.tries.next_at, now)
        item.tries, item.needs_room_since, item.failure = Tries(), None, None

    def _lacks_room(
        self, item: Item, error: CacheFullError, now: float, *, is_needed: bool
    ) -> None:
        """Wait for room; for a shard in use, let all processes release what they do not use."""
        item.tries.next_at = now + ROOM_WAIT
        if not is_needed:
            return
        self.cache.report_short()
        item.needs_room_since = item.needs_room_since or now
        self._say(str(self.cache.folder), f"{error} {item.remote} waits for it.", now)
        if now - item.needs_room_since > patience(self.job.num_retries):
            item.failure = Failure(str(error))

    def _failed(self, item: Item, error: VirTexError | OSError, now: float) -> None:
        """Decide whether a shard is tried again."""
        text = str(error)
        if isinstance(error, OSError):
            text = f"{self.cache.folder} cannot be written: {error.strerror or error}"
        may_pass = error.may_pass if isinstance(error, StoreError) else isinstance(error, OSError)
        if isinstance(error, ContentError):
            may_pass, item.was_other = not item.was_other, True
        wait = item.tries.fail(now, self.generator)
        if not may_pass or item.tries.number > self.job.num_retries:
            is_away, num_retries = isinstance(error, StoreAwayError), item.tries.number - 1
            if is_away and num_retries:
                text = f"{text}; {num_retries} retries did not help"
            item.failure = Failure(text, is_away)
        else:
            tries = f"retry {item.tries.number} of {self.job.num_retries} in {wait:.1f} s"
            self._say(item.remote.manifest.root, f"{text}; {tries}", now)

    def _say(self, subject: str, message: str, now: float) -> None:
        """Log a message about a subject, once a minute at most."""
        if now - self.said.get(subject, -SAY_EVERY) >= SAY_EVERY:
            self.said[subject] = now
            log.warning("%s", message)

    def _answer(self, requests: list[SourceShard]) -> None:
        """Tell the workers what cannot be had, and forget the requests that are met."""
        for place in requests:
            item = self.items[place]
            if item.lock is None and item.failure is not None:
                self.exchange.fail(place, item.failure)
            if item.lock is not None or item.failure is not None:
                self.exchange.forget(place)


def main() -> None:
    """Do the job that the standard input describes."""
    job: Job = pickle.load(sys.stdin.buffer)  # the parent's own words
    for name in SIGNALS:
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    handler = logging.StreamHandler()
    handler.setFormatter(_Printable("%(message)s"))
    log.handlers, log.propagate = [handler], False
    _raise_limit_of_files()
    reason = "it left its parent"
    try:
        Filling(job).run()
    except (VirTexError, OSError) as error:
        reason = str(error)
        log.error("the process that fills the cache of shards ends: %s", reason)
    except BaseException as error:
        log.exception("the process that fills the cache of shards failed")
        reason = f"{type(error).__name__}: {error}"
    job.exchange.end(reason)
    os._exit(1)  # without waiting for downloads


class _Printable(logging.Formatter):
    """A formatter that escapes control characters in names."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def _raise_limit_of_files() -> None:
    """Allow as many open files as the system lets this process have, one for each shard held."""
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
