"""Fetch images over http(s), as bytes: bounded in size and time, and refused where it is none."""

import http.client
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import closing
from urllib.parse import quote, urlsplit

from virtex.data.checks import quoted
from virtex.data.images import BadImageError
from virtex.zoo.download import OPENER, PAGE_TYPES, SCHEMES

ADDRESS = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
MAX_BYTES = 64 << 20
CHUNK = 1 << 16
TIMEOUT = 15.0
"""Seconds without a byte after which a server counts as silent."""
DEADLINE = 60.0
"""Seconds that an image may take in all, from the search for its server to its last byte."""
NUM_AT_ONCE = 16
MAX_REASON = 300
"""Longest piece of a server's words that is told."""


def scheme_of(name: str) -> str | None:
    """`ftp` of ftp://...; None for what is no address, and so a path."""
    found = ADDRESS.match(name)
    return found[1].lower() if found else None


def is_address(name: str) -> bool:
    """Whether an image is to be fetched, and no path."""
    return scheme_of(name) in SCHEMES


def fetch_images(
    urls: Sequence[str], *, max_bytes: int = MAX_BYTES, deadline: float = DEADLINE
) -> dict[str, bytes | BadImageError]:
    """What servers send under addresses, or why nothing; redirects are followed to http(s) alone.

    Several are fetched at once, so that servers which do not answer take no longer than one. No
    answer, a refusal, a web page, too large, too slow, cut short: all that is a bad image. Whether
    the bytes are an image is found out by whoever decodes them.
    """
    fetched: dict[str, bytes | BadImageError] = {}
    for start in range(0, len(urls), NUM_AT_ONCE):
        fetches = [_Fetch(url, max_bytes, deadline) for url in urls[start : start + NUM_AT_ONCE]]
        for fetch in fetches:
            fetch.start()
        fetched |= {fetch.url: fetch.outcome() for fetch in fetches}
    return fetched


class _Fetch(threading.Thread):
    """Fetches an image; a server may drip, so whoever waits for it does not wait for its end."""

    def __init__(self, url: str, max_bytes: int, deadline: float) -> None:
        super().__init__(daemon=True)  # does not keep the process from ending
        self.url, self.max_bytes, self.deadline = url, max_bytes, deadline
        self._end = time.monotonic() + deadline
        self._late = BadImageError(url, f"it takes more than {deadline:g} seconds")
        self._found: bytes | Exception = self._late

    def outcome(self) -> bytes | BadImageError:
        """What was found until the deadline."""
        self.join(max(0.0, self._end - time.monotonic()))
        found = self._found
        if isinstance(found, bytes | BadImageError):
            return found
        raise found

    def run(self) -> None:
        try:
            self._found = self._fetch()
        except Exception as error:  # raised where the outcome is waited for
            self._found = error

    def _fetch(self) -> bytes:
        url = self.url
        try:
            request = urllib.request.Request(_ascii(url), headers={"User-Agent": "virtex"})
            with closing(OPENER.open(request, timeout=TIMEOUT)) as response:
                if response.headers.get_content_type() in PAGE_TYPES:
                    raise BadImageError(url, "the server sends a web page")
                return self._content(response)
        except urllib.error.HTTPError as error:
            error.close()
            words = quoted(error.reason, limit=MAX_REASON)
            raise BadImageError(url, f"the server answers {error.code} {words}") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            raise BadImageError(
                url, f"cannot be fetched: {quoted(reason, limit=MAX_REASON)}"
            ) from error

    def _content(self, response: http.client.HTTPResponse) -> bytes:
        content = bytearray()
        while chunk := response.read1(CHUNK):
            content += chunk
            if len(content) > self.max_bytes:
                raise BadImageError(
                    self.url, f"it has more than the {self.max_bytes} bytes allowed"
                )
            if time.monotonic() > self._end:
                raise self._late
        if response.length:
            raise BadImageError(self.url, f"cut short: {response.length} bytes are missing")
        return bytes(content)


def _ascii(url: str) -> str:
    """The address as a server takes it: other letters, and spaces, as %XX of their UTF-8."""
    urlsplit(url)  # a malformed one raises ValueError
    return quote(url, safe="%/:=&?~#+!$,;'@()*[]")
