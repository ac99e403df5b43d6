"""Images fetched over http, from a server of this process."""

import io
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image

from tests.predict.photo_run import write_photos
from tests.zoo.file_server import Served, serving
from virtex.cli import main
from virtex.data.images import BadImageError
from virtex.predict.caption_files.web_images import NUM_AT_ONCE, fetch_images


@pytest.fixture
def photo(tmp_path: Path) -> bytes:
    return (write_photos(tmp_path / "photos", 1) / "photo0.png").read_bytes()


def fetched(url: str, **bounds: float) -> bytes:
    """What is under an address; raises why nothing is."""
    (found,) = fetch_images([url], **bounds).values()
    if isinstance(found, BadImageError):
        raise found
    return found


@contextmanager
def answering(answer: Callable[[BaseHTTPRequestHandler], object]) -> Iterator[str]:
    """The address of a server that answers as it is told."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def log_message(self, *arguments: object) -> None:
            """Keep quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/a.png"
    finally:
        server.shutdown()
        server.server_close()


def test_an_image_from_the_web_is_captioned_as_its_file_is(
    run: Path, photo: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, drawn = tmp_path / "photos" / "photo0.png", tmp_path / "drawn"
    with serving(Served(photo, content_type="image/png")) as url:
        flags = ["--allow_urls", "--attention", str(drawn)]
        assert main(["caption", str(run), url, str(path), *flags]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [name for name, _ in lines] == [url, str(path)]
    assert lines[0][1] == lines[1][1]
    pictures = [Image.open(io.BytesIO(one.read_bytes())) for one in drawn.iterdir()]
    assert len(pictures) == 2
    assert pictures[0].tobytes() == pictures[1].tobytes()


def test_an_address_that_fails_is_a_bad_image_like_any_other(
    run: Path, photo: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(Served(photo, statuses=[404])) as url:
        arguments = [url, str(tmp_path / "photos"), "--allow_urls", "--num_workers", "0"]
        assert main(["caption", str(run), *arguments]) == 0
    shown = capsys.readouterr()
    assert shown.out.count("\n") == 1
    assert f"left out: bad image {url}: the server answers 404" in shown.err
    assert "captioned 1 of 2 images; 1 could not be read" in shown.err


@pytest.mark.parametrize(
    ("served", "reason"),
    [
        ({"content_type": "text/html"}, "sends a web page"),
        ({"cuts": [50]}, "cut short: .* bytes are missing"),
        ({"cuts": [50], "chunked": True}, "cannot be fetched"),
        ({"redirect": "file:///etc/passwd"}, "file:///etc/passwd' is not allowed"),
        ({"redirect": "ftp://example.com/a.png"}, "redirects to ftp"),
        ({"statuses": [500]}, "the server answers 500"),
        ({"redirect": "/file.pth"}, "the server answers 302"),
    ],
)
def test_what_is_no_whole_image_is_refused(served: dict, reason: str, photo: bytes) -> None:
    with serving(Served(photo, **served)) as url, pytest.raises(BadImageError, match=reason):
        fetched(url)


def test_a_redirect_to_another_http_address_is_followed(photo: bytes) -> None:
    with serving(Served(photo, redirect="/moved")) as url:
        assert fetched(url) == photo


def test_size_is_bounded(photo: bytes) -> None:
    with serving(Served(photo)) as url:
        assert fetched(url, max_bytes=len(photo)) == photo
        with pytest.raises(BadImageError, match="more than the 100 bytes allowed"):
            fetched(url, max_bytes=100)


@pytest.mark.parametrize("content", [b"", b"Content-Type: image/png\r\n\r\n"])
def test_time_is_bounded_where_a_server_drips(content: bytes) -> None:
    is_over = threading.Event()

    def drip(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"HTTP/1.0 200 OK\r\n" + content)
        while not is_over.wait(0.05):
            request.wfile.write(b"X: y\r\n")

    with answering(drip) as url:
        try:
            with pytest.raises(BadImageError, match=r"takes more than 0\.3 seconds"):
                fetched(url, deadline=0.3)
        finally:
            is_over.set()


def test_silent_servers_do_not_wait_for_each_other(photo: bytes) -> None:
    together = threading.Barrier(NUM_AT_ONCE)

    def answer(request: BaseHTTPRequestHandler) -> None:
        together.wait(timeout=30)  # breaks unless all are asked at once
        request.send_response(200)
        request.end_headers()
        request.wfile.write(photo)

    with answering(answer) as url:
        urls = [f"{url}?{number}" for number in range(2 * NUM_AT_ONCE)]
        assert fetch_images(urls) == dict.fromkeys(urls, photo)


def test_what_a_server_says_cannot_speak_to_the_terminal(
    run: Path, photo: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"HTTP/1.0 404 no\x1b]0;mine\x07\x1b[2J\x9b\r\n\r\n")

    with answering(refuse) as url:
        with pytest.raises(BadImageError) as raised:
            fetched(url)
        assert raised.value.reason.isprintable()
        assert main(["caption", str(run), url, str(tmp_path / "photos"), "--allow_urls"]) == 0
    told = capsys.readouterr().err
    assert r"404 'no\x1b]0;mine" in told
    assert told.replace("\n", "").isprintable()


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/a.png", "http://[bad/a.png", "http://"])
def test_an_address_that_leads_nowhere_is_a_bad_image(url: str) -> None:
    with pytest.raises(BadImageError, match="cannot be fetched"):
        fetched(url)


def test_an_address_may_hold_letters_that_servers_do_not_take(photo: bytes) -> None:
    with serving(Served(photo)) as url:
        assert fetched(url.replace("file.pth", "é ü.png")) == photo
