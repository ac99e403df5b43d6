"""Download of a file over http(s): verified, limited in size, atomic, and by one process at a time.

Where no checksum is published, that of the first download is recorded beside the file, and neither
a changed file nor another download is accepted.

urllib is used because torch.hub.download_url_to_file has no timeout and accepts a truncated file,
pooch depends on requests and does not limit the size, and huggingface_hub's http_get is private,
may resume with another version of the file and obeys HF_HUB_OFFLINE. All of them follow redirects
from https to http.
"""

import http.client
import time
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from virtex import files
from virtex.errors import CheckpointError
from virtex.progress import ProgressBar
from virtex.zip_damage import zip_damage

TIMEOUT = 30.0
"""Timeout of a connection, in seconds."""
PAUSES = (1.0, 4.0)
"""Seconds before the second attempt, and before the third."""
SCHEMES = ("http", "https")
PAGE_TYPES = ("text/html", "application/xhtml+xml")
ZIP = b"PK\x03\x04"


class _RefusedError(Exception):
    """A failure that is not retried; a ConnectionError is."""


def download(
    url: str,
    path: Path,
    *,
    sha256: str | None = None,
    first_bytes: tuple[bytes, ...] = (b"",),
    max_bytes: int = 8 << 30,
) -> Path:
    """Download `url` to `path` unless `path` exists. Other processes wait for the one that does.

    Args:
        sha256: SHA-256 of the file, if it is known.
        first_bytes: Allowed beginnings of the file. If those of a zip are allowed, the checksums of
            a zip are verified.
        max_bytes: Largest size allowed.

    Raises:
        CheckpointError: The server cannot be reached or refuses; the file is not as expected, is
            truncated or too large, or not the one that was downloaded first; or `path` cannot be
            written.
    """
    record = path.with_name(f"{path.name}.sha256")
    with files.write_errors(path, CheckpointError):
        if path.is_file():
            _check_existing(path, sha256 or _recorded(record), record)
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_name(f".{path.name}.lock").open("ab") as lock:
            files.take_lock(lock, wait=True)
            if path.is_file():  # another process downloaded it meanwhile
                return path
            with files.replacing(path, error=CheckpointError) as temporary:
                try:
                    _fetch(url, temporary, max_bytes)
                    _check(temporary, sha256 or _recorded(record), first_bytes)
                    if sha256 is None and not record.exists():
                        files.write(record, f"{files.sha256(temporary)}  {path.name}\n")
                except (_RefusedError, ConnectionError) as error:
                    raise CheckpointError(
                        f"cannot download {url}: {error}. Download it on another machine and copy "
                        f"it to {path}; or set VIRTEX_MIRROR to a folder or an http(s) address "
                        f"that holds {path.name}."
                    ) from error
    return path


def _recorded(record: Path) -> str | None:
    """Return the SHA-256 in a file of sha256sum's format; None if there is no such file."""
    words = record.read_text(encoding="utf-8", errors="replace").split() if record.is_file() else []
    return words[0] if words else None


def _check_existing(path: Path, sha256: str | None, record: Path) -> None:
    """Check that a file in the cache is the one that was downloaded or published."""
    if sha256 is not None and (found := files.sha256(path)) != sha256:
        raise CheckpointError(
            f"{path} has changed: its SHA-256 is {found}, not {sha256}. Remove it to download it "
            f"again; if you trust it, remove {record.name} beside it."
        )


def _fetch(url: str, path: Path, max_bytes: int) -> None:
    """Write the response to `path`; start again after a connection error."""
    for pause in (*PAUSES, None):
        try:
            with path.open("wb") as file:
                file.writelines(_receive(url, path.name, max_bytes))
        except ConnectionError:
            if pause is None:
                raise
            time.sleep(pause)
        else:
            return


def _receive(url: str, title: str, max_bytes: int) -> Iterator[bytes]:
    """Yield the body of the response, and show a progress bar."""
    try:
        if urlsplit(url).scheme not in SCHEMES:
            raise ValueError("only http and https are possible")
        request = Request(url, headers={"User-Agent": "virtex"})
        with OPENER.open(request, timeout=TIMEOUT) as response:
            total, received = response.length, 0
            if response.headers.get_content_type() in PAGE_TYPES:
                raise ValueError("the response is a web page, not a file: a refusal, or a login")
            if response.status != 200 or not (total or response.chunked):
                raise ValueError("the server sends no file, or not its length")
            with ProgressBar(title, total, unit="bytes") as bar:
                while chunk := response.read1(1 << 20):
                    received += len(chunk)
                    if max(total or 0, received) > max_bytes:
                        raise ValueError(f"it has more than the {max_bytes} bytes allowed")
                    yield chunk
                    bar.reach(received)
            if response.length:
                raise ConnectionError(f"the connection ended after {received} of {total} bytes")
    except urllib.error.HTTPError as error:
        error.close()
        kind = ConnectionError if error.code in (408, 429) or error.code >= 500 else _RefusedError
        raise kind(f"the server answers {error.code} {error.reason}") from error
    except (ValueError, http.client.InvalidURL) as error:
        raise _RefusedError(str(error)) from error
    except (OSError, http.client.HTTPException) as error:
        raise ConnectionError(f"{error} (is there a network?)") from error


def _check(path: Path, sha256: str | None, first_bytes: tuple[bytes, ...]) -> None:
    with path.open("rb") as file:
        head = file.read(16)
    another = "the response is another file than expected, or a web page"
    if not head.startswith(first_bytes):
        raise _RefusedError(f"{another}: it begins with {head!r}")
    if sha256 is not None and (found := files.sha256(path)) != sha256:
        raise _RefusedError(f"{another}: its SHA-256 is {found}, not {sha256} as known or recorded")
    if ZIP in first_bytes and head.startswith(ZIP) and (damage := zip_damage(path)):
        raise _RefusedError(f"the file is damaged: {damage}")


class _Redirects(HTTPRedirectHandler):
    """Redirects to http(s) only, and not from https to http."""

    def redirect_request(
        self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Request | None:
        before, after = urlsplit(req.full_url).scheme, urlsplit(newurl).scheme
        if after not in SCHEMES or (before, after) == ("https", "http"):
            raise ValueError(f"it redirects to {newurl}, which is not followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


OPENER = build_opener(_Redirects)
