"""Download a file once over http(s): checked, bounded, under its name only when it is whole.

urllib serves, since torch.hub.download_url_to_file has no timeout and takes a cut file for whole,
pooch brings requests and no bound on size, and huggingface_hub's http_get is not public, resumes
with another version of the file and stops at HF_HUB_OFFLINE. All go from https to http if told to.
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

TIMEOUT = 30.0
"""Seconds without a byte after which a connection counts as cut."""
PAUSES = (1.0, 4.0)
"""Seconds before the second attempt, and before the third."""
SCHEMES = ("http", "https")
PAGE_TYPES = ("text/html", "application/xhtml+xml")
ZIP = b"PK\x03\x04"


class _RefusedError(Exception):
    """A failure that another attempt would not mend; a ConnectionError is one that it may."""


def download(
    url: str,
    path: Path,
    *,
    sha256: str | None = None,
    beginnings: tuple[bytes, ...] = (b"",),
    max_bytes: int = 8 << 30,
) -> Path:
    """Download `url` to `path` unless that exists; of several processes one does, the others wait.

    Args:
        sha256: SHA-256 of the file, where it is known.
        beginnings: Allowed first bytes; where a zip's are allowed, its checksums are verified too.
        max_bytes: Largest size allowed.

    Raises:
        CheckpointError: No network, no such file, another one, cut, too large, nowhere to write.
    """
    with files.telling(path, CheckpointError):
        if path.is_file():
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_name(f".{path.name}.lock").open("ab") as lock:
            files.take_lock(lock, wait=True)
            if path.is_file():  # another process downloaded it meanwhile
                return path
            with files.replacing(path, error=CheckpointError) as temporary:
                try:
                    _fetch(url, temporary, max_bytes)
                    _check(temporary, sha256, beginnings)
                except (_RefusedError, ConnectionError) as error:
                    raise CheckpointError(
                        f"cannot fetch {url}: {error}. Fetch it on a machine that can, and put it "
                        f"at {path}; or set VIRTEX_MIRROR to a folder or an http(s) address that "
                        f"holds {path.name}."
                    ) from error
    return path


def _fetch(url: str, path: Path, max_bytes: int) -> None:
    """Write what the server sends to `path`, from its start again after a cut connection."""
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
    """Yield what the server sends, under a progress bar, until the end that it announced."""
    try:
        if urlsplit(url).scheme not in SCHEMES:
            raise ValueError("only http and https are possible")
        request = Request(url, headers={"User-Agent": "virtex"})
        with OPENER.open(request, timeout=TIMEOUT) as response:
            total, received = response.length, 0
            if response.headers.get_content_type() in PAGE_TYPES:
                raise ValueError("it gave a web page, not a file: a refusal, or a login")
            if response.status != 200 or not (total or response.chunked):
                raise ValueError("the server sends no file, or does not say where it ends")
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


def _check(path: Path, sha256: str | None, beginnings: tuple[bytes, ...]) -> None:
    with path.open("rb") as file:
        head = file.read(16)
    another = "it gave another file than expected, or a web page"
    if not head.startswith(beginnings):
        raise _RefusedError(f"{another}: it begins with {head!r}")
    if sha256 is not None and (found := files.sha256(path)) != sha256:
        raise _RefusedError(f"{another}: its SHA-256 is {found}, not {sha256}")
    if ZIP in beginnings and head.startswith(ZIP) and (damage := files.zip_damage(path)):
        raise _RefusedError(f"the file that came is damaged: {damage}")


class _Redirects(HTTPRedirectHandler):
    """Redirects to http(s) only, and never from https to http."""

    def redirect_request(
        self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Request | None:
        before, after = urlsplit(req.full_url).scheme, urlsplit(newurl).scheme
        if after not in SCHEMES or (before, after) == ("https", "http"):
            raise ValueError(f"it redirects to {newurl}, which is not followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


OPENER = build_opener(_Redirects)
