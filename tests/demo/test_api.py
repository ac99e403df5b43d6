import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from starlette.routing import Mount, Route

from tests.demo.client import SECONDS
from tests.demo.conftest import serving
from tests.demo.held import Held, num_pending, wait_until
from tests.demo.image_files import encoded, png_that_claims
from virtex.demo import api as limits
from virtex.demo.api import MAX_PENDING, DemoApi
from virtex.demo.gallery import open_gallery

NOT_A_PHOTO = [b"words", png_that_claims(height=60_000, width=60_000), b""]


@pytest.fixture
def lonely(predictor):
    """An API without a gallery, and what it is served by."""
    api = DemoApi(predictor, open_gallery(predictor, []), max_megabytes=1)
    with serving(api.app("run")) as client:
        yield api, client


def test_six_endpoints_are_open(api):
    routes = api.app("run").routes
    assert sorted(route.path for route in routes if isinstance(route, Route)) == [
        "/", "/api/labels", "/api/photo", "/api/search", "/gallery/{index}",
    ]  # fmt: skip
    assert [route.path for route in routes if isinstance(route, Mount)] == ["/static"]


def test_a_photo_is_captioned(client, predictor):
    answer = client.photo(encoded("PNG"))
    assert answer.status == 200
    captions = answer.values["captions"]
    expected = predictor.captions([encoded("PNG")], 5)[0]
    assert [one["text"] for one in captions] == [one.text for one in expected]
    assert set(captions[0]["maps"]) == {"forward", "backward"}


def test_an_image_of_the_gallery_is_captioned_like_a_photo(client):
    answer = client.send("POST", "/api/photo?gallery=1")
    assert answer.values["aspect"] == pytest.approx(70 / 50)
    for wrong in ("3", "-1", "x", "", "%C2%B2", "9" * 5000):
        answer = client.send("POST", f"/api/photo?gallery={wrong}")
        assert (answer.status, "give 0 to 2" in answer.error) == (404, True)
        assert len(answer.error) < 200
        assert client.get(f"/gallery/{wrong}").status == 404


def test_without_a_gallery_none_of_its_images_is_offered(lonely):
    answer = lonely[1].send("POST", "/api/photo?gallery=0")
    assert (answer.status, answer.error) == (404, "There is no gallery: send the photo itself.")


def test_labels_of_a_photo_are_ranked(client, predictor):
    answer = client.labels(encoded("PNG"), labels="a ball, two dogs", template="the {}")
    expected = predictor.classify([encoded("PNG")], ["a ball", "two dogs"], templates=["the {}"])[0]
    weights = {one["label"]: one["probability"] for one in answer.values["labels"]}
    assert weights == pytest.approx(
        dict(zip(expected.labels, expected.probabilities, strict=True)), rel=1e-4
    )


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"labels": ""}, "0 labels"),
        ({"labels": "dog", "template": "<img>"}, "<img>"),
        ({"labels": "dog", "prior": "2"}, "prior 2.0 must be from 0"),
        ({"labels": "dog", "prior": "much"}, "prior 'much' must be a number"),
        ({"labels": "dog", "direction": "up"}, "none of forward, backward, both"),
    ],
)
def test_options_that_are_not_supported_are_refused(query, words, client):
    answer = client.labels(encoded("PNG"), **query)
    assert (answer.status, answer.headers["content-type"]) == (400, "application/json")
    assert words in answer.error


def test_a_search_finds_images_of_the_gallery(client, gallery_folder):
    found = client.search("two dogs").values["found"]
    assert {one["name"] for one in found} == {path.name for path in gallery_folder.iterdir()}
    image = client.get(f"/gallery/{found[0]['gallery']}")
    assert (image.headers["content-type"], image.body[:2]) == ("image/jpeg", b"\xff\xd8")
    assert client.get("/gallery/3").status == 404


@pytest.mark.parametrize("data", NOT_A_PHOTO, ids=["text", "bomb", "nothing"])
def test_a_file_that_is_no_image_is_refused(data, client):
    answer = client.photo(data)
    assert (answer.status, "cannot be read" in answer.error) == (400, True)


def test_a_photo_that_is_too_large_is_refused(client):
    drip = (bytes(2**18) for _ in range(5))  # without a Content-Length
    for body in (bytes(2**20 + 1), drip):
        answer = client.photo(body)
        assert (answer.status, "larger than 1 MB" in answer.error) == (413, True)


def test_an_internal_error_shows_no_details(lonely, monkeypatch):
    api, client = lonely
    monkeypatch.setattr(api.predictor, "captions", lambda *_: 1 / 0)
    answer = client.photo(encoded("PNG"))
    assert (answer.status, answer.error) == (500, limits.SERVER_FAULT)


def test_without_a_gallery_the_page_and_a_search_say_how_to_have_one(lonely):
    _, client = lonely
    assert client.get("/").body.count(b"--gallery DIR") == 2
    assert "--gallery DIR" in client.search("a dog").error


def test_names_on_the_page_are_escaped(api, client, gallery_folder):
    page = client.get("/").body.decode()
    assert "<img src=x" not in page
    assert "&lt;img src=x" in page
    assert "<script>" not in api._page("<script>")


def test_a_model_without_a_backward_decoder_shows_no_choice_of_readers(lonely, monkeypatch):
    api, _ = lonely
    assert "Reader" in api._page("run")
    monkeypatch.setattr(api.predictor.captioner.head, "directions", ("forward",))
    assert "Reader" not in api._page("run")


def test_while_the_model_computes_the_page_is_served_and_few_requests_wait(lonely, monkeypatch):
    api, client = lonely
    held = Held(monkeypatch, api.predictor)
    with ThreadPoolExecutor(MAX_PENDING) as threads:
        waiting = [threads.submit(client.photo, encoded("PNG")) for _ in range(MAX_PENDING)]
        wait_until(api._slots.locked)
        assert client.get("/").status == 200
        answer = client.photo(encoded("PNG"))
        assert (answer.status, "try again" in answer.error) == (503, True)
        assert held.num_calls == 1
        held.released.set()
        assert {one.result().status for one in waiting} == {200}
    assert num_pending(api) == 0


def test_nothing_is_computed_for_a_client_that_left(lonely, monkeypatch):
    api, client = lonely
    held = Held(monkeypatch, api.predictor)
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(client.photo, encoded("PNG"))
        assert held.started.wait(SECONDS)
        body = encoded("PNG")
        head = f"POST /api/photo HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", client.port)) as left:
            left.sendall(head.encode() + body)
            wait_until(lambda: num_pending(api) == 2)
        time.sleep(0.2)
        held.released.set()
        assert first.result().status == 200
    wait_until(lambda: num_pending(api) == 0)
    assert held.num_calls == 1


def test_a_photo_that_arrives_too_slowly_is_refused(lonely, monkeypatch):
    monkeypatch.setattr(limits, "READ_SECONDS", 0.05)
    api, client = lonely
    head = b"POST /api/photo HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n"
    with socket.create_connection(("127.0.0.1", client.port), timeout=SECONDS) as slow:
        slow.sendall(head + b"x")
        assert b" 408 " in slow.recv(1000)
    assert num_pending(api) == 0
