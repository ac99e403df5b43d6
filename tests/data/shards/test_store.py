"""A store reads shards alike from a folder and by http, and bears a failing server."""

import hashlib
import io
import logging
import pickle
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
from obstore import exceptions

from tests.data.shards.ranged_server import BUCKET, RangedServer, etag_of
from tests.data.sources.layouts import write
from virtex.data.shards import folder_store, store_environment
from virtex.data.shards import store as module
from virtex.data.shards.store import Patience, Store, StoreAwayError, StoreError, open_store
from virtex.errors import ConfigError

CONTENT = bytes(range(256)) * 100
HASTE = Patience(num_tries=4, first_wait=0.01)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for n in range(9):
        write(tmp_path / "pre" / f"d{n % 2}" / f"{n}.tar", CONTENT[n:])
    write(tmp_path / "pre" / "readme.txt", "not a shard")
    write(tmp_path / "pre" / ".hidden" / "0.tar", "hidden")
    write(tmp_path / "prefix" / "0.tar", "of another prefix")
    return tmp_path


@pytest.fixture
def server(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RangedServer]:
    with RangedServer(folder) as running:
        running.set_environment(monkeypatch)
        yield running


@pytest.fixture
def s3(server: RangedServer) -> Store:
    return open_store(f"s3://{BUCKET}/pre", patience=HASTE)


@pytest.mark.parametrize("kind", ["folder", "file", "s3"])
def test_all_shards_are_listed_in_order(folder: Path, s3: Store, kind: str) -> None:
    root = {"folder": str(folder / "pre"), "file": (folder / "pre").as_uri()}.get(kind)
    store = s3 if root is None else open_store(root)
    found = list(store.list())
    assert [one.name for one in found] == sorted(f"d{n % 2}/{n}.tar" for n in range(9))
    assert {one.size for one in found} == {len(CONTENT) - n for n in range(9)}
    assert found == [store.head(one.name) for one in found]
    if kind == "s3":
        assert found[0].etag == etag_of(folder / "pre" / found[0].name)


@pytest.mark.parametrize("kind", ["folder", "s3", "http"])
def test_a_shard_is_read_whole_and_in_parts(
    folder: Path, server: RangedServer, s3: Store, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for each in (module, folder_store):
        monkeypatch.setattr(each, "PIECE", 1000)
    stores = {"folder": open_store(folder / "pre"), "http": open_store(f"{server.url}/pre")}
    store = pickle.loads(pickle.dumps(stores.get(kind, s3)))
    one = store.head("d1/3.tar")
    assert store.read(one.name, 10, 20, etag=one.etag) == CONTENT[13:23]
    file, counts = io.BytesIO(), list[int]()
    sha256 = store.download(
        one.name, file, size=one.size, etag=one.etag, num_parallel=3, on_bytes=counts.append
    )
    assert file.getvalue() == CONTENT[3:]
    assert sha256 == hashlib.sha256(CONTENT[3:]).hexdigest()
    assert sum(counts) == one.size
    assert len(counts) == 26


@pytest.mark.parametrize("kind", ["fail", "cut", "drop"])
def test_a_failing_server_is_tried_again(server: RangedServer, s3: Store, kind: str) -> None:
    getattr(server, kind)(3)
    assert s3.read("d1/3.tar", 0, 1000) == CONTENT[3:1003]
    assert server.count("GET", "3.tar") == 4


def test_a_server_that_goes_on_failing_is_named(
    server: RangedServer, s3: Store, caplog: pytest.LogCaptureFixture
) -> None:
    server.fail(100)
    with (
        caplog.at_level(logging.WARNING, "virtex"),
        pytest.raises(StoreError, match=r"d1/3\.tar at s3://bucket/pre cannot be read after 4"),
    ):
        s3.read("d1/3.tar", 0, 1000)
    assert server.count("GET") == 4
    assert "d1/3.tar at s3://bucket/pre: " in caplog.text
    with pytest.raises(StoreError, match="list of files at s3://bucket/pre cannot be read"):
        list(s3.list())


@pytest.mark.parametrize("status", [408, 425, 429, 500, 501, 502, 503, 504])
def test_an_outage_may_pass(server: RangedServer, s3: Store, status: int) -> None:
    for read in (lambda: s3.read("d1/3.tar", 0, 1000), lambda: list(s3.list())):
        server.fail(4, status=status)
        with pytest.raises(StoreAwayError, match=f"after 4 tries .* {status}") as raised:
            read()
        assert (raised.value.may_pass, raised.value.exit_code) == (True, 75)
        server.fail(3, status=status)
        assert read()


@pytest.mark.parametrize("kind", ["cut", "drop"])
def test_broken_connections_may_pass(server: RangedServer, s3: Store, kind: str) -> None:
    getattr(server, kind)(100)
    with pytest.raises(StoreAwayError, match="after 4 tries"):
        s3.read("d1/3.tar", 0, 1000)


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:1", "http://no-such-host.invalid"])
def test_a_server_that_is_not_there_may_pass(
    server: RangedServer, monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    server.set_environment(monkeypatch)
    monkeypatch.setenv("AWS_ENDPOINT", endpoint)
    with pytest.raises(StoreAwayError, match="after 4 tries"):
        list(open_store(f"s3://{BUCKET}/pre", patience=HASTE).list())


def _is_named_at_once(message: str, url: str = f"s3://{BUCKET}/pre") -> None:
    """Check that an error no try can mend is raised by the first, by every kind of read."""
    store = open_store(url, patience=Patience(num_tries=4, first_wait=100))
    for read in (lambda: list(store.list()), lambda: store.head("d1/3.tar")):
        with pytest.raises(StoreError, match=message) as raised:
            read()
        assert (raised.value.may_pass, raised.value.exit_code) == (False, 2)


def test_plain_http_names_the_variable_that_allows_it(
    server: RangedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"s3://{BUCKET}/pre"
    message = "AWS_ENDPOINT is of plain http: set AWS_ALLOW_HTTP=true, or give https"
    monkeypatch.setenv("AWS_ALLOW_HTTP", "False")
    with pytest.raises(ConfigError, match=message):
        open_store(url)
    monkeypatch.delenv("AWS_ALLOW_HTTP")
    with pytest.raises(ConfigError, match=message):
        open_store(url)
    monkeypatch.setenv("AWS_ENDPOINT", "https://127.0.0.1:1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)  # which obstore takes
    _is_named_at_once("cannot be requested.*check .*AWS_ENDPOINT, AWS_ENDPOINT_URL,")
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    server.fail(1, status=500)
    server.set_environment(monkeypatch)
    assert list(open_store(url, patience=HASTE).list())


@pytest.mark.parametrize("name", ["AWS_ALLOW_HTTP", "AWS_SKIP_SIGNATURE"])
def test_a_setting_that_cannot_be_read_is_named(
    server: RangedServer, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "perhaps")
    _is_named_at_once(f'cannot be opened: .*"perhaps" as boolean; correct {name} in the environ')
    assert not server.requests


def test_half_of_the_credentials_are_named(
    server: RangedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "false")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAVERYSECRET")
    _is_named_at_once("Missing SecretAccessKey; check AWS_ACCESS_KEY_ID, ")


def test_a_client_that_panics_is_an_error_without_a_traceback(
    server: RangedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "false")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, "two\nlines")
    _is_named_at_once("its client failed: .*; check AWS_ACCESS_KEY_ID, ")


@pytest.mark.parametrize(
    ("status", "message"),
    [(401, "access is denied"), (403, "access is denied"), (404, "nothing of this name")],
)
def test_a_list_that_is_refused_is_tried_once(
    server: RangedServer, s3: Store, status: int, message: str
) -> None:
    server.fail(100, status=status)
    with pytest.raises(StoreError, match=message):
        list(s3.list())
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_server_of_credentials_that_refuses_may_pass(status: int) -> None:
    message = f"Generic GCS error: Error performing token request: status code: {status} No"
    error = exceptions.GenericError(message)
    assert module._reason(error, "GOOGLE") == (message, True)


def test_an_object_of_an_impossible_name_is_named(folder: Path, s3: Store) -> None:
    write(folder / "pre" / "two\nlines.tar", CONTENT)
    with pytest.raises(StoreError, match=r"a name that cannot be read .*two\\nlines\.tar"):
        list(s3.list())


def test_a_server_that_lists_nothing_is_told_once(server: RangedServer) -> None:
    with pytest.raises(StoreError, match=r"number the shards, as in https://host/path/\{0"):
        list(open_store(f"{server.url}/pre").list())


def test_a_server_that_hangs_is_given_up(server: RangedServer) -> None:
    server.delay(1)
    hasty = Patience(num_tries=2, first_wait=0.01, request_seconds=0.1)
    with pytest.raises(StoreError, match="after 2 tries"):
        open_store(f"s3://{BUCKET}/pre", patience=hasty).head("d1/3.tar")


def test_what_no_try_can_mend_is_tried_once(server: RangedServer, s3: Store) -> None:
    with pytest.raises(StoreError, match="nothing of this name"):
        s3.head("no.tar")
    server.fail(9, status=403)
    with pytest.raises(StoreError, match=r"access is denied .* AWS_"):
        s3.read("d1/3.tar", 0, 10)
    assert len(server.requests) == 2


def test_without_credentials_the_variables_are_named(
    server: RangedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.set_environment(monkeypatch)
    monkeypatch.delenv("AWS_SKIP_SIGNATURE")
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", server.endpoint)
    store = open_store(f"s3://{BUCKET}", patience=Patience(num_tries=1))
    with pytest.raises(StoreError, match=r"no credentials as AWS_\.\.\. .*AWS_SKIP_SIGNATURE=true"):
        list(store.list())


@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_a_shard_that_has_changed_is_named(folder: Path, s3: Store, kind: str) -> None:
    store = s3 if kind == "s3" else open_store(folder / "pre")
    one = store.head("d1/3.tar")
    (folder / "pre" / "d1" / "3.tar").write_bytes(CONTENT[::-1])
    with pytest.raises(StoreError, match=r"d1/3\.tar .* has changed"):
        store.read("d1/3.tar", 0, 10, etag=one.etag)


def test_a_name_leads_nowhere_else(folder: Path) -> None:
    with pytest.raises(StoreError, match="leads outside"):
        open_store(folder / "pre").head("../prefix/0.tar")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://host/shards", "URLs begin with s3://"),
        ("https://me:hushhush@host/shards", "may hold a credential"),
        ("https://host/shards?sig=hushhush", "may hold a credential"),
        ("s3://", "names no bucket or host: give it as s3://NAME/FOLDER"),
        ("gs:///folder", "names no bucket or host"),
        ("s3://[bucket", r"s3://\[bucket cannot be opened .* no valid URL"),
        ("https://me:hushhush@host:123456/shards", "https://host:123456/shards .* no valid URL"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused(url: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        open_store(url)
    assert "hushhush" not in str(raised.value)


@pytest.mark.parametrize("name", ["AWS_ENDPOINT", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
@pytest.mark.parametrize("value", ["127.0.0.1:9911", "localhost", "", "ftp://host", "http://a b"])
def test_an_endpoint_that_is_no_url_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=f"{name} is {value or 'no URL'}, and must begin with"):
        open_store(f"s3://{BUCKET}")
    open_store("gs://bucket")


def test_no_credential_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    secrets = {
        "AWS_ACCESS_KEY_ID": "AKIAVERYSECRET",
        "AWS_SECRET_ACCESS_KEY": "hush-hush-hush",
        "AWS_SESSION_TOKEN": "token-of-the-session",
    }
    settings = {"AWS_ENDPOINT": "http://127.0.0.1:1", "AWS_ALLOW_HTTP": "1", "AWS_REGION": "x"}
    for name, value in {**secrets, **settings}.items():
        monkeypatch.setenv(name, value)
    store = open_store("s3://bucket/pre", patience=HASTE)
    with caplog.at_level(logging.DEBUG), pytest.raises(StoreError) as raised:
        store.head("0.tar")
    told = "".join(traceback.format_exception(raised.value)) + caplog.text + repr(vars(store))
    assert "0.tar at s3://bucket/pre" in told
    assert not [value for value in secrets.values() if value in told]
    signed = "GET https://host/a.tar?X-Amz-Signature=abc failed; Authorization: hush-hush-hush"
    shown = store_environment.without_secrets(signed, secrets)
    assert shown == "GET https://host/a.tar failed; Authorization: ***"
    settings = {"AWS_SKIP_SIGNATURE": "perhaps", "AWS_WEB_IDENTITY_TOKEN_FILE": "/a/token"}
    assert module.without_secrets("perhaps of /a/token", settings) == "perhaps of /a/token"


@pytest.mark.parametrize("kind", ["folder", "s3", "http"])
def test_missing_shards_are_named_together(
    folder: Path, server: RangedServer, s3: Store, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = {
        "folder": open_store(folder / "pre" / "d0"),
        "s3": open_store(f"s3://{BUCKET}/pre/d0"),
    }
    store = stores.get(kind) or open_store(f"{server.url}/pre/d0")
    assert [one.name for one in store.heads(["2.tar", "0.tar"])] == ["2.tar", "0.tar"]
    with pytest.raises(StoreError, match=r"2 shards (in|at) .* cannot be read") as raised:
        store.heads(f"{n}.tar" for n in range(5))
    assert "- 1.tar is not there\n- 3.tar is not there" in str(raised.value)
    with pytest.raises(
        StoreError, match=r"(?s)40 shards .*number only .*- 39\.tar is not there\n- and 20"
    ):
        store.heads(f"{n}.tar" for n in range(20, 60))


def test_only_so_many_missing_shards_are_looked_for(
    server: RangedServer, s3: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_MISSING", 10)
    with pytest.raises(
        StoreError, match=r"10 shards at .*others than the first 10 were not looked"
    ):
        s3.heads(f"{n}.tar" for n in range(2000))
    assert len(server.requests) < 1000


@pytest.mark.parametrize(("status", "kind"), [(403, StoreError), (503, StoreAwayError)])
def test_no_more_shards_are_looked_for_in_a_store_that_answers_none(
    server: RangedServer, s3: Store, status: int, kind: type[StoreError]
) -> None:
    server.fail(10**6, status=status)
    with pytest.raises(kind, match=r"0\.tar at s3://"):
        s3.heads(f"{n}.tar" for n in range(2000))
    assert len(server.requests) < 1000
