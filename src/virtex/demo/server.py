"""The server of the demo: its address, its life, its end."""

import ipaddress
import logging
import socket
import webbrowser
from contextlib import closing, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import gradio as gr
import uvicorn
from fastapi import FastAPI
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.routing import Mount

from virtex.demo import rendering
from virtex.demo.command import DemoConfig
from virtex.demo.door import PHOTO, Door
from virtex.demo.inbox import Inbox
from virtex.demo.page import HEAD, THEME, Page
from virtex.demo.shelf import find_pictures, open_shelf
from virtex.engine.run import choose_device
from virtex.errors import ConfigError
from virtex.predict.loading import load_captioner

log = logging.getLogger("virtex")

SECONDS_TO_END = 1
"""For answers under way."""


def serve(config: DemoConfig, uploads: Path) -> None:
    """Serve the page until Ctrl-C.

    Args:
        uploads: An empty folder for what visitors send.

    Raises:
        ConfigError: An address that cannot be had, a gallery without pictures.
        CheckpointError: `init` holds no captioner.
    """
    pictures = find_pictures(config.init, config.gallery)
    with closing(listen(config.host, config.port)) as listener:
        predictor = load_captioner(
            config.init, tokenizer=config.tokenizer, device=choose_device(config.device)
        )
        page = Page(
            predictor,
            open_shelf(predictor, pictures),
            name=config.init,
            uploads=uploads,
            max_megabytes=config.max_upload_mb,
        )
        inbox = Inbox(uploads, max_megabytes=config.max_upload_mb)
        app = guarded(page.blocks(), inbox, host=config.host)
        settings = uvicorn.Config(
            app, log_level="warning", timeout_graceful_shutdown=SECONDS_TO_END
        )
        url = address(config.host, listener.getsockname()[1])
        print(f"{url}  (Ctrl-C ends it)", flush=True)
        if config.open:
            webbrowser.open(url)
        with suppress(KeyboardInterrupt):
            _Server(settings, app).run([listener])


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens, so that no other demo can have its port.

    Raises:
        ConfigError: The port is taken, or the host is not this machine's.
    """
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[
            0
        ]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(place)
        listener.listen()
    except OSError as error:
        raise ConfigError(
            f"cannot listen on --host {host} --port {port}: {error.strerror}. Give another --port "
            "(0 takes a free one), or as --host an address of this machine (127.0.0.1; 0.0.0.0 is "
            "all of them)."
        ) from error
    if not is_loopback(host):
        log.warning(
            "--host %s: whoever reaches this machine can use the page, without a password.", host
        )
    return listener


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def address(host: str, port: int) -> str:
    """What to type into a browser on this machine."""
    if host in ("0.0.0.0", "::"):
        host = "localhost"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def guarded(blocks: gr.Blocks, inbox: Inbox, *, host: str) -> FastAPI:
    """The page as an application: nothing leaves for other hosts, no file is given out."""
    app = FastAPI(openapi_url=None)
    app.add_route(PHOTO, inbox.take, methods=["POST"])
    gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        footer_links=[],
        run_history=False,
        show_error=False,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=THEME,
        css=rendering.asset("style.css"),
        head=HEAD,
    )
    if is_loopback(host):  # else a page elsewhere could reach this one by a name of its own
        app.add_middleware(
            TrustedHostMiddleware, allowed_hosts=[host, "127.0.0.1", "localhost", "[::1]"]
        )
    app.add_middleware(Door)
    return app


class _Server(uvicorn.Server):
    """Lets go of open pages, which hold a connection each, as soon as it is told to end."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self.pages: list[Any] = [route.app for route in app.routes if isinstance(route, Mount)]

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """What uvicorn calls on SIGINT and SIGTERM."""
        for page in self.pages:
            page.stop_event.set()
        super().handle_exit(sig, frame)
