import logging
from pathlib import Path

import gradio as gr
import pytest
from starlette.testclient import TestClient

from tests.demo.pictures import encoded, png_that_claims
from virtex.demo.door import LONGEST_QUESTION
from virtex.demo.gallery import find_pictures, open_shelf
from virtex.demo.page import Page
from virtex.demo.server import address, guarded, is_loopback, listen
from virtex.demo.uploads import private_folder
from virtex.errors import ConfigError

MEGABYTE = 2**20


@pytest.fixture(scope="module")
def page(predictor, gallery_folder):
    with private_folder() as uploads:
        shelf = open_shelf(predictor, find_pictures("", gallery_folder))
        yield Page(predictor, shelf, name="run", uploads=uploads, max_megabytes=1)


@pytest.fixture(scope="module")
def client(page):
    app = guarded(page.blocks(), host="127.0.0.1", max_megabytes=1)
    with TestClient(app, base_url="http://127.0.0.1:7860") as client:
        yield client


def upload(client, data, name="photo.jpg"):
    return client.post("/gradio_api/upload", files={"files": (name, data)})


def event(**data):
    return gr.EventData(None, data)


def test_a_page_may_ask_no_other_host(client):
    answer = client.get("/")
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "http" not in policy
    assert "googleapis" not in client.get("/theme.css").text


def test_no_file_is_given_out_not_even_an_upload(client, run_folder, gallery_folder):
    sent = upload(client, encoded("PNG")).json()[0]
    files = [sent, "/etc/passwd", run_folder / "weights.safetensors", *gallery_folder.iterdir()]
    for file in (*files, "http://example.org/"):
        for door in ("file=", "file/", "proxy=", "stream/"):
            assert client.get(f"/gradio_api/{door}{file}").status_code == 403


def asked(client, *data):
    question = {"data": data, "fn_index": 3, "session_hash": "me"}
    return client.post("/gradio_api/queue/join", json=question).status_code


def test_a_question_may_name_no_address_to_fetch(client):
    file = {"path": "http://example.org/", "meta": {"_type": "gradio.FileData"}}
    assert asked(client, file) == asked(client, [{"deep": file}]) == 403
    escaped = (
        '{"data": [{"path": "http://example.org/", "meta": {"_type": "\\u0067radio.FileData"}}]}'
    )
    assert client.post("/gradio_api/queue/join", content=escaped).status_code == 403
    assert asked(client, "two dogs") == 200


def test_a_question_has_a_largest_size_and_a_form(client):
    assert asked(client, "x" * LONGEST_QUESTION) == 413
    assert client.post("/gradio_api/queue/join", content=b"{").status_code == 400
    assert client.post("/gradio_api/queue/join", content=b"[" * 50_000).status_code == 400


@pytest.mark.parametrize("door", ["run/predict", "call/look", "api/predict", "openapi.json"])
def test_the_page_is_no_programming_interface(door, client):
    assert client.post(f"/gradio_api/{door}", json={"data": []}).status_code == 403


def test_a_page_elsewhere_cannot_come_by_a_name_of_its_own(client):
    assert client.get("/", headers={"host": "evil.example"}).status_code == 400
    assert client.get("/", headers={"host": "localhost:7860"}).status_code == 200


def test_a_larger_upload_than_allowed_is_refused_and_deleted(client, page):
    assert upload(client, bytes(MEGABYTE // 2)).status_code == 200
    before = set(page.uploads.rglob("*"))
    assert upload(client, bytes(2 * MEGABYTE)).status_code == 413
    assert set(page.uploads.rglob("*")) == before


def test_a_photo_is_deleted_once_it_was_read(client, page):
    sent = upload(client, encoded("PNG")).json()[0]
    assert Path(sent).is_relative_to(page.uploads)
    pixels, shown = page.look(event(path=sent))
    assert pixels.shape == (60, 80, 3)
    assert "vx-word" in shown
    assert not Path(sent).parent.exists()


@pytest.mark.parametrize(
    "data", [b"words", png_that_claims(height=60_000, width=60_000)], ids=["text", "bomb"]
)
def test_what_is_no_photo_is_said_in_words_and_deleted(data, client, page):
    sent = upload(client, data).json()[0]
    with pytest.raises(gr.Error, match="cannot be read"):
        page.look(event(path=sent))
    assert not Path(sent).parent.exists()


def test_an_example_is_looked_at_like_a_photo(page):
    pixels, _ = page.look(event(example=1))
    assert pixels.shape == (50, 70, 3)
    for wrong in ({"example": 3}, {"example": -1}, {"path": "/etc/passwd"}, {}):
        with pytest.raises(gr.Error, match="did not arrive"):
            page.look(event(**wrong))


def test_labels_before_a_photo_are_answered_in_words(page):
    with pytest.raises(gr.Error, match="Choose a photo first"):
        page.weigh(None, "a dog", "{}", 0, "forward")


def test_what_an_error_quotes_is_no_html(page, pixels):
    with pytest.raises(gr.Error) as caught:
        page.weigh(pixels, "a dog", "<img src=x onerror=hacked()>", 0, "forward")
    assert "&lt;img" in caught.value.message
    assert "<img" not in caught.value.message


def test_our_own_mistake_shows_nothing_of_the_inside(page, pixels, monkeypatch, caplog):
    def fail(*_, **__):
        raise RuntimeError("secret path")

    monkeypatch.setattr("virtex.demo.page.answers.weigh_labels", fail)
    with caplog.at_level(logging.ERROR, "virtex"), pytest.raises(gr.Error) as caught:
        page.weigh(pixels, "a dog", "{}", 0, "forward")
    assert "secret" not in caught.value.message
    assert "secret path" in caplog.text


def test_a_taken_port_is_said_in_words():
    with listen("127.0.0.1", 0) as taken:
        taken.listen()
        with pytest.raises(ConfigError, match="0 takes a free one"):
            listen("127.0.0.1", taken.getsockname()[1])


def test_a_host_of_another_machine_is_said_in_words():
    with pytest.raises(ConfigError, match=r"--host 192\.0\.2\.1"):
        listen("192.0.2.1", 0)


def test_who_listens_to_the_network_is_warned(caplog):
    with caplog.at_level(logging.WARNING, "virtex"):
        listen("127.0.0.1", 0).close()
        assert not caplog.records
        listen("0.0.0.0", 0).close()
    assert "without a password" in caplog.text


@pytest.mark.parametrize(
    ("host", "loopback", "url"),
    [
        ("127.0.0.1", True, "http://127.0.0.1:5"),
        ("localhost", True, "http://localhost:5"),
        ("::1", True, "http://[::1]:5"),
        ("0.0.0.0", False, "http://localhost:5"),
        ("192.0.2.1", False, "http://192.0.2.1:5"),
    ],
)
def test_an_address_is_told_as_a_browser_takes_it(host, loopback, url):
    assert is_loopback(host) == loopback
    assert address(host, 5) == url
