"""A server's certificate that is refused is named at once, with what to do."""

import http.server
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.data.sources.layouts import write
from virtex.data.shards.store import StoreAwayError, StoreError, open_store

CONTENT = b"of a shard"
EXTENSIONS = "subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n"

pytestmark = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="openssl makes the certificates"
)


def _certify(folder: Path) -> None:
    """Write the certificate of an authority, and that of a server on localhost signed by it."""
    (folder / "extensions").write_text(EXTENSIONS)
    made = "-newkey rsa:2048 -nodes -subj"
    for command in (
        f"req -x509 {made} /CN=authority -days 2 -keyout authority.key -out authority.pem",
        f"req {made} /CN=localhost -keyout server.key -out server.csr",
        "x509 -req -in server.csr -CA authority.pem -CAkey authority.key -CAcreateserial -days 2 "
        "-extfile extensions -out server.pem",
    ):
        subprocess.run(["openssl", *command.split()], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    _certify(folder)
    return folder


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def port(keys: Path, tmp_path: Path) -> Iterator[int]:
    """Serve a shard by https."""
    write(tmp_path / "0.tar", CONTENT)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(keys / "server.pem", keys / "server.key")
    handler = partial(Handler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.mark.parametrize(
    ("host", "is_known", "reason"),
    [("localhost", False, "UnknownIssuer"), ("127.0.0.1", True, "NotValidForName")],
)
def test_a_certificate_that_is_refused_is_named_at_once(
    keys: Path, port: int, monkeypatch: pytest.MonkeyPatch, host: str, is_known: bool, reason: str
) -> None:
    if is_known:
        monkeypatch.setenv("SSL_CERT_FILE", str(keys / "authority.pem"))
    message = rf"cannot be read: the server's certificate is refused \({reason}.*SSL_CERT_FILE=FILE"
    with pytest.raises(StoreError, match=message) as raised:
        open_store(f"https://{host}:{port}").head("0.tar")
    assert not isinstance(raised.value, StoreAwayError)


def test_an_authority_of_ones_own_is_named_in_the_environment(
    keys: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(keys / "authority.pem"))
    assert open_store(f"https://localhost:{port}").head("0.tar").size == len(CONTENT)
