"""Models on the hub, by its stub: at a revision, of one commit, bounded, and refused in words."""

import os
import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants

from tests.hub_stub import Hub, Repository, serving_hub, use_hub
from tests.tasks.two_processes import in_processes
from tests.zoo.timm_folder import RESNET, written
from virtex import distributed
from virtex.errors import CheckpointError
from virtex.models.backbone import BackboneConfig
from virtex.zoo.backbones import load_backbone, whole_architecture
from virtex.zoo.init import open_init_in_all


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The stub of the hub, with a model of timm's."""
    with serving_hub() as hub:
        use_hub(monkeypatch, hub, cache=tmp_path / "hub")
        written(tmp_path / "timm", RESNET)
        files = {path.name: path.read_bytes() for path in (tmp_path / "timm").iterdir()}
        repository = hub.model("someone/small")
        repository.refs["v1"] = repository.commit(files).sha
        repository.commit({"config.json": b"{}"})
        yield hub


def whole(name: str) -> BackboneConfig:
    return whole_architecture(BackboneConfig(name), image_size=64)


def test_a_repository_of_timms_is_an_init_at_a_revision(hub: Hub) -> None:
    assert load_backbone("hf-hub:someone/small@v1").config.options["layers"] == [1, 1, 1, 1]
    assert whole("hf-hub:someone/small@v1").name == RESNET.name
    with pytest.raises(CheckpointError, match=r"config.json states no architecture"):
        load_backbone("hf-hub:someone/small")
    hub.model("someone/small").commit({"config.json": b"{}", "more.json": b"{}"})
    hub.requests.clear()
    load_backbone("hf-hub:someone/small@v1")
    assert not any(request.startswith("GET /someone") for request in hub.requests), "cached"


def test_weights_and_config_are_of_one_commit(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    download = huggingface_hub.hf_hub_download

    def then_a_push(name: str, file: str, **options: Any) -> str:
        path = download(name, file, **options)
        hub.model(name).commit({"model.safetensors": b"of another network"})
        return path

    monkeypatch.setattr("virtex.zoo.hub_client.hf_hub_download", then_a_push)
    hub.model("someone/small").commit(hub.model("someone/small").commits[1].files)
    load_backbone("hf-hub:someone/small")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("someone/absent", r"no such repository, or it is private.*hf auth login.*HF_TOKEN"),
        ("someone/private", r"no such repository, or it is private.*hf auth login.*HF_TOKEN"),
        ("someone/gated", r"granted on request.*terms at http\S+/someone/gated, and log in \("),
        ("someone/small@v9", r"no revision 'v9'.*/someone/small/tree/main lists"),
        ("someone/empty", r"holds no weights.safetensors; nor config.json with model.safetensors"),
        ("someone/broken", r"the hub answers 500.*Try again later.*local-dir:FOLDER"),
        ("someone/denied", r"the token has not the right.*may read it.*HF_TOKEN"),
        ("someone/busy", r"too many requests.*Wait"),
        ("a b", r"'a b' is no name of a repository. Write OWNER/NAME"),
        ("", r"'' is no name"),
    ],
)
def test_what_the_hub_refuses_is_told_in_words(
    name: str, told: str, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    files = hub.model("someone/small").commits[1].files
    hub.repositories["models/someone/private"] = Repository(private=True)
    hub.repositories["models/someone/gated"] = Repository(gated=True)
    hub.model("someone/gated").commit(files)
    hub.model("someone/empty")
    for owned, status in {"broken": 500, "denied": 403, "busy": 429}.items():
        hub.failures[f"/api/models/someone/{owned}"] = status
    with pytest.raises(CheckpointError, match=told):
        load_backbone(f"hf-hub:{name}")


def test_a_token_that_the_hub_does_not_know_is_never_shown(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.failures["/api/models/someone/small"] = 401
    with pytest.raises(CheckpointError, match="hf auth login") as caught:
        load_backbone("hf-hub:someone/small")
    assert "hf_secret" not in str(caught.value)


def test_a_file_that_is_too_large_is_not_downloaded(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("virtex.zoo.hub.MAX_BYTES", 2000)
    with pytest.raises(CheckpointError, match=r"model.safetensors .* more than the 2,000 allowed"):
        load_backbone("hf-hub:someone/small@v1")
    assert not any("resolve" in request for request in hub.requests)


def test_the_cache_serves_where_the_hub_does_not_answer(
    hub: Hub, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_backbone("hf-hub:someone/small@v1")
    hub.failures["/"] = 404
    load_backbone("hf-hub:someone/small@v1")
    assert "takes hf-hub:someone/small@v1 from the hub's cache" in caplog.text
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", "elsewhere")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        with pytest.raises(CheckpointError, match=r"Connect.*Is there a network\? If not, fetch"):
            load_backbone("hf-hub:someone/small@v1")


def open_in_all(environment: dict[str, str], out: Path) -> None:
    """Open the INIT in a process of a group; the second one comes to it after another push."""
    for name, value in environment.items():
        setattr(constants, name, value)
    huggingface_hub.hf_api.api.endpoint = environment["ENDPOINT"]
    os.environ["no_proxy"] = "127.0.0.1"
    found = open_init_in_all("hf-hub:someone/small")
    (out / f"rank_{distributed.rank()}").write_text(f"{found.init} {found.path.parent.name}")


def test_all_processes_of_a_run_read_the_commit_that_the_main_one_finds(
    hub: Hub, tmp_path: Path
) -> None:
    repository = hub.model("someone/small")
    commit = repository.commit(repository.commits[1].files)
    names = ("ENDPOINT", "HUGGINGFACE_CO_URL_TEMPLATE", "HF_HUB_CACHE")
    environment = {name: getattr(constants, name) for name in names}
    in_processes(2, partial(open_in_all, environment, tmp_path))
    texts = [(tmp_path / f"rank_{rank}").read_text() for rank in range(2)]
    assert texts == [f"hf-hub:someone/small {commit.sha}"] * 2
    newest = [one for one in hub.requests if one == "GET /api/models/someone/small"]
    assert len(newest) == 1
