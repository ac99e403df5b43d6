"""Shards in an object store or a folder; the only door to obstore.

S3, Google Cloud Storage, Azure, http and folders are read alike. Credentials come from the usual
environment variables (AWS_ACCESS_KEY_ID, GOOGLE_SERVICE_ACCOUNT, AZURE_STORAGE_ACCOUNT_KEY, ...) or
from the machine's role, and are in no message. obstore runs threads of its own, so a process that
forks workers must not have opened a store of a URL before.
"""

import functools
import hashlib
import logging
import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol, TypeVar
from urllib.parse import unquote, urlsplit

from virtex.data.checks import path_inside, quoted
from virtex.data.image_files import walk
from virtex.errors import ConfigError, DataError, one_line
from virtex.files import open_regular

log = logging.getLogger("virtex")

SHARD_SUFFIX = ".tar"
PIECE = 2**23
"""Bytes of one ranged read."""
SCHEMES = {
    **dict.fromkeys(("s3", "s3a"), "AWS"),
    "gs": "GOOGLE",
    **dict.fromkeys(("az", "azure", "adl", "abfs", "abfss"), "AZURE"),
    **dict.fromkeys(("http", "https"), ""),
    "file": "",
}
"""Schemes of the URLs that can be read, and how the environment variables of each begin."""
CLIENT_OPTIONS = (
    *("allow_http", "allow_invalid_certificates", "proxy_url", "proxy_ca_certificate"),
    *("proxy_excludes", "root_certificate", "http1_only", "http2_only", "user_agent"),
)
"""Options of connections that an environment variable may set, as AWS_ALLOW_HTTP."""
SECRET = re.compile("KEY|SECRET|TOKEN|PASSWORD|CREDENTIAL|SIGNATURE|SAS|ACCOUNT|CLIENT|TENANT")
"""Part of the name of an environment variable that may hold a credential."""
QUERY = re.compile(r"(https?://[^\s/?#]+[^\s?#]*)[^\s,)]*")
SIGNED = re.compile(
    r"(?i)\b(authorization|signature|sig|token|credential|x-amz-\w+)(\s*[=:]\s*)\S+"
)
Result = TypeVar("Result")


class StoreError(DataError):
    """A store, or an object in it, that cannot be read; names both, but no credential."""

    may_pass = False
    """Whether it may be readable later, as after a failure of the network."""


class Stored(NamedTuple):
    """A shard in a store."""

    name: str
    """Path under the root of the store."""
    size: int
    etag: str
    """What changes whenever the content does: the store's ETag, or a file's modification time."""


@dataclass(frozen=True)
class Patience:
    """How long a failing store is asked again."""

    num_tries: int = 8
    """Most tries of one read."""
    seconds: float = 300.0
    """Seconds after which a read is not tried again."""
    first_wait: float = 0.2
    """Seconds before the second try; each further wait is twice as long, up to `longest_wait`."""
    longest_wait: float = 20.0
    request_seconds: float = 60.0
    """Seconds after which one request counts as failed."""
    connect_seconds: float = 10.0


class Store(Protocol):
    """Shards by their names."""

    root: str
    """URL or absolute folder."""
    folder: Path | None
    """The folder, if the shards are files of this machine."""

    def list(self) -> Iterator[Stored]:
        """Yield all *.tar at any depth, in the order of their names."""

    def head(self, name: str) -> Stored:
        """Return the size and ETag of a shard."""

    def read(self, name: str, start: int, end: int, *, etag: str = "") -> bytes:
        """Return the bytes from `start` to before `end`, all of them; see `download`."""

    def download(
        self,
        name: str,
        file: IO[bytes],
        *,
        size: int,
        etag: str = "",
        num_parallel: int = 4,
        on_bytes: Callable[[int], object] = lambda count: None,
    ) -> str:
        """Write a whole shard to a file, and return its SHA-256.

        Args:
            size: The size of the shard.
            etag: The version to read; a StoreError says that it has changed. Empty: any.
            num_parallel: Ranges of `PIECE` bytes that are read, and held in memory, at once.
            on_bytes: Called with the number of each piece's bytes.

        Raises:
            StoreError: The shard cannot be read, or has changed.
        """


def open_store(root: str | Path, *, patience: Patience | None = None) -> Store:
    """Return the store of a URL or a folder; nothing is read yet.

    Raises:
        ConfigError: The URL is of no known kind, or holds a credential.
    """
    text = str(root)
    if "://" not in text:
        return FolderStore(Path(text))
    parts = urlsplit(text)
    problem = ""
    if parts.scheme.lower() not in SCHEMES:
        problem = f"URLs begin with {', '.join(f'{each}://' for each in SCHEMES)}"
    elif parts.password is not None or parts.query or parts.fragment:
        problem = (
            "it may hold a credential, which belongs into the environment: give the URL without "
            "password, query or fragment"
        )
    if problem:
        shown = f"{parts.scheme}://{parts.hostname or ''}{parts.path}"
        raise ConfigError(f"{quoted(shown)} cannot be opened as a store of shards: {problem}.")
    if parts.scheme.lower() == "file":
        return FolderStore(Path(unquote(parts.path)))
    return RemoteStore(text.rstrip("/"), patience or Patience())


class FolderStore:
    """Shards in a folder of this machine; their ETags are modification times."""

    def __init__(self, folder: Path) -> None:
        self.folder: Path | None = folder.absolute()
        self.root = str(self.folder)
        self._folder = folder.absolute()

    def list(self) -> Iterator[Stored]:
        """Yield all *.tar, sorted; see `Store`."""
        if not self._folder.is_dir():
            raise StoreError(f"{self.root} is not a folder. Name the folder of the .tar files.")
        names = (prefix + name for prefix, found in walk(self._folder) for name in found)
        for name in sorted(name for name in names if is_shard(name)):
            yield self.head(name)

    def head(self, name: str) -> Stored:
        """Return size and modification time of a shard."""
        with self._errors(name):
            status = self._path(name).stat()
        return Stored(name, status.st_size, f"{status.st_mtime_ns:x}")

    def read(self, name: str, start: int, end: int, *, etag: str = "") -> bytes:
        """Return a part of a shard; see `Store`."""
        self._check(name, etag)
        with self._errors(name), open_regular(self._path(name)) as file:
            data = os.pread(file.fileno(), end - start, start)
        if len(data) != end - start:
            raise StoreError(f"{quoted(name)} in {self.root} is shorter than {end:,} bytes.")
        return data

    def download(
        self,
        name: str,
        file: IO[bytes],
        *,
        size: int,
        etag: str = "",
        num_parallel: int = 4,
        on_bytes: Callable[[int], object] = lambda count: None,
    ) -> str:
        """Copy a shard; see `Store`."""
        digest = hashlib.sha256()
        for start in range(0, size, PIECE):
            piece = self.read(name, start, min(start + PIECE, size), etag=etag)
            digest.update(piece)
            file.write(piece)
            on_bytes(len(piece))
        return digest.hexdigest()

    def _check(self, name: str, etag: str) -> None:
        if etag and self.head(name).etag != etag:
            raise StoreError(f"{quoted(name)} in {self.root} has changed. Index the shards again.")

    def _path(self, name: str) -> Path:
        if path_inside(self.root, name) != name:
            raise StoreError(f"{quoted(name)} leads outside of {self.root}.")
        return self._folder / name

    def _errors(self, name: str) -> "_Errors":
        return _Errors(f"{quoted(name)} in {self.root}")


class _Errors:
    """A context in which an OSError becomes a StoreError."""

    def __init__(self, subject: str) -> None:
        self.subject = subject

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            reason = error.strerror or str(error)
            raise StoreError(f"{self.subject} cannot be read ({reason}).") from error


class RemoteStore:
    """Shards at a URL."""

    folder: Path | None = None

    def __init__(self, root: str, patience: Patience) -> None:
        self.root = root
        self.patience = patience
        self._prefix = SCHEMES[urlsplit(root).scheme.lower()]

    def __getstate__(self) -> dict[str, Any]:
        """Leave the open connection out: it belongs to one process."""
        return {name: value for name, value in self.__dict__.items() if name != "_store"}

    def list(self) -> Iterator[Stored]:
        """Yield all *.tar, sorted; see `Store`."""
        yield from sorted(self._patiently("the list of files", self._all))

    def head(self, name: str) -> Stored:
        """Return size and ETag of a shard."""
        return _stored(self._patiently(quoted(name), lambda: self._store.head(name)), name)

    def read(self, name: str, start: int, end: int, *, etag: str = "") -> bytes:
        """Return a part of a shard; see `Store`."""
        if end <= start:
            return b""
        options: dict[str, Any] = {"range": (start, end)}
        if etag:
            options["if_match"] = etag

        def get() -> bytes:
            result = self._store.get(name, options=options)
            if etag and (result.meta["e_tag"] or etag) != etag:
                raise _ChangedError
            data = bytes(result.bytes())
            if len(data) != end - start:
                raise OSError(f"{len(data):,} bytes came instead of {end - start:,}")
            return data

        return self._patiently(quoted(name), get)

    def download(
        self,
        name: str,
        file: IO[bytes],
        *,
        size: int,
        etag: str = "",
        num_parallel: int = 4,
        on_bytes: Callable[[int], object] = lambda count: None,
    ) -> str:
        """Read a shard by parallel ranges; see `Store`."""
        digest = hashlib.sha256()
        pending: deque[Future[bytes]] = deque()
        pool = ThreadPoolExecutor(num_parallel)
        try:
            for start in range(0, size, PIECE):
                end = min(start + PIECE, size)
                pending.append(pool.submit(self.read, name, start, end, etag=etag))
                if len(pending) == num_parallel:
                    on_bytes(_take(pending.popleft().result(), file, digest))
            while pending:
                on_bytes(_take(pending.popleft().result(), file, digest))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        return digest.hexdigest()

    @functools.cached_property
    def _store(self) -> Any:
        import obstore.store

        patience = self.patience
        options = {
            **_client_options(self._prefix, os.environ),
            "timeout": timedelta(seconds=patience.request_seconds),
            "connect_timeout": timedelta(seconds=patience.connect_seconds),
        }
        return obstore.store.from_url(
            self.root,
            client_options=options,
            retry_config={"max_retries": 0},  # by `_patiently`, which names what fails
        )

    def _all(self) -> tuple[Stored, ...]:
        found = (meta for metas in self._store.list() for meta in metas)
        return tuple(_stored(meta, meta["path"]) for meta in found if is_shard(meta["path"]))

    def _patiently(self, subject: str, operation: Callable[[], Result]) -> Result:
        """Return what an operation returns, which is tried again where that may help."""
        patience, began = self.patience, time.monotonic()
        wait = patience.first_wait
        for number in range(1, patience.num_tries + 1):
            try:
                return operation()
            except Exception as error:
                reason, may_pass = _reason(error, self._prefix)
                waited = time.monotonic() - began
                if not may_pass or number == patience.num_tries or waited >= patience.seconds:
                    tries = f" after {number} tries in {waited:.0f} s" if number > 1 else ""
                    failure = StoreError(
                        f"{subject} at {self.root} cannot be read{tries}: {reason}"
                    )
                    failure.may_pass = may_pass
                    raise failure from None
                if number > 1:
                    log.warning("%s at %s: %s; trying again", subject, self.root, reason)
            time.sleep(wait)
            wait = min(2 * wait, patience.longest_wait)
        raise AssertionError("the last try returns or raises")


def _client_options(prefix: str, environment: Mapping[str, str]) -> dict[str, Any]:
    """Return the options of connections in the environment, which those of a call would hide."""
    if not prefix:  # http
        return {"allow_http": True}
    found = {name: environment.get(f"{prefix}_{name.upper()}") for name in CLIENT_OPTIONS}
    return {name: value for name, value in found.items() if value is not None}


class _ChangedError(Exception):
    """An object of another version than the one that is wanted."""


def is_shard(name: str) -> bool:
    """Return whether a name is that of a shard; hidden files and folders are none."""
    hidden = name.startswith(".") or "/." in name
    return name.lower().endswith(SHARD_SUFFIX) and not hidden


def _take(piece: bytes, file: IO[bytes], digest: Any) -> int:
    digest.update(piece)
    file.write(piece)
    return len(piece)


def _stored(meta: Mapping[str, Any], name: str) -> Stored:
    return Stored(name, int(meta["size"]), str(meta["e_tag"] or ""))


def _reason(error: Exception, prefix: str) -> tuple[str, bool]:
    """Return why a read failed, without credentials, and whether another try may help."""
    from obstore import exceptions

    if isinstance(error, FileNotFoundError):
        return "there is nothing of this name. Correct the URL, or index the shards again.", False
    if isinstance(error, exceptions.PreconditionError | _ChangedError):
        return "it has changed since it was indexed. Index the shards again.", False
    if isinstance(error, exceptions.PermissionDeniedError | exceptions.UnauthenticatedError):
        names = f"; {prefix}_... in the environment name them" if prefix else ""
        return f"access is denied with the credentials there are{names}.", False
    if isinstance(error, exceptions.NotSupportedError):
        return f"the server cannot do this ({_without_secrets(str(error))}).", False
    known = isinstance(error, exceptions.BaseError | OSError)
    return _without_secrets(str(error)), known


def _without_secrets(text: str, environment: Mapping[str, str] | None = None) -> str:
    """Return an error's text in short, without queries of URLs, and without any credential."""
    for name, value in (os.environ if environment is None else environment).items():
        if len(value) > 5 and SECRET.search(name.upper()):
            text = text.replace(value, "***")
    text = text.partition("Debug source:")[0]
    text = SIGNED.sub(r"\1\2***", QUERY.sub(r"\1", text))
    return one_line(" ".join(text.split()))[:300]
