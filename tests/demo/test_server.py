import logging

import gradio as gr
import pytest

from tests.demo.pictures import encoded, png_that_claims
from virtex.demo.server import address, is_loopback, listen
from virtex.errors import ConfigError


def event(**data):
    return gr.EventData(None, data)


def test_a_photo_is_deleted_once_it_was_read(client, demo_page):
    name = client.post("/photo", content=encoded("PNG")).text
    pixels, shown = demo_page.look(event(photo=name))
    assert pixels.shape == (60, 80, 3)
    assert "vx-word" in shown
    assert list(demo_page.uploads.iterdir()) == []


@pytest.mark.parametrize(
    "data", [b"words", png_that_claims(height=60_000, width=60_000)], ids=["text", "bomb"]
)
def test_what_is_no_photo_is_said_in_words_and_deleted(data, client, demo_page):
    name = client.post("/photo", content=data).text
    with pytest.raises(gr.Error, match="cannot be read"):
        demo_page.look(event(photo=name))
    assert list(demo_page.uploads.iterdir()) == []


def test_an_example_is_looked_at_like_a_photo(demo_page):
    pixels, _ = demo_page.look(event(example=1))
    assert pixels.shape == (50, 70, 3)
    for wrong in ({"example": 3}, {"example": -1}, {"photo": "/etc/passwd"}, {}):
        with pytest.raises(gr.Error, match="did not arrive"):
            demo_page.look(event(**wrong))


def test_labels_before_a_photo_are_answered_in_words(demo_page):
    with pytest.raises(gr.Error, match="Choose a photo first"):
        demo_page.weigh(None, "a dog", "{}", 0, "forward")


def test_what_an_error_quotes_is_no_html(demo_page, pixels):
    with pytest.raises(gr.Error) as caught:
        demo_page.weigh(pixels, "a dog", "<img src=x onerror=hacked()>", 0, "forward")
    assert "&lt;img" in caught.value.message
    assert "<img" not in caught.value.message


def test_our_own_mistake_shows_nothing_of_the_inside(demo_page, pixels, caplog):
    with caplog.at_level(logging.ERROR, "virtex"), pytest.raises(gr.Error) as caught:
        demo_page.weigh(pixels, None, "{}", 0, "forward")
    assert "TypeError" not in caught.value.message
    assert "its terminal says what" in caught.value.message
    assert "TypeError" in caplog.text


def test_a_taken_port_is_said_in_words():
    match = "0 takes a free one"
    with listen("127.0.0.1", 0) as taken, pytest.raises(ConfigError, match=match):
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
