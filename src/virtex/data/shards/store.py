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
from datetime import timedelta
from pathlib import Path
from typing import IO, Any, TypeVar
from urllib.parse import unquote, urlsplit

from virtex.data.checks import quoted
from virtex.data.shards.folder_store import FolderStore
from virtex.data.shards.store_types import (
    PIECE,
    Patience,
    Store,
    StoreAwayError,
    Stored,
    StoreError,
    is_shard,
)
from virtex.errors import ConfigError, one_line

__all__ = [
    "PIECE",
    "Patience",
    "Store",
    "StoreAwayError",
    "StoreError",
    "Stored",
    "is_shard",
    "open_store",
]

log = logging.getLogger("virtex")

SCHEMES = {
    **dict.fromkeys(("s3", "s3a"), "AWS"),
    "gs": "GOOGLE",
    **dict.fromkeys(("az", "azure", "adl", "abfs", "abfss"), "AZURE"),
    **dict.fromkeys(("http", "https"), ""),
    "file": "",
}
"""Schemes of the URLs that can be read, and how the environment variables of each begin."""
UNLISTED = (
    "Few servers of plain http list their files: number the shards, as in "
    "https://host/path/{00000..00331}.tar."
)
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
ROLE = re.compile(r"/latest/(api/token|meta-data)|computeMetadata|/metadata/identity")
"""Part of the addresses that give a machine's role, read for want of credentials."""
OPTIONS = re.compile(
    r"no credentials|Received redirect|status code: 4(?!08|09|25|29)\d\d(?!.*RequestTimeout)"
)
"""Part of the reason of a failure that options or credentials cause, although a try may help."""
Result = TypeVar("Result")


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
        if self._prefix:
            yield from sorted(self._patiently("the list of files", self._all))
            return
        try:
            yield from sorted(self._patiently("the list of files", self._all, num_tries=1))
        except StoreError as error:
            raise StoreError(f"{error}\n{UNLISTED}") from None

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

    def _patiently(
        self, subject: str, operation: Callable[[], Result], *, num_tries: int | None = None
    ) -> Result:
        """Return what an operation returns, which is tried again where that may help."""
        patience, began = self.patience, time.monotonic()
        wait, most = patience.first_wait, num_tries or patience.num_tries
        for number in range(1, most + 1):
            try:
                return operation()
            except Exception as error:
                reason, may_pass = _reason(error, self._prefix)
                waited = time.monotonic() - began
                if not may_pass or number == most or waited >= patience.seconds:
                    tries = f" after {number} tries in {waited:.0f} s" if number > 1 else ""
                    is_away = may_pass and not OPTIONS.search(reason)
                    failure = (StoreAwayError if is_away else StoreError)(
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
    text = _without_secrets(str(error))
    if ROLE.search(text):
        text = (
            f"there are no credentials as {prefix}_... in the environment (or "
            f"{prefix}_SKIP_SIGNATURE=true for public data), and this machine has no role: {text}"
        )
    return text, known


def _without_secrets(text: str, environment: Mapping[str, str] | None = None) -> str:
    """Return an error's text in short, without queries of URLs, and without any credential."""
    for name, value in (os.environ if environment is None else environment).items():
        if len(value) > 5 and SECRET.search(name.upper()):
            text = text.replace(value, "***")
    text = text.partition("Debug source:")[0]
    text = SIGNED.sub(r"\1\2***", QUERY.sub(r"\1", text))
    return one_line(" ".join(text.split()))[:300]
