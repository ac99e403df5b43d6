"""The files by which a training process, its workers and the filler of its cache talk.

    FOLDER/lock       held by the filler for as long as it lives
    FOLDER/window     the shards that the next steps need, in order of first use
    FOLDER/wanted/    a file SOURCE-SHARD for each shard that a worker waits for
    FOLDER/failed/    a file SOURCE-SHARD for each that cannot be had, with the reason
    FOLDER/ended      why the filler ended, if it could tell

Unlike pipes they can be shared by forked workers, never block the one that writes, and show what
goes on to whoever looks.
"""

import contextlib
import json
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

from virtex import files
from virtex.data.shards.cache import ShardCache
from virtex.data.shards.locks import Lock, is_locked, take_lock
from virtex.data.shards.manifest import SourceShard

SHARD_NAME = re.compile("([0-9]+)-([0-9]+)")


class Window(NamedTuple):
    """The shards that the next steps need, in order of first use."""

    shards: tuple[SourceShard, ...] = ()
    num_urgent: int = 0
    """Number of the first ones, which are in use now."""


class Failure(NamedTuple):
    """Why a shard cannot be had."""

    reason: str
    is_away: bool = False
    """Whether its store cannot be reached for now, so that the same command may succeed."""


class Exchange:
    """A folder of requests to one filler, and of its answers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def create(cls, cache: ShardCache) -> tuple["Exchange", Lock]:
        """Return a new one, and the lock that its filler is to hold; those of the dead are removed.

        Raises:
            ConfigError: The folder of the cache cannot be written or locked.
        """
        parent = cache.folder / "fillers"
        with cache.changing(), files.write_errors(parent):
            parent.mkdir(exist_ok=True)
            for folder in parent.iterdir():
                if not is_locked(folder / "lock"):
                    shutil.rmtree(folder, ignore_errors=True)
            exchange = cls(Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=parent)))
            for name in ("wanted", "failed"):
                (exchange.folder / name).mkdir()
            lock = take_lock(exchange.folder / "lock")
        assert lock is not None
        return exchange, lock

    def is_alive(self) -> bool:
        """Return whether the filler lives."""
        return is_locked(self.folder / "lock")

    def show_window(self, window: Window) -> None:
        """Tell the filler what the next steps need; an OSError says that it cannot be told."""
        text = json.dumps({"num_urgent": window.num_urgent, "shards": window.shards})
        _replace(self.folder / "window", text)

    def window(self) -> Window:
        """Return the last window that was shown."""
        try:
            found = json.loads((self.folder / "window").read_text())
        except FileNotFoundError:
            return Window()
        return Window(tuple(SourceShard(*each) for each in found["shards"]), found["num_urgent"])

    def want(self, shard: SourceShard) -> None:
        """Request a shard that is waited for."""
        with contextlib.suppress(OSError):  # a full disk, or the folder of a dead filler
            self._path("wanted", shard).touch()

    def wanted(self) -> list[SourceShard]:
        """Return the requested shards."""
        paths = (self.folder / "wanted").iterdir()
        found = (SHARD_NAME.fullmatch(path.name) for path in paths)
        return [SourceShard(int(one[1]), int(one[2])) for one in found if one]

    def forget(self, shard: SourceShard) -> None:
        """Remove the request of a shard; a worker that still waits requests it again."""
        self._path("wanted", shard).unlink(missing_ok=True)

    def fail(self, shard: SourceShard, failure: Failure) -> None:
        """Tell the workers that a shard cannot be had."""
        _replace(self._path("failed", shard), json.dumps(failure))

    def failure(self, shard: SourceShard) -> Failure | None:
        """Return why a shard cannot be had; None if it can, as far as is known."""
        text = self._read(self._path("failed", shard))
        return None if text is None else Failure(*json.loads(text))

    def end(self, reason: str) -> None:
        """Leave the reason of the filler's end."""
        with contextlib.suppress(OSError):
            _replace(self.folder / "ended", reason)

    def reason_of_end(self) -> str | None:
        """Return why the filler ended; None if it could not tell, since it was killed."""
        return self._read(self.folder / "ended")

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, kind: str, shard: SourceShard) -> Path:
        return self.folder / kind / f"{shard.source}-{shard.shard}"

    def _read(self, path: Path) -> str | None:
        try:
            return path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None


def _replace(path: Path, text: str) -> None:
    """Write a small file at once, between two steps; what a kill leaves goes with its folder."""
    temporary = path.with_name(f"{path.name}.new")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
