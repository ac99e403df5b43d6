"""A program that calls the demo."""

import http.client
import json
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import urlencode

SECONDS = 60


class Answer(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def values(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        return self.values["error"]


class Client:
    def __init__(self, port: int, close: Callable[[], None] = lambda: None) -> None:
        self.port, self.close = port, close

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """A header's name has _ for -."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request(method, path, body, names)
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.send("GET", path, **headers)

    def photo(self, body: Any, **headers: str) -> Answer:
        return self.send("POST", "/api/photo", body, **headers)

    def labels(self, body: Any, **query: Any) -> Answer:
        return self.send("POST", f"/api/labels?{urlencode(query)}", body)

    def search(self, text: str) -> Answer:
        return self.get(f"/api/search?{urlencode({'text': text})}")
