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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import IO, Any, TypeVar
from urllib.parse import SplitResult, unquote, urlsplit

from virtex.data.checks import quoted
from virtex.data.shards.folder_store import FolderStore
from virtex.data.shards.store_environment import (
    client_options,
    endpoint_problems,
    settings_of,
    without_secrets,
)
from virtex.data.shards.store_types import (
    MOST_MISSING,
    PIECE,
    MissingError,
    Patience,
    Store,
    StoreAwayError,
    Stored,
    StoreError,
    is_shard,
    raise_unreadable,
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
ROLE = re.compile(r"/latest/(api/token|meta-data)|computeMetadata|/metadata/identity")
"""Part of the addresses that give a machine's role, read for want of credentials."""
REFUSED_LIST = re.compile(r"performing list request: .*?status code: (401|403|404)\b", re.DOTALL)
"""Message of a list that is refused; one of credentials that are not given now may pass."""
OPTIONS = re.compile(
    r"no credentials|token file|Received redirect"
    r"|status code: 4(?!08|09|25|29)\d\d(?!.*RequestTimeout)"
)
"""Part of the reason of a failure that options or credentials cause, although a try may help."""
CERTIFICATE = re.compile(r"\bInvalidCertificate\(\s*(?:Other\(\s*)*(\w+)")
"""Part of the source of an error that names why a server's certificate is refused."""
GONE = "there is nothing of this name. Correct the URL, or index the shards again."
BUILDER = "builder error"
"""Part of the message of a request that cannot be sent, for its URL."""
NUM_HEADS = 16
"""Shards that are looked for at once."""
Result = TypeVar("Result")


def open_store(root: str | Path, *, patience: Patience | None = None) -> Store:
    """Return the store of a URL or a folder; nothing is read yet.

    Raises:
        ConfigError: The URL is of no known kind, names nothing, or holds a credential; or the
            environment names an endpoint that is no URL, or one of plain http without allowing it.
    """
    text = str(root)
    if "://" not in text:
        return FolderStore(Path(text))
    parts = parse_url(text)
    scheme, problems = parts.scheme.lower(), list[str]()
    if scheme not in SCHEMES:
        problems.append(f"URLs begin with {', '.join(f'{each}://' for each in SCHEMES)}")
    elif parts.password is not None or parts.query or parts.fragment:
        problems.append(
            "it may hold a credential, which belongs into the environment: give the URL without "
            "password, query or fragment"
        )
    elif scheme != "file" and not parts.netloc:
        problems.append(f"it names no bucket or host: give it as {scheme}://NAME/FOLDER")
    problems += endpoint_problems(SCHEMES.get(scheme, ""), os.environ)
    if problems:
        shown = f"{parts.scheme}://{parts.hostname or ''}{parts.path}"
        raise ConfigError(_unopened(shown, "; ".join(problems)))
    if scheme == "file":
        return FolderStore(Path(unquote(parts.path)))
    return RemoteStore(text.rstrip("/"), patience or Patience())


def parse_url(url: str) -> SplitResult:
    """Return the parts of a URL; Raises: ConfigError if it has none."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # checked when it is read
    except ValueError as error:
        scheme, _, rest = url.partition("://")
        shown = re.split("[?#]", rest.rpartition("@")[2])[0]
        raise ConfigError(
            _unopened(f"{scheme}://{shown}", f"it is no valid URL ({error}). Correct it")
        ) from None
    return parts


def _unopened(shown: str, reason: str) -> str:
    return f"{quoted(shown)} cannot be opened as a store of shards: {reason}."


class RemoteStore:
    """Shards at a URL."""

    folder: Path | None = None

    def __init__(self, root: str, patience: Patience) -> None:
        self.root = root
        self.patience = patience
        self._prefix = SCHEMES[parse_url(root).scheme.lower()]

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

    def heads(self, names: Iterable[str]) -> Sequence[Stored]:
        """Return size and ETag of each shard; see `Store`."""
        found, missing = [], []
        remedy = "Restore them, or number only shards that are there"
        with ThreadPoolExecutor(NUM_HEADS) as pool:
            for one in pool.map(self._head_or_name, names):
                if isinstance(one, Stored):
                    found.append(one)
                else:
                    missing.append(f"{quoted(one)} is not there")
                if len(missing) == MOST_MISSING:
                    remedy += f" (others than the first {MOST_MISSING:,} were not looked for)"
                    pool.shutdown(cancel_futures=True)
                    break
        raise_unreadable(f"shards at {self.root}", missing, remedy)
        return found

    def _head_or_name(self, name: str) -> Stored | str:
        """Return size and ETag of a shard; its name if it is missing."""
        try:
            return self.head(name)
        except MissingError:
            return name

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
            **client_options(self._prefix, os.environ),
            "timeout": timedelta(seconds=patience.request_seconds),
            "connect_timeout": timedelta(seconds=patience.connect_seconds),
        }
        try:
            return obstore.store.from_url(
                self.root,
                client_options=options,
                retry_config={"max_retries": 0},  # by `_patiently`, which names what fails
            )
        except BaseException as error:
            if not _is_failure(error):
                raise
            # It sends nothing, so that its errors are of the URL and the environment alone.
            raise StoreError(
                f"{self.root} cannot be opened: {_with_settings(error, self._prefix)}"
            ) from None

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
            except StoreError:  # it cannot be opened
                raise
            except BaseException as error:
                if not _is_failure(error):
                    raise
                reason, may_pass = _reason(error, self._prefix)
                waited = time.monotonic() - began
                if not may_pass or number == most or waited >= patience.seconds:
                    tries = f" after {number} tries in {waited:.0f} s" if number > 1 else ""
                    is_away = may_pass and not OPTIONS.search(reason)
                    kind = StoreAwayError if is_away else StoreError
                    failure = (MissingError if reason == GONE else kind)(
                        f"{subject} at {self.root} cannot be read{tries}: {reason}"
                    )
                    failure.may_pass = may_pass
                    raise failure from None
                if number > 1:
                    log.warning("%s at %s: %s; trying again", subject, self.root, reason)
            time.sleep(wait)
            wait = min(2 * wait, patience.longest_wait)
        raise AssertionError("the last try returns or raises")


class _ChangedError(Exception):
    """An object of another version than the one that is wanted."""


def _take(piece: bytes, file: IO[bytes], digest: Any) -> int:
    digest.update(piece)
    file.write(piece)
    return len(piece)


def _stored(meta: Mapping[str, Any], name: str) -> Stored:
    return Stored(name, int(meta["size"]), str(meta["e_tag"] or ""))


def _is_failure(error: BaseException) -> bool:
    """Return whether obstore failed; a panic of its Rust code is no Exception."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def _with_settings(error: BaseException, prefix: str) -> str:
    """Return an error's text, and which variables of the environment to look at."""
    settings = settings_of(str(error), prefix, os.environ)
    return f"{without_secrets(str(error))}{settings and '; '}{settings}."


def _reason(error: BaseException, prefix: str) -> tuple[str, bool]:
    """Return why a read failed, without credentials, and whether another try may help."""
    from obstore import exceptions

    if isinstance(error, FileNotFoundError):
        return GONE, False
    if isinstance(error, exceptions.PreconditionError | _ChangedError):
        return "it has changed since it was indexed. Index the shards again.", False
    if isinstance(error, exceptions.PermissionDeniedError | exceptions.UnauthenticatedError):
        return _denied(prefix), False
    text = without_secrets(str(error))
    if isinstance(error, exceptions.NotSupportedError):
        return f"the server cannot do this ({text}).", False
    if isinstance(error, exceptions.InvalidPathError):
        named = without_secrets(one_line(str(error).partition("\n\nDebug source:")[0]))
        return f"an object there has a name that cannot be read ({named}). Rename it.", False
    if not isinstance(error, Exception):
        return f"its client failed: {_with_settings(error, prefix)}", False
    if ROLE.search(text):
        text = (
            f"there are no credentials as {prefix}_... in the environment (or "
            f"{prefix}_SKIP_SIGNATURE=true for public data), and this machine has no role: {text}"
        )
        return text, True
    refusal = _refusal(str(error), text, prefix)
    return refusal or text, not refusal and isinstance(error, exceptions.BaseError | OSError)


def _refusal(whole: str, text: str, prefix: str) -> str:
    """Return why no try helps after an error that has no class of its own; empty if one may."""
    message, _, source = whole.partition("Debug source:")
    if found := CERTIFICATE.search(source):
        return (
            f"the server's certificate is refused ({found[1]}). Correct the URL's host, or name "
            f"the certificate of the server's own authority: SSL_CERT_FILE=FILE ({text})."
        )
    if found := REFUSED_LIST.search(message):
        return GONE if found[1] == "404" else _denied(prefix)
    if not message.strip().endswith(BUILDER):
        return ""
    settings = settings_of(text, prefix, os.environ)
    return f"its URL cannot be requested: {text}{settings and '; '}{settings}."


def _denied(prefix: str) -> str:
    names = f"; {prefix}_... in the environment name them" if prefix else ""
    return f"access is denied with the credentials there are{names}."
