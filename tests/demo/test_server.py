import asyncio
import logging
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest
from starlette.responses import PlainTextResponse

from tests.demo.conftest import serving
from tests.demo.held import Held, num_pending, wait_until
from tests.demo.image_files import encoded
from virtex.cli import main
from virtex.demo import server
from virtex.demo.api import DemoApi
from virtex.demo.gallery import open_gallery
from virtex.demo.middleware import RequestGuard
from virtex.demo.server import address, listen
from virtex.errors import ConfigError

SECONDS = 60


def test_a_port_in_use_is_refused():
    match = "0 takes a free one"
    with listen("127.0.0.1", 0) as taken, pytest.raises(ConfigError, match=match):
        listen("127.0.0.1", taken.getsockname()[1])


def test_a_second_demo_on_the_same_port_is_refused_at_once(run_folder, capsys):
    with listen("127.0.0.1", 0) as first:
        port = str(first.getsockname()[1])
        assert main(["demo", str(run_folder), "--port", port]) == 2
    assert f"--host 127.0.0.1 --port {port}" in capsys.readouterr().err


def test_a_host_of_another_machine_is_refused():
    with pytest.raises(ConfigError, match=r"--host 192\.0\.2\.1"):
        listen("192.0.2.1", 0)


def test_listening_on_the_network_gives_a_warning(caplog):
    with caplog.at_level(logging.WARNING, "virtex"):
        listen("127.0.0.1", 0).close()
        assert not caplog.records
        listen("0.0.0.0", 0).close()
    assert "it has no password" in caplog.text


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:5"),
        ("::1", "http://[::1]:5"),
        ("0.0.0.0", "http://localhost:5"),
        ("192.0.2.1", "http://192.0.2.1:5"),
    ],
)
def test_the_url_is_one_for_a_browser(host, url):
    assert address(host, 5) == url


@pytest.fixture
def slow_client(monkeypatch):
    """Of a server that answers later than a head may take to arrive."""
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.1)

    async def answer(scope, receive, send):
        await asyncio.sleep(0.3)
        await PlainTextResponse("late")(scope, receive, send)

    with serving(answer) as client:
        yield client


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost:"], ids=["nothing", "half"])
def test_a_connection_without_a_whole_request_is_closed(sent, slow_client):
    with socket.create_connection(("127.0.0.1", slow_client.port), timeout=SECONDS) as idle:
        idle.sendall(sent)
        assert idle.recv(100) == b""


def test_a_slow_answer_is_sent_but_half_a_second_request_closes_the_connection(slow_client):
    with socket.create_connection(("127.0.0.1", slow_client.port), timeout=SECONDS) as idle:
        idle.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        received = b""
        while not received.endswith(b"late"):
            received += idle.recv(1000)
        idle.sendall(b"GET /")
        assert idle.recv(1000) == b""


def test_requests_that_wait_at_the_end_are_refused_as_json_and_nothing_crashes(
    predictor, monkeypatch, capfd
):
    api = DemoApi(predictor, open_gallery(predictor, []), max_megabytes=1)
    held = Held(monkeypatch, api.predictor)
    with (
        ThreadPoolExecutor(4) as threads,
        serving(RequestGuard(api.app("run")), on_close=api.close) as client,
    ):
        requests = [threads.submit(client.photo, encoded("PNG")) for _ in range(4)]
        wait_until(lambda: num_pending(api) == 4 and held.started.is_set())
        client.close()
        answers = [request.result() for request in requests]
        held.released.set()
    assert {(one.status, one.error) for one in answers} == {(503, "The server is closing.")}
    assert all("content-security-policy" in one.headers for one in answers)
    assert held.num_calls == 1
    assert "Traceback" not in capfd.readouterr().err


def test_what_is_nearly_done_at_the_end_is_answered(predictor, monkeypatch):
    api = DemoApi(predictor, open_gallery(predictor, []), max_megabytes=1)
    held = Held(monkeypatch, api.predictor)
    with (
        ThreadPoolExecutor(2) as threads,
        serving(RequestGuard(api.app("run")), on_close=api.close) as client,
    ):
        first = threads.submit(client.photo, encoded("PNG"))
        assert held.started.wait(SECONDS)
        second = threads.submit(client.photo, encoded("PNG"))
        wait_until(lambda: num_pending(api) == 2)
        client.close()
        assert second.result().status == 503
        held.released.set()
        assert first.result().status == 200
