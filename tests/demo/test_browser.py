"""The page as a visitor has it: the real command, and Chromium."""

import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import uvicorn

from tests.demo.pictures import encoded, png_that_claims
from virtex.demo.inbox import Inbox
from virtex.demo.page import Page
from virtex.demo.server import address, guarded, listen
from virtex.demo.shelf import find_pictures, open_shelf

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
    pytest.mark.filterwarnings("ignore::Warning:gradio"),
]
SECONDS = 60
"""The longest that anything may take on a busy machine."""
EVIL = "<img src=x onerror=hacked=1> ${hacked=1} {{hacked}}"
WATCHED = """
import sys

def note(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo"):
        place = arguments[1] if event == "socket.connect" else arguments
        print("asked", place[0] if isinstance(place, tuple) else place, file=sys.stderr)

sys.addaudithook(note)
from virtex.cli import main
sys.exit(main(sys.argv[1:]))
"""
"""`virtex`, which also says whom it connects to."""


class Server:
    """`virtex demo` in a folder of its own."""

    def __init__(self, folder: Path, run: Path, gallery: Path) -> None:
        self.temporary, self.errors = folder / "temporary", folder / "stderr"
        self.folder = folder / "work"
        for made in (self.temporary, self.folder):
            made.mkdir()
        command = [sys.executable, "-c", WATCHED, "demo", str(run), "--gallery", str(gallery)]
        self.process = subprocess.Popen(
            [*command, "--port", "0", "--device", "cpu", "--max_upload_mb", "1"],
            cwd=self.folder,
            env={**os.environ, "TMPDIR": str(self.temporary), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=self.errors.open("w"),
            text=True,
        )
        assert self.process.stdout is not None
        is_ready = select.select([self.process.stdout], [], [], SECONDS)[0]
        line = self.process.stdout.readline() if is_ready else ""
        if not line:
            self.end(signal.SIGKILL)
            pytest.fail(f"the demo did not start: {self.errors.read_text()}")
        self.url = line.split()[0]

    def uploads(self) -> list[Path]:
        return [path for path in self.temporary.rglob("*") if path.is_file()]

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(SECONDS)


@pytest.fixture(scope="module")
def server(tmp_path_factory, run_folder, gallery_folder):
    server = Server(tmp_path_factory.mktemp("server"), run_folder, gallery_folder)
    yield server
    server.end(signal.SIGKILL)


@pytest.fixture(scope="module")
def chromium():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def requests():
    return []


@pytest.fixture
def complaints():
    return []


@pytest.fixture(params=[{"width": 1280, "height": 900}, {"width": 390, "height": 844}])
def size(request):
    return request.param


@pytest.fixture
def page(server, chromium, requests, complaints):
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, has_touch=True)
    context.set_default_timeout(1000 * SECONDS)
    page = context.new_page()
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(server.url)
    page.wait_for_selector(".vx-drop")
    yield page
    context.close()


def patient(page):
    page.set_default_timeout(1000 * SECONDS)
    return page


def send(page, data, *, name="photo.jpg"):
    page.set_input_files(".vx-drop input", {"name": name, "mimeType": "image/jpeg", "buffer": data})


def map_of(page):
    """What lies over the photo; None if nothing does."""
    shown = page.locator(".vx-map")
    return shown.get_attribute("src") if shown.is_visible() else None


def test_words_show_where_the_model_looked_without_asking_the_server(page, server, requests):
    send(page, encoded("JPEG"))
    page.wait_for_selector(".vx-word")
    assert page.locator(".vx-captions li").count() == 5
    assert "log-likelihood −" in page.locator(".vx-facts").first.inner_text()
    assert server.uploads() == []
    words = page.locator(".vx-captions li").last.locator(".vx-word")
    num_requests = len([url for url in requests if not url.startswith("data:")])

    assert map_of(page) is None
    words.nth(0).hover()
    first = map_of(page)
    words.nth(1).hover()
    second = map_of(page)
    page.mouse.move(0, 0)
    assert map_of(page) is None
    words.nth(0).focus()
    assert map_of(page) == first
    words.nth(1).tap()
    assert map_of(page) == second
    assert words.nth(1).get_attribute("aria-pressed") == "true"
    maps = {first, second}
    for choice in ("against the caption’s average", "right to left", "attention"):
        page.get_by_text(choice, exact=True).click()
        maps.add(map_of(page))
    assert len(maps) == 5
    page.keyboard.press("Escape")
    assert map_of(page) is None
    assert len([url for url in requests if not url.startswith("data:")]) == num_requests


def test_labels_and_searches_are_answered_and_nothing_typed_is_html(page, complaints):
    page.locator("[data-example]").first.click()
    page.wait_for_selector(".vx-word")
    page.get_by_label("Labels, with commas between them").fill(f"a ball, {EVIL}")
    page.get_by_role("button", name="Weigh the labels").click()
    page.wait_for_selector(".vx-bars")
    assert set(page.locator(".vx-label").all_inner_texts()) == {"a ball", EVIL}
    page.get_by_label("Text", exact=True).fill(f"two dogs {EVIL}")
    page.get_by_role("button", name="Search", exact=True).click()
    page.wait_for_selector(".vx-found")
    names = page.locator(".vx-name").all_inner_texts()
    assert len(names) == 3
    assert any("<img src=x" in name and "${hacked=1}" in name for name in names)
    page.get_by_role("button", name="Options").click()
    page.get_by_label("Caption around a label").fill(EVIL)
    page.get_by_role("button", name="Weigh the labels").click()
    assert "<img" in page.locator(".toast-body").inner_text()
    assert page.evaluate("typeof hacked") == "undefined"
    assert complaints == []


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"these are words", "not a picture of a kind that is known here"),
        (png_that_claims(height=60_000, width=60_000), "larger than 50 million pixels"),
    ],
    ids=["text", "bomb"],
)
def test_what_is_no_photo_is_told_in_words_and_the_last_photo_stays(data, words, page, server):
    send(page, encoded("JPEG"))
    page.wait_for_selector(".vx-word")
    send(page, data)
    page.wait_for_selector(".toast-body")
    assert words in page.locator(".toast-body").inner_text()
    assert server.uploads() == []
    assert not page.locator(".wrap > .error").is_visible()  # it would lie over the captions
    page.locator(".vx-word").first.hover()
    assert map_of(page) is not None


def test_a_file_that_is_too_large_is_not_sent(page, requests):
    send(page, bytes(2**21))
    page.get_by_text("larger than 1 MB").wait_for()
    assert not any("/photo" in url for url in requests)


def test_the_page_fits_its_window_and_asks_no_other_host(page, size, server, requests, complaints):
    page.set_viewport_size(size)
    page.locator("[data-example]").first.click()
    page.wait_for_selector(".vx-word")
    page.get_by_role("button", name="Search", exact=True).click()
    page.wait_for_selector(".vx-found")
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    assert all(url.startswith((server.url, "data:", "blob:")) for url in requests)
    assert complaints == []


def test_a_page_that_was_closed_is_forgotten(
    chromium, predictor, run_folder, gallery_folder, tmp_path
):
    shelf = open_shelf(predictor, find_pictures("", gallery_folder))
    blocks = Page(predictor, shelf, name="run", uploads=tmp_path, max_megabytes=1).blocks()
    app = guarded(blocks, Inbox(tmp_path, max_megabytes=1), host="127.0.0.1")
    listener = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    visitor = patient(chromium.new_page())
    try:
        visitor.goto(address("127.0.0.1", listener.getsockname()[1]))
        visitor.locator("[data-example]").first.click()
        visitor.wait_for_selector(".vx-word")
        assert len(blocks.state_holder.session_data) == 1
        visitor.close()
        deadline = time.monotonic() + SECONDS
        while blocks.state_holder.session_data and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not blocks.state_holder.session_data
    finally:
        visitor.close()
        server.should_exit = True
        thread.join(SECONDS)


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_a_signal_ends_it_and_nothing_is_left(
    number, tmp_path, run_folder, gallery_folder, chromium
):
    server = Server(tmp_path, run_folder, gallery_folder)
    visitor = patient(chromium.new_page())
    visitor.goto(server.url)
    send(visitor, encoded("JPEG"))
    visitor.wait_for_selector(".vx-word")
    assert server.end(number) == 0
    visitor.close()
    assert list(server.temporary.iterdir()) == []
    assert list(server.folder.iterdir()) == []
    errors = server.errors.read_text()
    assert "Traceback" not in errors
    asked = {line.split()[1] for line in errors.splitlines() if line.startswith("asked ")}
    assert asked <= {"127.0.0.1", "localhost"}
