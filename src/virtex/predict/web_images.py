"""Fetch an image over http(s), as bytes: bounded in size and time, and refused where it is none."""

import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import closing
from urllib.parse import quote, urlsplit

from virtex.data.images import BadImageError
from virtex.zoo.download import OPENER, PAGE_TYPES, SCHEMES

MAX_BYTES = 64 << 20
CHUNK = 1 << 16
TIMEOUT = 15.0
"""Seconds without a byte after which a server counts as silent."""
DEADLINE = 60.0
"""Seconds that an image may take in all."""


def is_address(image: str) -> bool:
    """Whether an image is to be fetched, and no path."""
    return image.lower().startswith(tuple(f"{scheme}://" for scheme in SCHEMES))


def fetch_image(
    url: str,
    *,
    max_bytes: int = MAX_BYTES,
    deadline: float = DEADLINE,
    clock: Callable[[], float] = time.monotonic,
) -> bytes:
    """What a server sends under an address; redirects are followed to http(s) alone.

    Raises:
        BadImageError: No answer, a refusal, a web page, too large, too slow, or cut short. Whether
            the bytes are an image is found out by whoever decodes them.
    """
    try:
        request = urllib.request.Request(_ascii(url), headers={"User-Agent": "virtex"})
        with closing(OPENER.open(request, timeout=TIMEOUT)) as response:
            if response.headers.get_content_type() in PAGE_TYPES:
                raise BadImageError(url, "the server sends a web page")
            return _content(response, url, max_bytes, deadline, clock)
    except urllib.error.HTTPError as error:
        error.close()
        raise BadImageError(url, f"the server answers {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise BadImageError(url, f"cannot be fetched: {reason}") from error


def _content(
    response: http.client.HTTPResponse,
    url: str,
    max_bytes: int,
    deadline: float,
    clock: Callable[[], float],
) -> bytes:
    content, start = bytearray(), clock()
    while chunk := response.read1(CHUNK):
        content += chunk
        if len(content) > max_bytes:
            raise BadImageError(url, f"it has more than the {max_bytes} bytes allowed")
        if clock() - start > deadline:
            raise BadImageError(url, f"it takes more than {deadline:g} seconds")
    if response.length:
        raise BadImageError(url, f"cut short: {response.length} bytes are missing")
    return bytes(content)


def _ascii(url: str) -> str:
    """The address as a server takes it: other letters, and spaces, as %XX of their UTF-8."""
    urlsplit(url)  # a malformed one raises ValueError
    return quote(url, safe="%/:=&?~#+!$,;'@()*[]")
