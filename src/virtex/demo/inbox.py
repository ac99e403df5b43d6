"""How photographs arrive: each is the body of a request, as it is and without a name."""

import asyncio
import secrets
from functools import partial
from pathlib import Path

from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response

MOST_WAITING = 20
"""Photographs that lie in the folder at once, those that are on their way among them."""
ABANDONED = 300
"""Seconds after which a photograph that nobody asked about is deleted."""
SLOWEST = 120
"""Seconds that a photograph may be on its way."""


class Inbox:
    """Takes photographs into a folder.

    Args:
        folder: Where they lie until they are read; nothing else lies there.
        max_megabytes: Largest photograph.
    """

    def __init__(self, folder: Path, *, max_megabytes: int) -> None:
        self.folder, self.max_megabytes = folder, max_megabytes

    async def take(self, request: Request) -> Response:
        """Answer with what the photograph is called from now on; nothing of a refused one stays."""
        if sum(path.is_file() for path in self.folder.iterdir()) >= MOST_WAITING:
            return PlainTextResponse("Too many photos are waiting: try again in a while.", 503)
        path = self.folder / secrets.token_hex(16)
        is_kept = False
        try:
            async with asyncio.timeout(SLOWEST):
                is_kept = await self._write(request, path)
        except TimeoutError:
            return PlainTextResponse("The photo took too long to arrive.", 408)
        except ClientDisconnect:
            return Response(status_code=400)
        finally:
            if not is_kept:
                path.unlink(missing_ok=True)
        if not is_kept:
            text = f"This file is larger than {self.max_megabytes} MB: make it smaller."
            return PlainTextResponse(text, 413)
        asyncio.get_running_loop().call_later(ABANDONED, partial(path.unlink, missing_ok=True))
        return PlainTextResponse(path.name)

    async def _write(self, request: Request, path: Path) -> bool:
        """Write a request's body to a file; False as soon as it is too large."""
        with path.open("xb") as file:
            async for chunk in request.stream():
                if file.tell() + len(chunk) > self.max_megabytes * 2**20:
                    return False
                file.write(chunk)
        return True
