"""A stub of the Hugging Face hub on 127.0.0.1, which serves what was pushed to it.

    with serving_hub() as hub:
        use_hub(monkeypatch, hub, cache=tmp_path / "hub")  # for code of this process
        environment = os.environ | hub.environment(tmp_path / "hub")  # for one that it starts

It holds models, data sets and spaces: create_repo, create_commit (and so upload_folder and
upload_file) with inline and LFS files, info, tree, and downloads with the hub's headers. Files are
not transferred by Xet, which both of these switch off.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import huggingface_hub.hf_api
import pytest
from huggingface_hub import constants

TOKEN = "hf_stub_token_of_someone"
USER = "someone"
KINDS = ("models", "datasets", "spaces")
LFS_BYTES = 1 << 12
"""Size from which files are stored by LFS; the hub's is 10 MB for text, and 0 for weights."""
NOT_FOUND = "RepoNotFound"


@dataclass
class Commit:
    """A commit, with all files of its tree."""

    sha: str
    message: str
    files: dict[str, bytes]


@dataclass
class Repository:
    """A repository, with its commits, the oldest first."""

    private: bool = False
    gated: bool = False
    """Whether its files need a token that was granted access, which none is."""
    commits: list[Commit] = field(default_factory=list)
    refs: dict[str, str] = field(default_factory=dict)
    """SHAs of branches and tags other than main."""

    def __post_init__(self) -> None:
        self.commit({".gitattributes": b"*.safetensors filter=lfs\n"}, message="initial commit")

    @property
    def files(self) -> dict[str, bytes]:
        """Files of the branch main."""
        return self.commits[-1].files

    def commit(self, files: dict[str, bytes], *, message: str = "a commit") -> Commit:
        """Add a commit with these files over those that there are."""
        sha = hashlib.sha1(f"{len(self.commits)} {message}".encode()).hexdigest()
        before = self.commits[-1].files if self.commits else {}
        self.commits.append(Commit(sha, message, before | files))
        return self.commits[-1]

    def at(self, revision: str) -> Commit | None:
        """The commit of a branch, a tag or a SHA."""
        sha = self.commits[-1].sha if revision == "main" else self.refs.get(revision, revision)
        return next((commit for commit in self.commits if commit.sha == sha), None)


@dataclass
class Hub:
    """What the stub holds."""

    endpoint: str = ""
    role: str = "write"
    """Role of the token."""
    organisations: list[str] = field(default_factory=list)
    """Names of the organisations that its user is in."""
    repositories: dict[str, Repository] = field(default_factory=dict)
    """Repositories by kind and name, such as `models/someone/name`."""
    lfs: dict[str, bytes] = field(default_factory=dict)
    """Files in the LFS store, by SHA-256."""
    requests: list[str] = field(default_factory=list)
    """Methods and paths of all requests."""
    failures: dict[str, int] = field(default_factory=dict)
    """Status of every request whose path begins with a text."""

    def model(self, name: str) -> Repository:
        """A model's repository, made if there is none."""
        return self.repositories.setdefault(f"models/{name}", Repository())

    def environment(self, cache: Path, *, token: str | None = TOKEN) -> dict[str, str]:
        """Environment variables with which a new process uses the stub."""
        variables = {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(cache),
            "HF_HUB_CACHE": str(cache),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_OFFLINE": "0",
            "no_proxy": "127.0.0.1",
        }
        return variables | ({"HF_TOKEN": token} if token else {})


def use_hub(
    monkeypatch: pytest.MonkeyPatch, hub: Hub, *, cache: Path, token: str | None = TOKEN
) -> None:
    """Let huggingface_hub in this process use the stub, with an empty cache.

    Args:
        token: Token in the environment; None: nobody is logged in.
    """
    template = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    values = {
        "ENDPOINT": hub.endpoint,
        "HUGGINGFACE_CO_URL_TEMPLATE": template,
        "HF_HUB_CACHE": str(cache),
        "HF_TOKEN_PATH": str(cache / "token"),
        "HF_HUB_DISABLE_XET": True,
        "HF_HUB_OFFLINE": False,
    }
    for name, value in values.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", hub.endpoint)
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    if token:
        monkeypatch.setenv("HF_TOKEN", token)


@contextmanager
def serving_hub() -> Iterator[Hub]:
    """Yield a stub that serves on 127.0.0.1 until the end of the block."""
    hub = Hub()

    class Handler(_Handler):
        state = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True  # of connections that the client keeps open
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def git_hash(content: bytes) -> str:
    """The SHA-1 by which git names a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def sha256(content: bytes) -> str:
    """The SHA-256 by which LFS names a file."""
    return hashlib.sha256(content).hexdigest()


def is_lfs(name: str, content: bytes) -> bool:
    """Whether a file lies in the LFS store."""
    return name.endswith(".safetensors") or len(content) >= LFS_BYTES


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: Hub

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def log_message(self, *arguments: object) -> None:
        """Keep quiet."""

    def _answer(self) -> None:
        self.body = self._received()
        path = unquote(urlsplit(self.path).path)
        self.state.requests.append(f"{self.command} {path}")
        failing = [code for start, code in self.state.failures.items() if path.startswith(start)]
        with suppress(ConnectionError):
            if failing:
                self._refuse(failing[0], "", "the stub was told to fail")
            else:
                self._route(path)

    def _route(self, path: str) -> None:
        if path == "/api/whoami-v2":
            self._who_am_i()
        elif path == "/api/validate-yaml":
            self._send_json({"errors": [], "warnings": []})
        elif path == "/api/repos/create":
            self._create()
        elif match := re.fullmatch(r"/lfs/(\w+)", path):
            assert sha256(self.body) == match[1], "the content is not the announced one"
            self.state.lfs[match[1]] = self.body
            self._send(b"")
        elif match := re.fullmatch(r"/(?:(datasets|spaces)/)?(\S+?)\.git/info/lfs/.*", path):
            self._lfs_batch()
        elif match := re.fullmatch(r"/api/(\w+)/([^/]+/[^/]+)(?:/([\w-]+)/([^/]+).*)?", path):
            self._api(match[1], match[2], match[3] or "", match[4] or "main")
        elif match := re.fullmatch(
            r"/(?:(datasets|spaces)/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path
        ):
            self._resolve(match[1] or "models", match[2], match[3], match[4])
        else:
            self._refuse(404, "", f"the stub has no {path}")

    def _who_am_i(self) -> None:
        if self._token() == TOKEN:
            auth = {"type": "access_token", "accessToken": {"role": self.state.role}}
            orgs = [{"type": "org", "name": name} for name in self.state.organisations]
            self._send_json({"type": "user", "name": USER, "orgs": orgs, "auth": auth})
        else:
            self._refuse(401, "", "Invalid credentials in Authorization header")

    def _create(self) -> None:
        wanted = json.loads(self.body)
        name = f"{wanted['organization'] or USER}/{wanted['name']}"
        kind = f"{wanted.get('type') or 'model'}s"
        url = f"{self.state.endpoint}/{'' if kind == 'models' else kind + '/'}{name}"
        if self._token() != TOKEN:
            self._refuse(401, "", "Invalid username or password.")
        elif wanted["organization"] not in (None, USER, *self.state.organisations):
            self._refuse(403, "", f"You don't have the rights to create a model under {name}")
        elif f"{kind}/{name}" in self.state.repositories:
            self._send_json({"error": "You already created this model repo", "url": url}, 409)
        else:
            private = wanted.get("visibility") == "private" or bool(wanted.get("private"))
            self.state.repositories[f"{kind}/{name}"] = Repository(private)
            self._send_json({"url": url, "name": name})

    def _lfs_batch(self) -> None:
        objects = json.loads(self.body)["objects"]
        for one in objects:
            if one["oid"] not in self.state.lfs:
                upload = {"href": f"{self.state.endpoint}/lfs/{one['oid']}"}
                one["actions"] = {"upload": upload}
        self._send_json({"transfer": "basic", "objects": objects})

    def _api(self, kind: str, name: str, action: str, revision: str) -> None:
        repository = self._accessible(kind, name)
        if repository is None:
            return
        commit = repository.at(revision)
        if commit is None:
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        elif action in ("", "revision"):
            siblings = [_sibling(*item) for item in sorted(commit.files.items())]
            values = {"sha": commit.sha, "private": repository.private, "gated": repository.gated}
            self._send_json({"_id": "0", "id": name, "siblings": siblings, **values})
        elif action == "tree":
            self._send_json([_entry(*item) for item in sorted(commit.files.items())])
        elif action == "paths-info":
            wanted = parse_qs(self.body.decode())["paths"]
            found = [(file, commit.files[file]) for file in wanted if file in commit.files]
            self._send_json([_entry(*item) for item in found])
        elif self._token() != TOKEN:
            self._refuse(401, "", "Invalid username or password.")
        elif action == "preupload":
            files = [_preuploaded(one, commit) for one in json.loads(self.body)["files"]]
            self._send_json({"files": files})
        else:
            self._commit(repository, f"{kind}/{name}")

    def _commit(self, repository: Repository, name: str) -> None:
        message, files = "", dict[str, bytes]()
        for line in self.body.splitlines():
            entry: dict[str, Any] = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                message = value["summary"]
            elif entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.state.lfs[value["oid"]]
            else:
                raise AssertionError(f"the stub has no {entry['key']}")
        sha = repository.commit(files, message=message).sha
        url = f"{self.state.endpoint}/{name.removeprefix('models/')}/commit/{sha}"
        self._send_json({"success": True, "commitOid": sha, "commitUrl": url})

    def _resolve(self, kind: str, name: str, revision: str, file: str) -> None:
        repository = self._accessible(kind, name)
        if repository is None:
            return
        commit = repository.at(revision)
        if repository.gated:
            self._refuse(403, "GatedRepo", f"Access to model {name} is restricted")
        elif commit is None:
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        elif file not in commit.files:
            headers = {"X-Repo-Commit": commit.sha}
            self._refuse(404, "EntryNotFound", "Entry not found", headers)
        else:
            self._send_file(file, commit)

    def _send_file(self, name: str, commit: Commit) -> None:
        content, headers = commit.files[name], {"X-Repo-Commit": commit.sha}
        if not is_lfs(name, content):
            self._send(content, headers | {"ETag": f'"{git_hash(content)}"'})
            return
        linked = {"X-Linked-Size": str(len(content)), "X-Linked-Etag": f'"{sha256(content)}"'}
        self._send(content, headers | linked)  # the hub redirects to another host here

    def _accessible(self, kind: str, name: str) -> Repository | None:
        """The repository, if there is one that the client may see; else the refusal is sent."""
        repository, is_known = self.state.repositories.get(f"{kind}/{name}"), self._token() == TOKEN
        if repository is not None and (is_known or not repository.private):
            return repository
        self._refuse(404 if is_known else 401, NOT_FOUND, "Repository not found")
        return None

    def _token(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def _received(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _refuse(
        self, status: int, code: str, message: str, headers: dict[str, str] | None = None
    ) -> None:
        told = {"X-Error-Code": code, "X-Error-Message": message} | (headers or {})
        self._send_json({"error": message}, status, told)

    def _send_json(
        self, values: object, status: int = 200, headers: dict[str, str] | None = None
    ) -> None:
        kind = {"Content-Type": "application/json"}
        self._send(json.dumps(values).encode(), kind | (headers or {}), status=status)

    def _send(
        self, content: bytes, headers: dict[str, str] | None = None, *, status: int = 200
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            if value:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _entry(name: str, content: bytes) -> dict[str, Any]:
    """A file as the hub lists it."""
    entry = {"type": "file", "path": name, "size": len(content), "oid": git_hash(content)}
    lfs = {"oid": sha256(content), "size": len(content), "pointerSize": 134}
    return entry | ({"lfs": lfs} if is_lfs(name, content) else {})


def _sibling(name: str, content: bytes) -> dict[str, Any]:
    """A file as the hub lists it with what a repository holds."""
    lfs = {"sha256": sha256(content), "size": len(content), "pointerSize": 134}
    sibling = {"rfilename": name, "size": len(content), "blobId": git_hash(content)}
    return sibling | ({"lfs": lfs} if is_lfs(name, content) else {})


def _preuploaded(wanted: dict[str, Any], commit: Commit) -> dict[str, Any]:
    """How a file is to be sent, and the name of its content if there is one of its path."""
    name, content = wanted["path"], commit.files.get(wanted["path"])
    by_lfs = name.endswith(".safetensors") or wanted["size"] >= LFS_BYTES
    answer = {"path": name, "uploadMode": "lfs" if by_lfs else "regular", "shouldIgnore": False}
    if content is None:
        return answer
    return answer | {"oid": sha256(content) if is_lfs(name, content) else git_hash(content)}
