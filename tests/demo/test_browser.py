"""The page as a visitor has it: the real command, and Chromium."""

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.demo.image_files import encoded, png_that_claims
from tests.demo.small_run import TEXTS, write_run
from virtex.data.tokenizer import train_tokenizer

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
SECONDS = 60
"""The longest that anything may take on a busy machine."""
EVIL = "<img src=x onerror=hacked=1> ${hacked=1} {{hacked}}"
PAGE_TEXTS = "dog, child, bicycle, water", "a dog running in the grass"
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
def server(tmp_path_factory, gallery_folder):
    typed = [*PAGE_TEXTS, EVIL]  # which a model takes if it knows their characters
    run = write_run(
        tmp_path_factory.mktemp("typed") / "run",
        tokenizer=train_tokenizer([*TEXTS, *typed], vocab_size=100),
    )
    server = Server(tmp_path_factory.mktemp("server"), run, gallery_folder)
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
    page.wait_for_selector(".drop")
    yield page
    context.close()


def patient(page):
    page.set_default_timeout(1000 * SECONDS)
    return page


def send(page, data, *, name="photo.jpg"):
    page.set_input_files(".drop input", {"name": name, "mimeType": "image/jpeg", "buffer": data})


def pick(page, index):
    page.locator("[data-gallery]").nth(index).click()


def map_of(page):
    """What lies over the photo; None if nothing does."""
    shown = page.locator("#map")
    return shown.get_attribute("src") if shown.is_visible() else None


def test_words_show_their_attention_without_another_request(page, server, requests):
    send(page, encoded("JPEG"))
    page.wait_for_selector(".word")
    assert page.locator(".captions li").count() == 5
    assert "log-likelihood −" in page.locator(".facts").first.inner_text()
    assert server.uploads() == []
    words = page.locator(".captions li").last.locator(".word")
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
        page.locator("#switches").get_by_text(choice, exact=True).click()
        maps.add(map_of(page))
    assert len(maps) == 5
    page.keyboard.press("Escape")
    assert map_of(page) is None
    assert len([url for url in requests if not url.startswith("data:")]) == num_requests


def test_a_screen_reader_hears_a_caption_as_one_sentence(page):
    send(page, encoded("JPEG"))
    page.wait_for_selector(".word")
    item = page.locator(".captions li").first
    sentence = " ".join(item.locator(".word").all_inner_texts())
    heard = item.aria_snapshot()
    assert f"- paragraph: {sentence}" in heard
    assert heard.index(sentence) < heard.index("button")
    assert page.locator("#caption-status").aria_snapshot() == f'- status: "Captioned: {sentence}"'
    assert page.locator("#captions").get_attribute("aria-live") is None


def test_labels_and_searches_are_answered_and_nothing_typed_is_html(page, complaints):
    page.get_by_role("button", name="Weigh the labels").click()
    page.get_by_text("Choose a photo first").wait_for()
    pick(page, 0)
    page.wait_for_selector(".word")
    page.get_by_label("Labels, with commas between them").fill(f"a ball, {EVIL}")
    page.get_by_role("button", name="Weigh the labels").click()
    page.wait_for_selector(".bars li")
    assert set(page.locator(".label").all_inner_texts()) == {"a ball", EVIL}
    widths = page.locator(".bar i").evaluate_all("bars => bars.map(bar => bar.offsetWidth)")
    assert widths[0] > widths[1]
    page.get_by_label("Text", exact=True).fill(f"two dogs {EVIL}")
    page.get_by_role("button", name="Search", exact=True).click()
    page.wait_for_selector(".found li")
    names = page.locator(".name").all_inner_texts()
    assert len(names) == 3
    assert any("<img src=x" in name and "${hacked=1}" in name for name in names)
    page.get_by_text("Options").click()
    page.get_by_label("Caption around a label").fill(EVIL)
    page.get_by_role("button", name="Weigh the labels").click()
    page.locator("#labels-status", has_text="<img").wait_for()
    assert page.evaluate("typeof hacked") == "undefined"
    assert [text for text in complaints if "400 (Bad Request)" not in text] == []


def test_a_new_photo_removes_the_bars_of_the_old_one(page):
    pick(page, 0)
    page.wait_for_selector(".word")
    page.get_by_role("button", name="Weigh the labels").click()
    page.wait_for_selector(".bars li")
    before = page.locator("#photo").get_attribute("src")
    pick(page, 1)
    page.wait_for_function("before => document.querySelector('#photo').src !== before", arg=before)
    assert page.locator(".bars li").count() == 0


def test_of_several_requests_only_the_newest_is_shown(page):
    """The first of two answers is held back until the second was shown."""
    held = []
    page.route("**/api/photo?gallery=0", lambda route: held.append((route, route.fetch())))
    page.evaluate(
        """() => { window.shown = []; new MutationObserver(() =>
        window.shown.push(document.querySelector('#photo').src)).observe(
        document.querySelector('#photo'), { attributes: true }); }"""
    )
    pick(page, 0)
    pick(page, 1)
    page.wait_for_selector(".word")
    (route, answer), *_ = held
    with contextlib.suppress(Exception):  # the page has given it up
        route.fulfill(response=answer)
    page.wait_for_timeout(300)
    assert page.evaluate("window.shown.length") == 1
    assert page.evaluate("window.shown[0]") != answer.json()["image"]
    assert page.locator("#photo-status").inner_text() == ""


def test_a_photo_is_dropped_on_the_page(page):
    page.evaluate(
        """data => { const files = new DataTransfer();
        files.items.add(new File([new Uint8Array(data)], "photo.png"));
        document.querySelector(".drop").dispatchEvent(
        new DragEvent("drop", { dataTransfer: files, bubbles: true, cancelable: true })); }""",
        list(encoded("PNG")),
    )
    page.wait_for_selector(".word")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"these are words", "not an image in a known format"),
        (png_that_claims(height=60_000, width=60_000), "larger than 50 million pixels"),
    ],
    ids=["text", "bomb"],
)
def test_a_file_that_is_no_image_is_refused_and_the_last_photo_stays(data, words, page, server):
    send(page, encoded("JPEG"))
    page.wait_for_selector(".word")
    send(page, data)
    page.locator("#photo-status", has_text=words).wait_for()
    assert server.uploads() == []
    page.locator(".word").first.hover()
    assert map_of(page) is not None


def test_a_file_that_is_too_large_is_not_sent(page, requests):
    send(page, bytes(2**21))
    page.get_by_text("larger than 1 MB").wait_for()
    assert not any("/photo" in url for url in requests)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_its_window_and_no_other_host_is_named(
    page, size, scheme, server, requests, complaints
):
    page.set_viewport_size(size)
    page.emulate_media(color_scheme=scheme)
    pick(page, 0)
    page.wait_for_selector(".word")
    page.get_by_role("button", name="Search", exact=True).click()
    page.wait_for_selector(".found li")
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    red = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/[0-9]+/)[0]")
    assert (int(red) > 128) == (scheme == "light")
    assert all(url.startswith((server.url, "data:", "blob:")) for url in requests)
    assert complaints == []


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
    visitor.wait_for_selector(".word")
    assert server.end(number) == 0
    visitor.close()
    assert list(server.temporary.iterdir()) == []
    assert list(server.folder.iterdir()) == []
    errors = server.errors.read_text()
    assert "Traceback" not in errors
    asked = {line.split()[1] for line in errors.splitlines() if line.startswith("asked ")}
    assert asked <= {"127.0.0.1", "localhost"}
