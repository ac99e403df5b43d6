"""Middleware of the demo: an allow-list of hosts, headers that restrict the browser, and errors."""

import asyncio
from collections.abc import Iterable, Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from virtex.demo.host_names import host_name, split_url

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
SERVER_FAULT = "Something went wrong on the server; its terminal says what."
CLOSING = "The server is closing."


class RequestGuard:
    """Middleware that refuses other hosts and other sites, and adds `HEADERS` to every response.

    It is the outermost one: an error, its own too, and the end of the server are answered as JSON.

    The same-origin policy keeps pages of other sites from reading responses, unless their host name
    resolves to this machine (DNS rebinding). So the Host header is checked against an allow-list;
    the address that the connection goes to is always allowed.

    Args:
        allowed_hosts: Names or addresses; those of the machine itself are allowed anyway.
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
        self.allowed_hosts = {*LOCAL_HOSTS, *map(host_name, allowed_hosts)} - {""}
        ancestors = f"frame-ancestors {' '.join(embedded_in) or NOBODY}"
        self.headers = {**HEADERS, POLICY: HEADERS[POLICY].replace(NO_FRAMES, ancestors)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        has_started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal has_started
            if message["type"] == "http.response.start":
                has_started = True
                MutableHeaders(scope=message).update(self.headers)
            await send(message)

        try:
            await self._choose(scope)(scope, receive, send_with_headers)
        except asyncio.CancelledError:  # the server closes, and waits no longer
            if not has_started:
                await error_response(CLOSING, 503)(scope, receive, send_with_headers)
        except Exception:
            if not has_started:
                await error_response(SERVER_FAULT, 500)(scope, receive, send_with_headers)
            raise  # the server logs it

    def _choose(self, scope: Scope) -> ASGIApp:
        """Return what answers a request: the application, or why it is refused."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        name = _hostname(host)
        server = (scope.get("server") or ("",))[0]
        is_guarded = scope["method"] not in ("GET", "HEAD") or scope["path"].startswith("/api/")
        if name not in self.allowed_hosts | {server}:
            words = f"Host {host!r} is not allowed; --allowed_hosts {name} allows it."
            return error_response(words, 421)
        if is_guarded and _is_cross_site(headers, host):
            return error_response("A page of another site may not use this one.", 403)
        return self.app


def error_response(words: str, status: int = 400) -> JSONResponse:
    """Return a response that describes an error to the user."""
    return JSONResponse({"error": words}, status)


def _hostname(host: str) -> str:
    """Return the name in a Host header, in lower case, without brackets and port."""
    return split_url(f"//{host}").hostname or ""


def _is_cross_site(headers: Headers, host: str) -> bool:
    """Return whether the browser says that a page of another origin sends the request."""
    if "origin" in headers:
        return split_url(headers["origin"]).netloc.lower() != host.lower()
    return headers.get("sec-fetch-site", "none") not in ("none", "same-origin")
