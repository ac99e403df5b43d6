import pytest
from starlette.responses import PlainTextResponse

from tests.demo.conftest import serving
from tests.demo.image_files import encoded
from virtex.demo import middleware
from virtex.demo.middleware import RequestGuard


def test_the_page_may_load_from_its_own_server_only(client):
    for path in ("/", "/static/demo.js", "/api/nothing"):
        answer = client.get(path)
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'")
        assert "unsafe" not in policy
        assert "http" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_page_needs_no_inline_script_or_style(client):
    page = client.get("/").body
    assert b"style=" not in page
    assert b"<style" not in page
    assert page.count(b"<script") == page.count(b'<script type="module" src=') == 1


@pytest.mark.parametrize(
    "host",
    ["localhost:7860", "127.0.0.1", "[::1]:7860", "demo.example", "DEMO.example:80", "x.example"],
)
def test_local_and_allowed_host_names_are_served(host, client):
    assert client.get("/", host=host).status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:7860", "127.0.0.1.evil.example", "192.0.2.1", "[", ""]
)
def test_other_host_names_are_refused(host, client):
    for path in ("/", "/api/search?text=dog", "/gallery/0", "/static/demo.js"):
        answer = client.get(path, host=host)
        assert (answer.status, "is not allowed" in answer.error) == (421, True)


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:8000", "http://[", ""]
)
def test_requests_of_another_site_are_refused(origin, client):
    answer = client.photo(encoded("PNG"), origin=origin)
    assert (answer.status, "another site" in answer.error) == (403, True)
    assert "content-security-policy" in answer.headers
    assert client.get("/api/search?text=dog", origin=origin).status == 403


def test_another_site_cannot_embed_an_answer(client):
    path = "/api/search?text=dog"
    assert client.get(path, sec_fetch_site="cross-site").status == 403
    assert client.get(path, sec_fetch_site="same-origin").status == 200


def test_requests_of_the_page_itself_are_answered(client):
    assert client.photo(encoded("PNG"), origin=client.url).status == 200
    proxied = {"host": "demo.example", "origin": "https://demo.example"}
    assert client.photo(encoded("PNG"), **proxied).status == 200


def test_an_error_of_the_middleware_is_answered_as_json_and_logged(monkeypatch, capfd):
    monkeypatch.setattr(middleware, "_is_cross_site", lambda *_: 1 / 0)
    with serving(RequestGuard(PlainTextResponse("never"))) as client:
        answer = client.get("/api/search?text=dog")
    assert (answer.status, "its terminal says what" in answer.error) == (500, True)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "ZeroDivisionError" in capfd.readouterr().err


@pytest.mark.parametrize(
    "path", ["/static/../api.py", "/static/%2e%2e/api.py", "//etc/passwd", "/static//etc/passwd"]
)
def test_no_path_leads_to_other_files(path, client):
    assert client.get(path).status == 404
