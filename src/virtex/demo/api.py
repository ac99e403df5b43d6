"""The page of the demo and its JSON API: captions of an image, labels, search (docs/demo.md)."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
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
from virtex.demo.uploaded_image import read_image
from virtex.errors import VirTexError
from virtex.predict.matching import DEFAULT_TEMPLATES
from virtex.predict.predictor import Predictor

FOLDER = Path(__file__).parent
MAX_PENDING = 16
"""Requests that are read, wait or are computed at once; more are refused."""
READ_SECONDS = 60
"""Time in which a body has to arrive."""
SERVER_FAULT = "Something went wrong on the server; its terminal says what."


class DemoApi:
    """Endpoints about one model, which answers one request at a time in a thread of its own.

    Nothing is kept between requests: an image is in memory until it is answered.

    Args:
        gallery: The examples, and what is searched.
        max_megabytes: Size of the largest body.
    """

    def __init__(self, predictor: Predictor, gallery: DemoGallery, *, max_megabytes: int) -> None:
        self.predictor, self.gallery, self.max_megabytes = predictor, gallery, max_megabytes
        self._turn, self._thread, self._num_pending = asyncio.Lock(), ThreadPoolExecutor(1), 0

    def app(self, model: str) -> Starlette:
        """Return the application; `model` is what the page calls the model."""
        page = HTMLResponse(self._page(model))
        routes = [
            Route("/", lambda request: page),
            Route("/api/photo", self.photo, methods=["POST"]),
            Route("/api/labels", self.labels, methods=["POST"]),
            Route("/api/search", self.search),
            Route("/gallery/{index:int}", self.thumbnail),
            Mount("/static", StaticFiles(directory=FOLDER / "static")),
        ]
        failures: dict[Any, Any] = {
            BadImageError: lambda _, error: _failure(f"This photo cannot be read: {error.reason}."),
            VirTexError: lambda _, error: _failure(str(error)),
            ClientDisconnect: lambda *_: _failure("The client left."),
            HTTPException: lambda _, error: _failure(error.detail, error.status_code),
            Exception: lambda *_: _failure(SERVER_FAULT, 500),
        }
        return Starlette(routes=routes, exception_handlers=failures)

    async def photo(self, request: Request) -> Response:
        """Caption the image in the body, and show where the model looked at each word."""
        return await self._answer(
            request, lambda image: answers.caption_image(self.predictor, self._pixels(image))
        )

    async def labels(self, request: Request) -> Response:
        """Classify the image in the body by the labels in the query."""
        query = request.query_params
        weigh = partial(
            answers.weigh_labels,
            text=query.get("labels", ""),
            template=query.get("template", DEFAULT_TEMPLATES[0]),
            prior=query.get("prior", "0"),
            direction=query.get("direction", "forward"),
        )
        return await self._answer(request, lambda image: weigh(self.predictor, self._pixels(image)))

    async def search(self, request: Request) -> Response:
        """Find the images of the gallery that fit the text in the query."""
        text = request.query_params.get("text", "")
        return await self._answer(
            request, lambda _: answers.search(self.predictor, self.gallery, text)
        )

    async def thumbnail(self, request: Request) -> Response:
        """Send a small JPEG of an image of the gallery."""
        index = request.path_params["index"]
        if index >= len(self.gallery.thumbnails):
            raise HTTPException(404)
        return Response(self.gallery.thumbnails[index], media_type="image/jpeg")

    async def _answer(
        self, request: Request, compute: Callable[[bytes | Path], dict[str, Any]]
    ) -> Response:
        """Read a body, wait for the model, and compute off the event loop."""
        with self._pending():
            image = self._named_image(request) or await self._body(request)
            async with self._turn:
                if await request.is_disconnected():
                    raise ClientDisconnect
                loop = asyncio.get_running_loop()
                return JSONResponse(await loop.run_in_executor(self._thread, compute, image))

    @contextmanager
    def _pending(self) -> Iterator[None]:
        if self._num_pending >= MAX_PENDING:
            raise HTTPException(
                503, f"{MAX_PENDING} requests are waiting already: try again in a moment."
            )
        self._num_pending += 1
        try:
            yield
        finally:
            self._num_pending -= 1

    async def _body(self, request: Request) -> bytes:
        """Read a body that is neither too large nor too slow; it is held in memory alone."""
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
        """The image of the gallery that the query names."""
        name = request.query_params.get("gallery")
        if name is None:
            return None
        count = len(self.gallery.paths)
        if not name.isdecimal() or int(name) >= count:
            raise HTTPException(404, f"gallery={name} of {count} images: give 0 to {count - 1}.")
        return self.gallery.paths[int(name)]

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


def _failure(words: str, status: int = 400) -> JSONResponse:
    return JSONResponse({"error": words}, status)
