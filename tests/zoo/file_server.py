"""A web server of one file, with failures on demand."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Served:
    """What the server sends, and how often it was asked."""

    content: bytes
    content_type: str = "application/octet-stream"
    cuts: list[int] = field(default_factory=list)
    """How many bytes each of the next answers sends before the connection closes."""
    statuses: list[int] = field(default_factory=list)
    """Statuses of the next answers, instead of the file."""
    redirect: str = ""
    says_length: bool = True
    chunked: bool = False
    silence: threading.Event | None = None
    """Answer only when this event is set."""
    num_requests: int = 0


@contextmanager
def serving(served: Served) -> Iterator[str]:
    """Yield the address of the server, which ends after the block."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            served.num_requests += 1
            self.close_connection = True
            if served.silence is not None:
                served.silence.wait()
            with suppress(ConnectionError):  # whoever asked has left
                self._answer()

        def _answer(self) -> None:
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
            self.send_response(200)
            self.send_header("Content-Type", served.content_type)
            if served.chunked:
                self.send_header("Transfer-Encoding", "chunked")
            elif served.says_length:
                self.send_header("Content-Length", str(len(served.content)))
            self.end_headers()
            cut = served.cuts.pop(0) if served.cuts else None
            body = served.content[:cut]
            if served.chunked:
                self.wfile.write(b"%x\r\n%s" % (len(served.content), body))
                self.wfile.write(b"\r\n0\r\n\r\n" if cut is None else b"")
            else:
                self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            """Keep quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/file.pth"
    finally:
        server.shutdown()
        server.server_close()
