"""Middleware of the demo: which requests are answered, and what each answer tells the browser."""

from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class RequestGuard:
    """Middleware that refuses foreign hosts and other sites, and adds `HEADERS` to every answer.

    A page of another site cannot read the answers (the same-origin policy), unless its own name
    leads to this machine (DNS rebinding): so the Host header is checked against an allow-list. An
    address to which the connection really goes needs no place on it.

    Args:
        allowed_hosts: Names without port, beside those of the machine itself.
    """

    def __init__(self, app: ASGIApp, *, allowed_hosts: Iterable[str] = ()) -> None:
        self.app = app
        self.allowed_hosts = {name.strip().strip("[]").lower() for name in allowed_hosts}
        self.allowed_hosts = (self.allowed_hosts | {*LOCAL_HOSTS}) - {""}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        name = _hostname(host)
        server = (scope.get("server") or ("",))[0]
        is_guarded = scope["method"] not in ("GET", "HEAD") or scope["path"].startswith("/api/")
        app = self.app
        if name not in self.allowed_hosts | {server}:
            app = _refusal(f"Host {host!r} is not allowed; --allowed_hosts {name} allows it.", 421)
        elif is_guarded and _is_cross_site(headers, host):
            app = _refusal("A page of another site may not use this one.", 403)
        await app(scope, receive, _with_headers(send))


def _hostname(host: str) -> str:
    """The name in a Host header, in lower case, without brackets and port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _is_cross_site(headers: Headers, host: str) -> bool:
    """Whether a browser says that a page of another origin sends this."""
    if "origin" in headers:
        return urlsplit(headers["origin"]).netloc.lower() != host.lower()
    return headers.get("sec-fetch-site", "none") not in ("none", "same-origin")


def _refusal(words: str, status: int) -> JSONResponse:
    return JSONResponse({"error": words}, status)


def _with_headers(send: Send) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(HEADERS)
        await send(message)

    return send_with_headers
