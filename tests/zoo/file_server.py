"""A web server of one file, with ranges as RFC 9110 has them, and failures on demand."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Served:
    """What the server gives, and what it was asked."""

    content: bytes
    etag: str = '"one"'
    content_type: str = "application/octet-stream"
    cuts: list[int] = field(default_factory=list)
    """How many bytes each of the next answers sends before the connection closes."""
    statuses: list[int] = field(default_factory=list)
    """Of the next answers, instead of the file."""
    redirect: str = ""
    says_length: bool = True
    chunked: bool = False
    ranges: list[str | None] = field(default_factory=list)
    """The Range header of each request so far."""


@contextmanager
def serving(served: Served) -> Iterator[str]:
    """The address of the server, which ends after the block."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            served.ranges.append(self.headers["Range"])
            self.close_connection = True
            if served.statuses:
                self.send_error(served.statuses.pop(0))
            elif served.redirect and self.path != "/moved":
                self.send_response(302)
                self.send_header("Location", served.redirect)
                self.send_header("Content-Length", "0")
                self.end_headers()
            else:
                self._send_file()

        def _send_file(self) -> None:
            size, start = len(served.content), 0
            if self.headers["Range"] and self.headers["If-Range"] in (None, served.etag):
                start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            if start and start >= size:
                return self.send_error(416)
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
            if served.etag:
                self.send_header("ETag", served.etag)
            self.send_header("Content-Type", served.content_type)
            if served.chunked:
                self.send_header("Transfer-Encoding", "chunked")
            elif served.says_length:
                self.send_header("Content-Length", str(size - start))
            self.end_headers()
            return self._send_body(served.content[start:])

        def _send_body(self, body: bytes) -> None:
            cut = served.cuts.pop(0) if served.cuts else None
            if served.chunked:
                self.wfile.write(b"%x\r\n%s" % (len(body), body[:cut]))
                self.wfile.write(b"\r\n0\r\n\r\n" if cut is None else b"")
            else:
                self.wfile.write(body[:cut])

        def log_message(self, *arguments: object) -> None:
            """Keep quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/file.pth"
    finally:
        server.shutdown()
        server.server_close()
