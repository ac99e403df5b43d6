import hashlib
import io
import os
import socket
import threading

import pytest
from rich.console import Console

from tests.zoo.file_server import Served, serving
from virtex.errors import CheckpointError
from virtex.zoo.download import NUM_ATTEMPTS, download

CONTENT = bytes(range(256)) * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cache" / "file.pth"


def fetch(served, path, **options):
    with serving(served) as url:
        return download(url, path, pause=0, **options)


def leftovers(path):
    return sorted(entry.name for entry in path.parent.iterdir() if entry.name[0] != ".")


def refused(served, path, match, **options):
    """The fetch fails with that message, and no file is there."""
    with pytest.raises(CheckpointError, match=match):
        fetch(served, path, **options)
    assert not path.exists()


@pytest.mark.parametrize("chunked", [False, True])
def test_a_file_arrives_whole_with_nothing_beside_it(chunked, path):
    assert fetch(Served(CONTENT, chunked=chunked), path, sha256=SHA256) == path
    assert path.read_bytes() == CONTENT
    assert leftovers(path) == ["file.pth"]


def test_a_file_that_is_there_is_not_asked_for(path):
    served = Served(CONTENT)
    fetch(served, path)
    fetch(served, path)
    assert len(served.ranges) == 1


def test_a_cut_connection_is_resumed_where_it_was_cut(path):
    served = Served(CONTENT, cuts=[100_000, 50_000])
    fetch(served, path, sha256=SHA256)
    assert served.ranges == [None, "bytes=100000-", "bytes=150000-"]
    assert path.read_bytes() == CONTENT


def test_a_cut_of_a_body_of_unknown_length_is_noticed(path):
    served = Served(CONTENT, chunked=True, cuts=[100_000])
    fetch(served, path)
    assert path.read_bytes() == CONTENT
    assert len(served.ranges) == 2


def test_what_arrived_is_kept_for_the_next_try_and_never_taken_for_the_file(path):
    served = Served(CONTENT, cuts=[1000] * NUM_ATTEMPTS)
    refused(served, path, "ended after 4000 of 256000 bytes.* 4000 bytes are kept: the next try")
    assert leftovers(path) == ["file.pth.part", "file.pth.part.version"]
    fetch(served, path, sha256=SHA256)
    assert served.ranges[-1] == "bytes=4000-"


def test_a_file_that_changed_meanwhile_begins_anew(path):
    refused(Served(b"x" * 9000, cuts=[1000] * NUM_ATTEMPTS), path, "ended after")
    served = Served(CONTENT, etag='"two"')
    fetch(served, path)
    assert served.ranges == ["bytes=4000-"]
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("etag", ["", 'W/"weak"'])
def test_without_a_strong_validator_nothing_is_resumed(etag, path):
    served = Served(CONTENT, etag=etag, cuts=[1000])
    fetch(served, path)
    assert served.ranges == [None, None]
    assert path.read_bytes() == CONTENT


def test_a_part_longer_than_the_file_begins_anew(path):
    path.parent.mkdir()
    path.with_name("file.pth.part").write_bytes(CONTENT + b"more")
    path.with_name("file.pth.part.version").write_text('"one"')
    fetch(Served(CONTENT), path)
    assert path.read_bytes() == CONTENT


def test_another_checksum_is_refused_and_nothing_is_kept(path):
    refused(Served(CONTENT + b"!"), path, "another file than expected: its SHA-256", sha256=SHA256)
    assert leftovers(path) == []


def test_what_begins_otherwise_than_such_a_file_does_is_not_kept(path):
    beginnings = (b"PK", b"\x80")
    refused(Served(b'{"error": 1}'), path, r"begins with b'.*error.*put it", beginnings=beginnings)
    assert leftovers(path) == []
    assert fetch(Served(b"\x80\x02"), path, beginnings=beginnings) == path


def test_an_address_that_is_none_is_refused_at_once(path):
    for url in ("http://[bad/file.pth", "http://127.0.0.1:port/file.pth"):
        with pytest.raises(CheckpointError, match=r"cannot fetch http://.*VIRTEX_MIRROR"):
            download(url, path)
    served = Served(CONTENT, redirect="http://[bad/moved")
    refused(served, path, r"cannot fetch http://127.*VIRTEX_MIRROR")
    assert len(served.ranges) == 1


def test_a_missing_file_is_not_asked_for_again(path):
    served = Served(CONTENT, statuses=[404])
    refused(served, path, r"answers 404 Not Found\. Fetch the file on a machine .*VIRTEX_MIRROR")
    assert len(served.ranges) == 1


def test_a_server_that_is_busy_for_a_while_is_asked_again(path):
    fetch(Served(CONTENT, statuses=[503, 429]), path, sha256=SHA256)
    refused(Served(CONTENT, statuses=[500] * NUM_ATTEMPTS), path.with_name("b.pth"), "answers 500")


@pytest.mark.parametrize(
    "served",
    [
        Served(b"<p>Please log in", content_type="text/html; charset=utf-8"),
        Served(b"\n<!DOCTYPE html><html>Please log in"),
        Served(b"<html>Please log in", chunked=True),
    ],
)
def test_a_web_page_is_no_file(served, path):
    refused(served, path, "gave a web page, not a file")
    assert leftovers(path) == []


def test_a_file_beyond_the_bound_is_refused_before_it_is_kept(path):
    for served in (Served(CONTENT), Served(CONTENT, chunked=True)):
        refused(served, path, "more than 1000 bytes", max_bytes=1000)
        assert leftovers(path) == []


def test_a_body_whose_end_cannot_be_told_from_a_cut_is_refused(path):
    refused(Served(CONTENT, says_length=False), path, "does not say where the file ends")


def test_an_empty_answer_is_no_file(path):
    refused(Served(b""), path, "sends no file")


def test_a_redirect_is_followed_to_http_only(path):
    fetch(Served(CONTENT, redirect="/moved"), path, sha256=SHA256)
    for address in ("ftp://127.0.0.1/file.pth", "file:///etc/hostname"):
        served = Served(CONTENT, redirect=address)
        told = "(not followed|not allowed).*VIRTEX_MIRROR"
        refused(served, path.with_name("b.pth"), f"(?s){told}")


def test_other_schemes_are_refused(path, tmp_path):
    for url in (f"file://{tmp_path}/x.pth", "ftp://example.org/x.pth", "x.pth"):
        with pytest.raises(CheckpointError, match="only http and https"):
            download(url, path)


def test_without_a_network_the_remedy_is_named(path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/file.pth"
        with pytest.raises(CheckpointError, match=r"is there a network\?.* put it at .*file\.pth"):
            download(url, path, pause=0)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(CheckpointError, match=r"cannot write .*VIRTEX_CACHE"):
        fetch(Served(CONTENT), tmp_path / "cache" / "file.pth")


def test_two_at_once_fetch_it_once(path):
    served = Served(CONTENT)
    with serving(served) as url:
        threads = [threading.Thread(target=download, args=(url, path)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert path.read_bytes() == CONTENT
    assert len(served.ranges) == 1


def test_progress_shows_on_a_terminal_only(path, capfd):
    screen = io.StringIO()
    terminal = Console(file=screen, force_terminal=True, width=80)
    fetch(Served(CONTENT), path, console=terminal)
    assert "file.pth" in screen.getvalue()
    assert "256.0" in screen.getvalue()
    fetch(Served(CONTENT), path.with_name("b.pth"))
    assert capfd.readouterr() == ("", "")


def test_a_cache_that_is_read_only_serves_what_it_has(path):
    fetch(Served(CONTENT), path)
    os.chmod(path.parent, 0o500)  # noqa: PTH101
    try:
        assert fetch(Served(CONTENT), path) == path
    finally:
        os.chmod(path.parent, 0o700)  # noqa: PTH101
