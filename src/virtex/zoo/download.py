"""Fetch a file once, over http(s): resumed where it was cut, never taken for whole when it is not.

The rest of a cut file is asked for (RFC 9110, section 14) on condition that it has not changed;
otherwise it begins anew.
"""

import contextlib
import http.client
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from virtex.errors import CheckpointError
from virtex.zoo.partial_file import PartialFile

MAX_BYTES = 8 << 30
CHUNK = 1 << 20
NUM_ATTEMPTS = 4
TIMEOUT = 30.0
"""Seconds without a byte after which a connection counts as cut."""
PAUSE = 1.0
"""Seconds before the second attempt; twice as many before each next."""
SCHEMES = ("http", "https")
PASSING = (408, 425, 429, 500, 502, 503, 504)
"""Statuses after which it is worth to ask again."""
PAGE_TYPES = ("text/html", "application/xhtml+xml")
PAGE_START = re.compile(rb"\s*<(!doctype|html|\?xml)", re.IGNORECASE)


class _CutError(Exception):
    """The connection failed, or ended early: worth another attempt."""


def download(
    url: str,
    path: Path,
    *,
    sha256: str | None = None,
    beginnings: tuple[bytes, ...] = (b"",),
    max_bytes: int = MAX_BYTES,
    pause: float = PAUSE,
    console: Console | None = None,
) -> Path:
    """Fetch `url` to `path`, unless that stands there already; several processes may ask at once.

    Args:
        sha256: Of the file, where it is known; a file that has another is refused.
        beginnings: How such a file may begin; one that begins otherwise is refused.
        max_bytes: A larger file is refused.
        pause: Seconds before the second attempt.
        console: Where progress is shown, if it is a terminal; stderr if left out.

    Returns:
        `path`.

    Raises:
        CheckpointError: No network, no such file, something else instead of it, another checksum,
            too large, cut short time and again, or no place to write it.
    """
    if path.is_file():
        return path
    _check_address(url, path)
    target = PartialFile(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with target.locked():
            if not path.is_file():  # another process may have fetched it meanwhile
                _fetch(url, target, max_bytes, pause, console or Console(stderr=True))
                _check(url, target, sha256, beginnings)
                target.finish()
    except OSError as error:
        raise CheckpointError(
            f"cannot write {path}: {error}. Free some space, or choose another folder for the "
            "cache (VIRTEX_CACHE)."
        ) from error
    return path


def _check_address(url: str, path: Path) -> None:
    try:
        scheme = urlsplit(url).scheme
    except ValueError as error:
        raise CheckpointError(f"cannot fetch {url}: {error}. {_remedy(path)}") from error
    if scheme not in SCHEMES:
        raise CheckpointError(f"cannot fetch {url}: only http and https are. {_remedy(path)}")


def _fetch(url: str, target: PartialFile, max_bytes: int, pause: float, console: Console) -> None:
    """Attempt by attempt, until the file is whole."""
    for attempt in range(NUM_ATTEMPTS):
        if attempt:
            time.sleep(pause * 2 ** (attempt - 1))
        try:
            with _answer(url, target) as response:
                return _receive(response, url, target, max_bytes, console)
        except _CutError as error:
            cause = error
    arrived = target.num_bytes()
    kept = f" {arrived} bytes are kept: the next try goes on from there." if arrived else ""
    raise CheckpointError(f"cannot fetch {url}: {cause}.{kept} {_remedy(target.path)}")


@contextlib.contextmanager
def _answer(url: str, target: PartialFile) -> Iterator[http.client.HTTPResponse]:
    """The server's answer to a request for what has not arrived yet.

    Raises:
        _CutError: None, or one that another attempt may better.
        CheckpointError: It refuses.
    """
    headers = {"User-Agent": "virtex", **target.headers()}
    try:
        response = OPENER.open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        answer = f"the server answers {error.code} {error.reason}"
        if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            target.clear()
            raise _CutError(answer) from error
        if error.code in PASSING:
            raise _CutError(answer) from error
        raise CheckpointError(f"cannot fetch {url}: {answer}. {_remedy(target.path)}") from error
    except (ValueError, http.client.InvalidURL) as error:  # the address, or one it redirects to
        raise CheckpointError(f"cannot fetch {url}: {error}. {_remedy(target.path)}") from error
    except (OSError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise _CutError(f"{reason} (is there a network?)") from error
    with response:
        yield response


def _receive(
    response: http.client.HTTPResponse,
    url: str,
    target: PartialFile,
    max_bytes: int,
    console: Console,
) -> None:
    """Append what the server sends to what has arrived.

    Raises:
        _CutError: It ended early.
        CheckpointError: It is not the file.
    """
    start, total = _extent(response, url, target)
    target.note_version(response.headers)
    with target.part.open("ab" if start else "wb") as file, _progress(console) as progress:
        task = progress.add_task(target.path.name, total=total, completed=start)
        for chunk in _chunks(response):
            if not file.tell() and PAGE_START.match(chunk):
                raise _web_page(url, target)
            if max(file.tell() + len(chunk), total or 0) > max_bytes:
                target.clear()
                raise CheckpointError(f"cannot fetch {url}: it has more than {max_bytes} bytes.")
            file.write(chunk)
            progress.update(task, completed=file.tell())
        arrived = file.tell()
        file.flush()
        os.fsync(file.fileno())
    if total is not None and arrived != total:
        raise _CutError(f"the connection ended after {arrived} of {total} bytes")


def _extent(
    response: http.client.HTTPResponse, url: str, target: PartialFile
) -> tuple[int, int | None]:
    """Where what is sent belongs in the file, and how long the whole is, where the server says it.

    Raises:
        _CutError: It does not follow what has arrived.
        CheckpointError: No file, or one whose end could not be told from a cut.
    """
    if response.headers.get_content_type() in PAGE_TYPES:
        raise _web_page(url, target)
    if response.status == HTTPStatus.PARTIAL_CONTENT:
        content_range = response.headers.get("Content-Range", "")
        sent = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", content_range)
        if sent is None or int(sent[1]) != target.num_bytes():
            target.clear()
            raise _CutError(f"the server sent other bytes than were asked for ({content_range})")
        return int(sent[1]), int(sent[2])
    problem = None
    if response.status != HTTPStatus.OK or response.length == 0:
        problem = f"the server answers {response.status} {response.reason} and sends no file"
    elif response.length is None and not response.chunked:
        problem = "the server does not say where the file ends: a cut one would pass for whole"
    if problem is not None:
        raise CheckpointError(f"cannot fetch {url}: {problem}. {_remedy(target.path)}")
    return 0, response.length


def _chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """What arrives until the end, or until the connection closes early.

    Raises:
        _CutError: The connection failed.
    """
    while True:
        try:
            chunk = response.read1(CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise _CutError(f"the connection failed: {error!r}") from error
        if not chunk:
            return
        yield chunk


def _check(
    url: str, target: PartialFile, sha256: str | None, beginnings: tuple[bytes, ...]
) -> None:
    with target.part.open("rb") as file:
        head = file.read(16)
    if not head.startswith(beginnings):
        target.clear()
        raise CheckpointError(
            f"{url} gave another file than expected: it begins with {head!r}. It was removed. "
            f"{_remedy(target.path)}"
        )
    found = sha256 if sha256 is None else target.sha256()
    if found != sha256:
        target.clear()
        raise CheckpointError(
            f"{url} gave another file than expected: its SHA-256 is {found}, not {sha256}. It was "
            "removed. Try again, or take it from a mirror that you trust."
        )


def _web_page(url: str, target: PartialFile) -> CheckpointError:
    target.clear()
    return CheckpointError(
        f"{url} gave a web page, not a file: the download was refused, or redirected to a login. "
        f"{_remedy(target.path)}"
    )


def _remedy(path: Path) -> str:
    return (
        f"Fetch the file on a machine that can, and put it at {path}; or set VIRTEX_MIRROR to a "
        f"folder or an http(s) address that holds {path.name}."
    )


def _progress(console: Console) -> Progress:
    """A bar on a terminal, nothing elsewhere."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )


class _Redirects(urllib.request.HTTPRedirectHandler):
    """To http(s) only, and never from https to http."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        before, after = urlsplit(req.full_url).scheme, urlsplit(newurl).scheme
        if after not in SCHEMES or (before, after) == ("https", "http"):
            raise ValueError(f"it redirects to {newurl}, which is not followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


OPENER = urllib.request.build_opener(_Redirects)
