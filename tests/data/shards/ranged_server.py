"""A small object store for tests: files of a folder by http, with ranges and S3's listing.

    with RangedServer(folder) as server:
        server.set_environment(monkeypatch)      # for s3://bucket/...
        store = open_store(f"s3://{BUCKET}/prefix")
        server.fail(3)                           # the next three answers are 503
        assert server.count("GET") == 4

`server.url` serves the same files as plain http. It runs in threads of this process; `python -m
tests.data.shards.ranged_server FOLDER [PORT [HOST]]` serves a folder until it is ended.
"""

import hashlib
import re
import sys
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import pytest

BUCKET = "bucket"
PAGE = 7
"""Most files of one page of a listing, so that tests see several."""


@dataclass
class Faults:
    """How the next answers go wrong; counts go down to 0."""

    num_failed: int = 0
    """Answers of status `status` instead of a file."""
    status: int = 503
    num_cut: int = 0
    """Answers whose body ends halfway."""
    num_dropped: int = 0
    """Connections that are closed without an answer."""
    delay: float = 0.0
    """Seconds before each answer."""


@dataclass
class RangedServer:
    """A server of the files in a folder."""

    folder: Path
    port: int = 0
    """Port to listen on; 0: any free one."""
    host: str = "127.0.0.1"
    """Address to listen on."""
    faults: Faults = field(default_factory=Faults)
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    """Method, path with query, and range of each request."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> Self:
        self.http = ThreadingHTTPServer((self.host, self.port), _Handler)
        self.http.owner = self  # type: ignore[attr-defined]
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.http.shutdown()
        self.http.server_close()

    @property
    def endpoint(self) -> str:
        """Endpoint of the S3 interface."""
        return f"http://{self.host}:{self.http.server_port}"

    @property
    def url(self) -> str:
        """URL of the folder by plain http."""
        return f"{self.endpoint}/{BUCKET}"

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables with which s3://bucket is this folder."""
        return environment_of(self.endpoint)

    def set_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Make s3://bucket this folder, for the rest of a test."""
        for name, value in self.environment.items():
            monkeypatch.setenv(name, value)

    def fail(self, count: int, *, status: int = 503) -> None:
        """Answer the next requests with an error."""
        with self.lock:
            self.faults.num_failed, self.faults.status = count, status

    def cut(self, count: int) -> None:
        """Close the connection halfway through the next bodies."""
        with self.lock:
            self.faults.num_cut = count

    def drop(self, count: int) -> None:
        """Close the connections of the next requests without an answer."""
        with self.lock:
            self.faults.num_dropped = count

    def delay(self, seconds: float) -> None:
        """Wait before each answer from now on."""
        self.faults.delay = seconds

    def count(self, method: str, part: str = "") -> int:
        """Return the number of requests of a method whose path holds `part`."""
        return sum(each[0] == method and part in each[1] for each in self.requests)

    def note(self, *request: str) -> bool:
        """Note a request, and return whether it is to fail."""
        with self.lock:
            self.requests.append((request[0], request[1], request[2]))
            is_failing = self.faults.num_failed > 0
            self.faults.num_failed -= is_failing
        return is_failing

    def is_cut(self) -> bool:
        """Return whether the next body is to end halfway."""
        with self.lock:
            is_cut = self.faults.num_cut > 0
            self.faults.num_cut -= is_cut
        return is_cut

    def is_dropped(self) -> bool:
        """Return whether the next request has no answer."""
        with self.lock:
            is_dropped = self.faults.num_dropped > 0
            self.faults.num_dropped -= is_dropped
        return is_dropped


def environment_of(endpoint: str) -> dict[str, str]:
    """Return the environment variables with which s3:// is a server's endpoint."""
    return {
        "AWS_ENDPOINT": endpoint,
        "AWS_ALLOW_HTTP": "true",
        "AWS_SKIP_SIGNATURE": "true",
        "AWS_REGION": "us-east-1",
    }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        server: RangedServer = self.server.owner  # type: ignore[attr-defined]
        is_failing = server.note(self.command, self.path, self.headers.get("Range", ""))
        time.sleep(server.faults.delay)
        if server.is_dropped():
            self.close_connection = True
            return
        parts = urlsplit(self.path)
        bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
        path = server.folder / key
        if is_failing:
            self._answer(server.faults.status, b"<Error><Code>SlowDown</Code></Error>")
        elif not key and "list-type" in parts.query:
            self._answer(200, _listing(server.folder, parse_qs(parts.query)))
        elif bucket != BUCKET or not path.is_file():
            self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        else:
            self._send_file(path, is_cut=self.command == "GET" and server.is_cut())

    def _send_file(self, path: Path, *, is_cut: bool) -> None:
        data, etag = path.read_bytes(), etag_of(path)
        if self.headers.get("If-Match", etag) != etag:
            self._answer(412, b"<Error><Code>PreconditionFailed</Code></Error>")
            return
        headers = {"ETag": etag, "Last-Modified": self.date_time_string(int(path.stat().st_mtime))}
        status, start, end = 200, 0, len(data)
        if found := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            status, start = 206, int(found[1])
            end = min(end, int(found[2]) + 1) if found[2] else end
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(data)}"
        self._answer(status, data[start:end], headers, is_cut=is_cut)

    def _answer(
        self,
        status: int,
        body: bytes,
        headers: dict[str, str] | None = None,
        *,
        is_cut: bool = False,
    ) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if is_cut else body)
        if is_cut:
            self.close_connection = True


_etags: dict[tuple[str, int, int], str] = {}


def etag_of(path: Path) -> str:
    """Return the ETag of a file: its MD5 in quotes, as S3 has it."""
    status = path.stat()
    key = (str(path), status.st_size, status.st_mtime_ns)
    if key not in _etags:
        _etags[key] = f'"{hashlib.md5(path.read_bytes()).hexdigest()}"'
    return _etags[key]


def _listing(folder: Path, query: dict[str, list[str]]) -> bytes:
    """Return a page of the answer to ListObjectsV2."""
    prefix = query.get("prefix", [""])[0]
    after = query.get("continuation-token", query.get("start-after", [""]))[0]
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    names = [name for name in names if name.startswith(prefix) and name > after]
    page, rest = names[:PAGE], names[PAGE:]
    rows = [
        f"<Contents><Key>{escape(name)}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
        f"<ETag>{escape(etag_of(folder / name))}</ETag>"
        f"<Size>{(folder / name).stat().st_size}</Size></Contents>"
        for name in page
    ]
    token = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if rest else ""
    truncated = "true" if rest else "false"
    return (
        f'<?xml version="1.0" encoding="UTF-8"?><ListBucketResult><Name>{BUCKET}</Name>'
        f"<Prefix>{escape(prefix)}</Prefix><KeyCount>{len(page)}</KeyCount>{token}"
        f"<IsTruncated>{truncated}</IsTruncated>{''.join(rows)}</ListBucketResult>"
    ).encode()


if __name__ == "__main__":
    root, *given = sys.argv[1:]
    port, host = given + ["0", "127.0.0.1"][len(given) :]
    with RangedServer(Path(root), int(port), host) as served:
        print(served.endpoint, flush=True)
        threading.Event().wait()
