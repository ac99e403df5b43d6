"""Middleware of the demo: an allow-list of hosts, and headers that restrict the browser."""

from collections.abc import Iterable, Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
POLICY, NOBODY = "content-security-policy", "'none'"
NO_FRAMES = f"frame-ancestors {NOBODY}"
HEADERS = {
    POLICY: (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; " + NO_FRAMES
    ),
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class RequestGuard:
    """Middleware that refuses other hosts and other sites, and adds `HEADERS` to every response.

    The same-origin policy keeps pages of other sites from reading responses, unless their host name
    resolves to this machine (DNS rebinding). So the Host header is checked against an allow-list;
    the address that the connection goes to is always allowed.

    Args:
        allowed_hosts: Names without port; those of the machine itself are allowed anyway.
        embedded_in: Origins whose pages may show this one in a frame; by default none.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        allowed_hosts: Iterable[str] = (),
        embedded_in: Sequence[str] = (),
    ) -> None:
        self.app = app
        names = (name.strip().strip("[]").lower() for name in allowed_hosts)
        self.allowed_hosts = {*LOCAL_HOSTS, *names} - {""}
        ancestors = f"frame-ancestors {' '.join(embedded_in) or NOBODY}"
        self.headers = {**HEADERS, POLICY: HEADERS[POLICY].replace(NO_FRAMES, ancestors)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        name = _hostname(host)
        server = (scope.get("server") or ("",))[0]
        is_guarded = scope["method"] not in ("GET", "HEAD") or scope["path"].startswith("/api/")
        app = self.app
        if name not in self.allowed_hosts | {server}:
            words = f"Host {host!r} is not allowed; --allowed_hosts {name} allows it."
            app = error_response(words, 421)
        elif is_guarded and _is_cross_site(headers, host):
            app = error_response("A page of another site may not use this one.", 403)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self.headers)
            await send(message)

        await app(scope, receive, send_with_headers)


def error_response(words: str, status: int = 400) -> JSONResponse:
    """Return a response that describes an error to the user."""
    return JSONResponse({"error": words}, status)


def _hostname(host: str) -> str:
    """Return the name in a Host header, in lower case, without brackets and port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _is_cross_site(headers: Headers, host: str) -> bool:
    """Return whether the browser says that a page of another origin sends the request."""
    if "origin" in headers:
        return urlsplit(headers["origin"]).netloc.lower() != host.lower()
    return headers.get("sec-fetch-site", "none") not in ("none", "same-origin")
