"""The page of the demo and its JSON API: captions of an image, labels, search (docs/demo.md)."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from virtex.data.images import BadImageError, Pixels
from virtex.data.transforms import VALIDATION_SURPLUS
from virtex.demo import answers
from virtex.demo.gallery import DemoGallery
from virtex.demo.middleware import CLOSING, SERVER_FAULT, error_response
from virtex.demo.uploaded_image import read_image
from virtex.errors import VirTexError
from virtex.predict.matching import DEFAULT_TEMPLATES
from virtex.predict.predictor import Predictor

FOLDER = Path(__file__).parent
MAX_PENDING = 16
"""Largest number of requests that are received, queued or computed; more are refused."""
MAX_SHOWN = 100
"""Most characters of a query in an error message."""
READ_SECONDS = 60
"""Timeout for the body of a request."""


class DemoApi:
    """Endpoints of one model, which computes one request at a time in a thread of its own.

    Nothing is kept between requests: images stay in memory, until they are answered.

    Args:
        max_megabytes: Largest size of a request's body.
    """

    def __init__(self, predictor: Predictor, gallery: DemoGallery, *, max_megabytes: int) -> None:
        self.predictor, self.gallery, self.max_megabytes = predictor, gallery, max_megabytes
        self._turn, self._thread = asyncio.Lock(), ThreadPoolExecutor(1)
        self._slots = asyncio.Semaphore(MAX_PENDING)
        self._waiting: set[asyncio.Task[Any]] = set()
        """Requests that are received or queued."""
        self._is_closing = False

    def app(self, model: str) -> Starlette:
        """Return the application; `model` is the model's name on the page."""
        page = HTMLResponse(self._page(model))
        routes = [
            Route("/", lambda request: page),
            Route("/api/photo", self.photo, methods=["POST"]),
            Route("/api/labels", self.labels, methods=["POST"]),
            Route("/api/search", self.search),
            Route("/gallery/{index}", self.thumbnail),
            Mount("/static", StaticFiles(directory=FOLDER / "static")),
        ]
        failures: dict[Any, Any] = {
            BadImageError: lambda _, error: error_response(
                f"This photo cannot be read: {error.reason}."
            ),
            VirTexError: lambda _, error: error_response(str(error)),
            ClientDisconnect: lambda *_: error_response("The client left."),
            HTTPException: lambda _, error: error_response(error.detail, error.status_code),
            Exception: lambda *_: error_response(SERVER_FAULT, 500),
        }
        return Starlette(routes=routes, exception_handlers=failures)

    async def photo(self, request: Request) -> Response:
        """Caption the image in the body, and return a map of attention for each word."""
        return await self._answer(
            request, lambda image: answers.caption_image(self.predictor, self._pixels(image))
        )

    async def labels(self, request: Request) -> Response:
        """Rank the labels in the query by their probability for the image in the body."""
        query = request.query_params
        return await self._answer(
            request,
            lambda image: answers.rank_labels(
                self.predictor,
                self._pixels(image),
                text=query.get("labels", ""),
                template=query.get("template", DEFAULT_TEMPLATES[0]),
                prior=query.get("prior", "0"),
                direction=query.get("direction", "forward"),
            ),
        )

    async def search(self, request: Request) -> Response:
        """Rank the images of the gallery by the probability of the text in the query."""
        text = request.query_params.get("text", "")
        return await self._answer(
            request, lambda _: answers.search(self.predictor, self.gallery, text)
        )

    async def thumbnail(self, request: Request) -> Response:
        """Return a thumbnail of an image of the gallery, as a JPEG."""
        index = _index(request.path_params["index"], len(self.gallery.thumbnails))
        if index is None:
            raise HTTPException(404)
        return Response(self.gallery.thumbnails[index], media_type="image/jpeg")

    def close(self) -> None:
        """Cancel the requests that wait, and let the one that is computed go on."""
        self._is_closing = True
        for task in self._waiting:
            task.cancel()

    async def _answer(
        self, request: Request, compute: Callable[[bytes | Path], dict[str, Any]]
    ) -> Response:
        """Receive the image, wait until the model is free, and compute off the event loop."""
        if self._is_closing:
            raise HTTPException(503, CLOSING)
        if self._slots.locked():
            raise HTTPException(503, f"{MAX_PENDING} requests are waiting: try again in a moment.")
        async with self._slots:
            with self._waits():
                image = self._named_image(request) or await self._body(request)
                await self._turn.acquire()
            try:
                if await request.is_disconnected():
                    raise ClientDisconnect
                loop = asyncio.get_running_loop()
                return JSONResponse(await loop.run_in_executor(self._thread, compute, image))
            finally:
                self._turn.release()

    @contextmanager
    def _waits(self) -> Iterator[None]:
        """Let `close` cancel the request."""
        task = asyncio.current_task()
        assert task is not None
        self._waiting.add(task)
        try:
            yield
        finally:
            self._waiting.discard(task)

    async def _body(self, request: Request) -> bytes:
        """Return the body of a request, within the limits of size and time."""
        body = bytearray()
        try:
            async with asyncio.timeout(READ_SECONDS):
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > self.max_megabytes * 2**20:
                        limit = f"This file is larger than {self.max_megabytes} MB"
                        raise HTTPException(413, f"{limit}: make it smaller.")
        except TimeoutError:
            raise HTTPException(408, "The photo took too long to arrive.") from None
        return bytes(body)

    def _named_image(self, request: Request) -> Path | None:
        """Return the image of the gallery that the query names, if it names one."""
        name = request.query_params.get("gallery")
        if name is None:
            return None
        paths = self.gallery.paths
        if not paths:
            raise HTTPException(404, "There is no gallery: send the photo itself.")
        index = _index(name, len(paths))
        if index is None:
            raise HTTPException(
                404, f"gallery={name[:MAX_SHOWN]} is no image: give 0 to {len(paths) - 1}."
            )
        return paths[index]

    def _pixels(self, image: bytes | Path) -> Pixels:
        min_side = VALIDATION_SURPLUS * self.predictor.image.validation_short_side
        return read_image(image, min_side=min_side)

    def _page(self, model: str) -> str:
        environment = Environment(
            loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined
        )
        return environment.get_template("page.html").render(
            model=model,
            gallery=self.gallery,
            max_megabytes=self.max_megabytes,
            directions=self.predictor.captioner.head.directions,
            scales=answers.scale_images(),
            template=DEFAULT_TEMPLATES[0],
            longest_text=answers.MAX_LETTERS,
        )


def _index(text: str, count: int) -> int | None:
    """Return a whole number from 0 to `count` - 1; None for any other text."""
    is_short = len(text) <= len(str(count))  # int() refuses thousands of digits
    if not (is_short and text.isascii() and text.isdecimal() and int(text) < count):
        return None
    return int(text)
