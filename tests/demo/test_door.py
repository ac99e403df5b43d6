import re

import pytest
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from tests.demo.pictures import encoded
from virtex.demo.door import LONGEST_BODY, Door

pytestmark = pytest.mark.filterwarnings("ignore::Warning:gradio")
OPEN = {
    ("GET", "/"), ("HEAD", "/"), ("GET", "/config"), ("GET", "/favicon.ico"), ("GET", "/theme.css"),
    ("GET", "/manifest.json"),
    ("GET", "/assets/x"), ("GET", "/static/x"), ("GET", "/svelte/x"),
    ("GET", "/gradio_api/heartbeat/x"), ("GET", "/gradio_api/queue/data"),
    ("GET", "/gradio_api/startup-events"), ("POST", "/gradio_api/cancel"),
    ("POST", "/gradio_api/queue/join"), ("POST", "/gradio_api/reset"), ("POST", "/photo"),
}  # fmt: skip


def test_a_page_may_ask_no_other_host(client):
    answer = client.get("/")
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "http" not in policy
    assert "googleapis" not in client.get("/theme.css").text


def routes_of(app):
    """Method and path of all that gradio and we answer, with x for what varies."""
    found = set()
    for route in app.routes:
        if isinstance(route, Mount):
            found |= routes_of(route.app)
        elif isinstance(route, Route):
            path = re.sub(r"{[^}]*}", "x", route.path)
            found |= {(method, path) for method in route.methods}
        else:  # FastAPI keeps a router that was included
            found |= routes_of(route.original_router)
    return found


def test_of_all_that_gradio_can_do_only_what_the_page_needs_is_open(app):
    routes = routes_of(app)
    assert ("POST", "/gradio_api/run/x") in routes
    outside = TestClient(Door(PlainTextResponse("inside")))  # some of the routes never end
    answers = {(how, path): outside.request(how, path, content=b"{}") for how, path in routes}
    assert {route for route, answer in answers.items() if answer.status_code != 403} == OPEN
    assert {answer.text for route, answer in answers.items() if route in OPEN} <= {"inside", ""}


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api//file=/etc/passwd",
        "//gradio_api/file=/etc/passwd",
        "/%67radio_api/%66ile=/etc/passwd",
        "/gradio_api/proxy=http://example.org/",
        "/gradio_api/queue/join/",
    ],
)
def test_no_spelling_leads_to_a_file_or_another_host(path, client):
    assert client.get(path).status_code == client.post(path).status_code == 403


def test_below_the_open_folders_lie_no_other_files(client):
    for folder in ("assets", "static", "svelte"):
        assert client.get(f"/{folder}/%2e%2e/%2e%2e/routes.py").status_code in (403, 404)


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


@pytest.mark.parametrize("content", [b"{", b"[" * 50_000])
def test_a_question_has_a_form(content, client):
    assert client.post("/gradio_api/queue/join", content=content).status_code == 400


@pytest.mark.parametrize("path", ["queue/join", "cancel", "reset"])
def test_whatever_is_sent_has_a_largest_size(path, client):
    def drip():
        """Without a Content-Length; fails if more is read than is needed."""
        for _ in range(LONGEST_BODY // 1000 + 2):
            yield bytes(1000)

    for content in (bytes(LONGEST_BODY + 1), drip()):
        assert client.post(f"/gradio_api/{path}", content=content).status_code == 413


@pytest.mark.parametrize("path", ["/photo", "/gradio_api/queue/join", "/gradio_api/cancel"])
@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:8000"])
def test_another_site_sends_nothing(origin, path, client, demo_page):
    answer = client.post(path, content=encoded("PNG"), headers={"origin": origin})
    assert answer.status_code == 403
    assert list(demo_page.uploads.iterdir()) == []


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "http://127.0.0.1:7860"},
        {"origin": "https://demo.example", "x-forwarded-host": "demo.example"},
    ],
    ids=["no browser", "browser", "proxy"],
)
def test_the_page_itself_sends(headers, client):
    session = {"session_hash": "me", "fn_index": 3, "event_id": "x"}
    assert client.post("/gradio_api/cancel", json=session, headers=headers).status_code == 200


def test_a_page_elsewhere_cannot_come_by_a_name_of_its_own(client):
    assert client.get("/", headers={"host": "evil.example"}).status_code == 400
    assert client.get("/", headers={"host": "localhost:7860"}).status_code == 200
