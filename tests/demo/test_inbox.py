import asyncio

import pytest
from starlette.requests import Request
from starlette.routing import Route
from starlette.testclient import TestClient

from virtex.demo import inbox as limits
from virtex.demo.inbox import MOST_WAITING, Inbox

MEGABYTE = 2**20


@pytest.fixture
def inbox(tmp_path):
    return Inbox(tmp_path, max_megabytes=1)


@pytest.fixture
def client(inbox):
    return TestClient(Route("/photo", inbox.take, methods=["POST"]))


def test_a_photo_is_kept_under_a_name_of_ours(client, tmp_path):
    data = bytes(range(256)) * 4096  # 1 MB
    name = client.post("/photo", content=data).text
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == data


def test_a_larger_one_than_allowed_is_refused_in_words_and_deleted(client, tmp_path):
    drip = (bytes(MEGABYTE // 4) for _ in range(5))  # without a Content-Length
    for content in (bytes(MEGABYTE + 1), drip):
        answer = client.post("/photo", content=content)
        assert answer.status_code == 413
        assert "larger than 1 MB" in answer.text
    assert list(tmp_path.iterdir()) == []


def test_only_so_many_may_wait(client, tmp_path):
    names = [client.post("/photo", content=b"x").text for _ in range(MOST_WAITING)]
    answer = client.post("/photo", content=b"x")
    assert (answer.status_code, len(set(names))) == (503, MOST_WAITING)
    (tmp_path / names[0]).unlink()
    assert client.post("/photo", content=b"x").status_code == 200


def taken(inbox, *messages, then=None):
    """Send what a server would hand on: some messages, and after them nothing."""
    left = list(messages)

    async def receive():
        return left.pop(0) if left else await asyncio.Event().wait()

    async def take():
        request = Request({"type": "http", "method": "POST", "headers": []}, receive)
        answer = await inbox.take(request)
        while then and not then():
            await asyncio.sleep(0.01)
        return answer.status_code

    return asyncio.run(asyncio.wait_for(take(), 60))


PART = {"type": "http.request", "body": b"x", "more_body": True}
WHOLE = {"type": "http.request", "body": b"x", "more_body": False}


def test_nothing_stays_of_a_visitor_who_left(inbox, tmp_path):
    assert taken(inbox, PART, {"type": "http.disconnect"}) == 400
    assert list(tmp_path.iterdir()) == []


def test_nothing_stays_of_what_never_arrives(inbox, tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "SLOWEST", 0.05)
    assert taken(inbox, PART) == 408
    assert list(tmp_path.iterdir()) == []


def test_what_nobody_asks_about_is_deleted(inbox, tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "ABANDONED", 0.05)
    assert taken(inbox, WHOLE, then=lambda: not list(tmp_path.iterdir())) == 200
