"""What may enter the demo, and what may leave it.

gradio can give out files, run code that it is sent, and fetch what a request names from other
hosts. The page needs little of that, so only what it needs is open; its pictures lie within it.
"""

import json
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

READ = frozenset(
    {
        "/",
        "/config",
        "/favicon.ico",
        "/gradio_api/queue/data",
        "/gradio_api/startup-events",
        "/manifest.json",
        "/theme.css",
    }
)
"""Paths that the page gets."""
READ_BELOW = ("/assets/", "/gradio_api/heartbeat/", "/static/", "/svelte/")
"""Folders from which the page gets what it likes."""
PHOTO = "/photo"
"""Where the page sends a photograph; who takes it counts its bytes."""
QUESTION = "/gradio_api/queue/join"
"""Where the page sends what was typed."""
SENT = frozenset({PHOTO, QUESTION, "/gradio_api/cancel", "/gradio_api/reset"})
"""Paths to which the page sends."""
LONGEST_BODY = 100_000
"""Bytes of a request that is no photograph."""
FILE_MARK = "gradio.FileData"
"""How a question says that it names a file or an address, which gradio would fetch."""
HEADERS = {
    "content-security-policy": (
        "default-src 'self'; img-src 'self' data: blob:; font-src 'self' data:; "
        "style-src 'self' 'unsafe-inline'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
        "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
    ),
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
"""gradio's scripts need 'unsafe-eval'; what matters here is that no request leaves for another
host."""


class Door:
    """Lets in what the page needs, reads it before gradio does, and adds `HEADERS` to answers."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        refusal = _refusal_of_request(scope)
        if refusal is None and scope["path"] != PHOTO:
            body = await _read(receive)
            refusal = _refusal_of_body(body, scope["path"])
            receive = _again(body, receive)
        await (refusal or self.app)(scope, receive, _with_headers(send))


def _refusal_of_request(scope: Scope) -> Response | None:
    path, method = scope["path"], scope["method"]
    if method == "POST" and path in SENT:
        if _is_from_elsewhere(Headers(scope=scope)):
            return PlainTextResponse("Not from another site.", 403)
        return None
    is_open = path in READ or path.startswith(READ_BELOW)
    return None if method in ("GET", "HEAD") and is_open else PlainTextResponse("Not here.", 403)


def _is_from_elsewhere(headers: Headers) -> bool:
    """Whether a page of another site sends this; browsers say of which one."""
    origin = headers.get("origin")
    host = headers.get("x-forwarded-host", headers.get("host", "")).split(",")[0].strip()
    return origin is not None and urlsplit(origin).netloc.lower() != host.lower()


def _refusal_of_body(body: bytes, path: str) -> Response | None:
    if len(body) > LONGEST_BODY:
        return PlainTextResponse("Too long a question.", 413)
    if path != QUESTION:
        return None
    try:
        text = json.dumps(json.loads(body))  # one spelling, whatever was escaped
    except (ValueError, RecursionError):
        return PlainTextResponse("No question.", 400)
    return PlainTextResponse("No files.", 403) if FILE_MARK in text else None


async def _read(receive: Receive) -> bytes:
    """The body of a request, or as much of it as shows that it is too long."""
    body = b""
    while len(body) <= LONGEST_BODY:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body", False):
            break
    return body


def _again(body: bytes, receive: Receive) -> Receive:
    """Give a body that was read once more, then what comes after it."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return messages.pop() if messages else await receive()

    return receive_again


def _with_headers(send: Send) -> Send:
    headers = [(name.encode(), value.encode()) for name, value in HEADERS.items()]

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], *headers]}
        await send(message)

    return send_with_headers
