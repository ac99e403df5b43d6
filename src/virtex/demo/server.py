"""The server of the demo, with limits on connections and timeouts."""

import asyncio
import logging
import signal
import socket
import webbrowser
from collections.abc import Callable, Sequence
from contextlib import closing, suppress

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from virtex.demo.api import DemoApi
from virtex.demo.demo_config import DemoConfig
from virtex.demo.gallery import find_images, open_gallery
from virtex.demo.middleware import LOCAL_HOSTS, RequestGuard
from virtex.engine.run import choose_device
from virtex.errors import ConfigError
from virtex.predict.loading import load_captioner

log = logging.getLogger("virtex")

MAX_CONNECTIONS = 100
"""Largest number of open connections; more are answered with 503."""
HEAD_SECONDS = 10
"""Timeout for the head of a request."""
MAX_HEAD_BYTES = 2**18
"""Largest size of a request's head, which holds the labels."""


def serve(config: DemoConfig, *, embedded_in: Sequence[str] = ()) -> None:
    """Serve a page about a model until Ctrl-C or SIGTERM.

    Args:
        embedded_in: Origins whose pages may show this one in a frame.

    Raises:
        ConfigError: The port cannot be listened on, or the gallery holds no images.
        CheckpointError: `init` holds no captioner.
    """
    paths = find_images(config.init, config.gallery)
    with closing(listen(config.host, config.port)) as listener:
        predictor = load_captioner(
            config.init, tokenizer=config.tokenizer, device=choose_device(config.device)
        )
        api = DemoApi(predictor, open_gallery(predictor, paths), max_megabytes=config.max_upload_mb)
        hosts = [config.host, *config.named_hosts]
        app = RequestGuard(api.app(config.init), allowed_hosts=hosts, embedded_in=embedded_in)
        url = address(config.host, listener.getsockname()[1])
        print(f"{url}  (Ctrl-C ends it)", flush=True)
        if config.open:
            webbrowser.open(url)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with suppress(KeyboardInterrupt):
            DemoServer(app, on_close=api.close).run([listener])


class DemoServer(uvicorn.Server):
    """Server that says when it closes.

    Args:
        on_close: Called when a signal came, before the requests are waited for.
    """

    def __init__(self, app: ASGIApp, *, on_close: Callable[[], None]) -> None:
        super().__init__(settings(app))
        self.on_close = on_close

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the server."""
        self.on_close()
        await super().shutdown(sockets)


def settings(app: ASGIApp) -> uvicorn.Config:
    """Return the settings of a server with limits on connections, heads and timeouts."""
    return uvicorn.Config(
        app,
        http=PromptProtocol,
        ws="none",
        lifespan="off",
        log_level="warning",
        proxy_headers=False,
        server_header=False,
        limit_concurrency=MAX_CONNECTIONS,
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=1,
    )


class PromptProtocol(H11Protocol):
    """HTTP/1.1 that closes idle connections, also before the first request.

    uvicorn's own timeout begins after a response, so that a client that sends nothing, or half a
    head, would keep its connection open forever.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Open a connection, and start its timeout."""
        super().connection_made(transport)
        self.loop.call_later(HEAD_SECONDS, self._close_if_idle)

    def _close_if_idle(self, last: object = None) -> None:
        """Close the connection if no request began in the last HEAD_SECONDS, else look again later.

        Args:
            last: The request that had been answered at the last look; `self` if one was running.
        """
        is_idle = self.cycle is None or self.cycle.response_complete
        if is_idle and self.cycle is last:
            self.transport.close()
        elif not self.transport.is_closing():
            self.loop.call_later(HEAD_SECONDS, self._close_if_idle, self.cycle if is_idle else self)


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Raises:
        ConfigError: The port is in use, or the host is no address of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on --host {host} --port {port}: {error.strerror}. Give another --port "
            "(0 takes a free one), or as --host an address of this machine (127.0.0.1; 0.0.0.0 is "
            "all of them)."
        ) from error
    if host not in LOCAL_HOSTS:
        log.warning(
            "--host %s: anyone who can reach this machine can use the page; it has no password.",
            host,
        )
    return listener


def address(host: str, port: int) -> str:
    """Return the URL for a browser on this machine."""
    if host in ("0.0.0.0", "::"):
        host = "localhost"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
