"""What may enter the demo, and what may leave it.

gradio can give out files and fetch what a request names from other hosts. The page needs neither:
its pictures lie within it, and of files it sends photographs alone.
"""

import json

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SHUT = tuple(
    f"/gradio_api/{name}"
    for name in (
        "api",
        "call",
        "deep_link",
        "file",
        "openapi",
        "process_",
        "proxy",
        "run",
        "stream",
    )
)
"""Paths that begin so are answered with 403."""
QUESTIONS = "/gradio_api/queue/join"
"""Where the page sends what was typed."""
LONGEST_QUESTION = 100_000
"""Bytes."""
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
    """Shuts what is `SHUT`, reads questions before gradio does, and adds `HEADERS` to answers."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        refusal: PlainTextResponse | None = None
        if scope["path"].startswith(SHUT):
            refusal = PlainTextResponse("Not here.", 403)
        elif scope["path"].startswith(QUESTIONS):
            question = await _read(receive)
            refusal = _refusal(question)
            receive = _again(question, receive)
        await (refusal or self.app)(scope, receive, _with_headers(send))


def _refusal(question: bytes) -> PlainTextResponse | None:
    if len(question) > LONGEST_QUESTION:
        return PlainTextResponse("Too long a question.", 413)
    try:
        text = json.dumps(json.loads(question))  # one spelling, whatever was escaped
    except (ValueError, RecursionError):
        return PlainTextResponse("No question.", 400)
    return PlainTextResponse("No files.", 403) if FILE_MARK in text else None


async def _read(receive: Receive) -> bytes:
    """The body of a request, or as much of it as shows that it is too long."""
    body = b""
    while len(body) <= LONGEST_QUESTION:
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
