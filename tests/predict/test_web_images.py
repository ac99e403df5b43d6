"""Images fetched over http, from a server of this process."""

import io
from pathlib import Path

import pytest
from PIL import Image

from tests.predict.photo_run import write_photos
from tests.zoo.file_server import Served, serving
from virtex.cli import main
from virtex.data.images import BadImageError
from virtex.predict.web_images import fetch_image


@pytest.fixture
def photo(tmp_path: Path) -> bytes:
    return (write_photos(tmp_path / "photos", 1) / "photo0.png").read_bytes()


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
        fetch_image(url)


def test_a_redirect_to_another_http_address_is_followed(photo: bytes) -> None:
    with serving(Served(photo, redirect="/moved")) as url:
        assert fetch_image(url) == photo


def test_size_and_time_are_bounded(photo: bytes) -> None:
    with serving(Served(photo)) as url:
        assert fetch_image(url, max_bytes=len(photo)) == photo
        with pytest.raises(BadImageError, match="more than the 100 bytes allowed"):
            fetch_image(url, max_bytes=100)
        ticks = iter([0.0, 61.0])
        with pytest.raises(BadImageError, match="takes more than 60 seconds"):
            fetch_image(url, clock=lambda: next(ticks))


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/a.png", "http://[bad/a.png", "http://"])
def test_an_address_that_leads_nowhere_is_a_bad_image(url: str) -> None:
    with pytest.raises(BadImageError, match="cannot be fetched"):
        fetch_image(url)


def test_an_address_may_hold_letters_that_servers_do_not_take(photo: bytes) -> None:
    with serving(Served(photo)) as url:
        assert fetch_image(url.replace("file.pth", "é ü.png")) == photo
