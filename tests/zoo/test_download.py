import hashlib
import io
import socket
import sys
import threading
import urllib.request
import zipfile

import pytest

from tests.zoo.file_server import Served, serving
from virtex.errors import CheckpointError
from virtex.zoo.download import OPENER, download

CONTENT = bytes(range(256)) * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
TORCH_FILE = (b"PK\x03\x04", b"\x80")
NUM_ATTEMPTS = 3


@pytest.fixture(autouse=True)
def local(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr("virtex.zoo.download.PAUSES", (0,) * (NUM_ATTEMPTS - 1))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cache" / "file.pth"


def fetch(served, path, **options):
    with serving(served) as url:
        return download(url, path, **options)


def refused(served, path, match, *, num_requests=1, **options):
    """Assert that the download fails with that message, and leaves nothing but its lock."""
    with pytest.raises(
        CheckpointError, match=rf"^cannot download http://127.*{match}.*VIRTEX_MIRROR"
    ):
        fetch(served, path, **options)
    assert [entry.name for entry in path.parent.iterdir()] == [".file.pth.lock"]
    assert served.num_requests == num_requests


def zipped(content):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("weights", content)
    return file.getvalue()


@pytest.mark.parametrize("chunked", [False, True])
def test_a_file_arrives_whole_with_nothing_beside_it(chunked, path):
    assert fetch(Served(CONTENT, chunked=chunked), path, sha256=SHA256) == path
    assert path.read_bytes() == CONTENT
    assert {entry.name for entry in path.parent.iterdir()} == {"file.pth", ".file.pth.lock"}


def test_a_file_that_exists_is_not_requested_and_its_folder_not_written(tmp_path):
    path = tmp_path / "file.pth"
    path.write_bytes(b"mine")
    served = Served(CONTENT)
    fetch(served, path)
    assert served.num_requests == 0
    assert path.read_bytes() == b"mine"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "served",
    [
        Served(CONTENT, cuts=[1000, 0]),
        Served(CONTENT, chunked=True, cuts=[1000, 1000]),
        Served(CONTENT, statuses=[503, 429]),
    ],
    ids=["cut", "cut of unknown length", "busy"],
)
def test_after_a_failure_that_may_pass_the_download_starts_again(served, path):
    fetch(served, path, sha256=SHA256)
    assert path.read_bytes() == CONTENT
    assert served.num_requests == NUM_ATTEMPTS


@pytest.mark.parametrize(
    ("served", "match"),
    [
        (Served(CONTENT, cuts=[1000] * NUM_ATTEMPTS), "ended after 1000 of 256000 bytes"),
        (Served(CONTENT, cuts=[1000] * NUM_ATTEMPTS, chunked=True), "IncompleteRead"),
        (Served(CONTENT, statuses=[500] * NUM_ATTEMPTS), "answers 500"),
    ],
)
def test_a_failure_that_lasts_is_reported_and_a_cut_file_never_kept(served, match, path):
    refused(served, path, match, num_requests=NUM_ATTEMPTS)


def test_a_silent_server_counts_as_cut(path, monkeypatch):
    monkeypatch.setattr("virtex.zoo.download.TIMEOUT", 0.1)
    served = Served(CONTENT, silence=threading.Event())
    try:
        refused(served, path, "timed out", num_requests=NUM_ATTEMPTS)
    finally:
        served.silence.set()


@pytest.mark.parametrize(
    ("served", "match"),
    [
        (Served(CONTENT, statuses=[404]), "answers 404 Not Found"),
        (Served(b"<p>Log in", content_type="text/html; charset=utf-8"), "is a web page"),
        (Served(CONTENT, says_length=False), "or not its length"),
        (Served(b""), "sends no file"),
        (Served(CONTENT, redirect="http://[bad/moved"), "IPv6"),
        (Served(CONTENT, redirect="ftp://127.0.0.1/file.pth"), "not followed"),
        (Served(CONTENT, redirect="file:///etc/hostname"), "not allowed"),
    ],
)
def test_a_response_that_is_no_file_is_refused_at_once(served, match, path):
    refused(served, path, match, sha256=SHA256)


@pytest.mark.parametrize("chunked", [False, True])
def test_size_is_bounded(chunked, path):
    served = Served(CONTENT, chunked=chunked)
    refused(served, path, "more than the 255999 bytes", max_bytes=len(CONTENT) - 1)
    assert fetch(served, path, max_bytes=len(CONTENT)) == path


def test_another_checksum_is_refused(path):
    refused(Served(CONTENT + b"!"), path, "its SHA-256 is .*, not", sha256=SHA256)


@pytest.mark.parametrize("content", [b'{"error": 1}', b"<!doctype html><html>Please log in"])
def test_a_file_with_other_first_bytes_is_refused(content, path):
    refused(Served(content), path, "or a web page: it begins with b'", first_bytes=TORCH_FILE)


def test_a_damaged_zip_is_refused(path):
    whole = zipped(CONTENT)
    flipped = whole.replace(CONTENT[:9], b"x" + CONTENT[1:9], 1)
    for content in (whole[:-1000], flipped):
        refused(Served(content), path, "the file is damaged", first_bytes=TORCH_FILE)
    assert fetch(Served(whole), path, first_bytes=TORCH_FILE).read_bytes() == whole


def test_a_redirect_is_followed_but_never_from_https_to_http(path):
    fetch(Served(CONTENT, redirect="/moved"), path, sha256=SHA256)
    handler = next(h for h in OPENER.handlers if hasattr(h, "redirect_request"))
    details = (None, 302, "Found", {}, "http://example.org/b")
    for scheme, follows in (("http", True), ("https", False)):
        request = urllib.request.Request(f"{scheme}://example.org/a")
        if follows:
            assert handler.redirect_request(request, *details).full_url == details[-1]
        else:
            with pytest.raises(ValueError, match="not followed"):
                handler.redirect_request(request, *details)


@pytest.mark.parametrize(
    "url", ["file:///etc/hostname", "ftp://example.org/x", "x.pth", "http://[bad", "http://a:b/c"]
)
def test_an_address_that_is_not_http_is_refused(url, path):
    with pytest.raises(CheckpointError, match=r"^cannot download .*VIRTEX_MIRROR"):
        download(url, path)
    assert not path.exists()


def test_without_a_network_the_remedy_is_named(path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/file.pth"
        with pytest.raises(CheckpointError, match=r"is there a network\?.* copy it to .*file\.pth"):
            download(url, path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(CheckpointError, match=r"cannot write .*cache is no folder"):
        fetch(Served(CONTENT), tmp_path / "cache" / "file.pth")


def test_several_at_once_download_it_once(path):
    served = Served(CONTENT, silence=threading.Event())
    with serving(served) as url:
        threads = [threading.Thread(target=download, args=(url, path)) for _ in range(4)]
        for thread in threads:
            thread.start()
        served.silence.set()
        for thread in threads:
            thread.join()
    assert path.read_bytes() == CONTENT
    assert served.num_requests == 1


def test_progress_shows_on_a_terminal(path, monkeypatch, capsys):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    fetch(Served(CONTENT), path)
    shown = capsys.readouterr().err
    assert "file.pth" in shown
    assert "256.0/256.0 kB" in shown


def test_the_first_download_is_recorded_and_a_changed_file_refused(path):
    fetch(Served(CONTENT), path)
    record = path.with_name("file.pth.sha256")
    assert record.read_text() == f"{SHA256}  file.pth\n"
    served = Served(CONTENT)
    fetch(served, path)
    assert served.num_requests == 0
    path.write_bytes(CONTENT + b"x")
    with pytest.raises(CheckpointError, match=r"file.pth has changed: .*remove file.pth.sha256"):
        fetch(served, path)
    record.unlink()
    assert fetch(served, path).read_bytes() == CONTENT + b"x"


def test_another_file_at_the_same_address_is_refused(path):
    fetch(Served(CONTENT), path)
    path.unlink()
    with pytest.raises(CheckpointError, match=rf"another file .*not {SHA256} as known or recorded"):
        fetch(Served(CONTENT + b"x"), path)
    assert not path.exists()
    assert fetch(Served(CONTENT), path).read_bytes() == CONTENT


def test_a_published_checksum_is_checked_in_the_cache_too(path):
    fetch(Served(CONTENT), path, sha256=SHA256)
    assert not path.with_name("file.pth.sha256").exists()
    path.write_bytes(b"other")
    with pytest.raises(CheckpointError, match="has changed"):
        fetch(Served(CONTENT), path, sha256=SHA256)
