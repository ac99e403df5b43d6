"""`virtex export --push` by the command line, against the stub of the hub, and what loads there."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import timm
import torch
import yaml
from PIL import Image

from tests.demo.small_run import write_run
from tests.hub_stub import TOKEN, Hub, Repository, serving_hub, use_hub
from tests.small_run import small_config
from tests.zoo.timm_folder import RESNET, written
from virtex.cli import main
from virtex.demo.demo_config import parse_demo
from virtex.predict.loading import load_captioner
from virtex.pretrain import pretrain
from virtex.zoo.backbones import load_backbone
from virtex.zoo.init import open_init

NAME = "someone/captioner"
QUIET = ["--num_workers", "0", "--device", "cpu"]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving_hub() as hub:
        use_hub(monkeypatch, hub, cache=tmp_path / "hub")
        yield hub


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run")


def pushed(init: Path | str, out: Path, *arguments: str, name: str = NAME) -> int:
    command = ["export", str(init), "--format", "huggingface", "--out", str(out)]
    return main([*command, "--push", name, *arguments])


def test_a_pushed_run_is_an_init_and_a_model_of_timms(
    hub: Hub, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pushed(run, tmp_path / "out", "--license", "cc-by-4.0") == 0
    shown = capsys.readouterr()
    assert shown.out == f"{tmp_path / 'out'}\n"
    assert f"pushed 4 files: {hub.endpoint}/{NAME}/commit/" in shown.err
    assert TOKEN not in shown.err
    assert hub.model(NAME).commits[-1].message == "Add resnet18 at step 1"
    there, here = open_init(f"hf-hub:{NAME}"), open_init(run)
    assert (there.kind, there.step, there.tokenizer) == ("run", here.step, here.tokenizer)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    network = timm.create_model(f"hf-hub:{NAME}", pretrained=True).eval()
    with torch.no_grad():
        grid = load_backbone(f"hf-hub:{NAME}")(images)
        torch.testing.assert_close(network.forward_features(images), grid, rtol=0, atol=0)
        torch.testing.assert_close(load_backbone(run)(images), grid, rtol=0, atol=0)
    load_captioner(f"hf-hub:{NAME}")


def test_every_command_takes_an_init_of_the_hub(hub: Hub, run: Path, tmp_path: Path) -> None:
    assert pushed(run, tmp_path / "out") == 0
    Image.new("RGB", (80, 70), "red").save(tmp_path / "photo.jpg")
    init, photo, flag = f"hf-hub:{NAME}@main", str(tmp_path / "photo.jpg"), "--out"
    assert main(["caption", init, photo, flag, str(tmp_path / "captions.jsonl")]) == 0
    assert "photo.jpg" in (tmp_path / "captions.jsonl").read_text()
    assert main(["embed", init, photo, flag, str(tmp_path / "vectors.npz")]) == 0
    assert main(["export", init, "--format", "timm", flag, str(tmp_path / "timm.pth")]) == 0
    assert parse_demo([init]).init == init
    trained = small_config(tmp_path / "next", "--init", init, "--run.num_steps", "1")
    pretrain(trained)
    assert json.loads((tmp_path / "next" / "data.json").read_text())
    words = [
        "transfer",
        "voc07",
        "--leave_out_rare",
        "--init",
        init,
        flag,
        str(tmp_path / "results"),
    ]
    data = ["--data.source", "scenes", "--data.num_images", "24", "--data.num_val_images", "8"]
    assert main([*words, *data, "--data.image_size", "64", "--image_size", "64", *QUIET]) == 0
    (result,) = (tmp_path / "results").glob("*.json")
    assert json.loads(result.read_text())["initialisation"]["init"] == init


def test_the_card_says_how_to_load_it_from_the_hub(hub: Hub, run: Path, tmp_path: Path) -> None:
    assert pushed(run, tmp_path / "out", "--license", "cc-by-4.0", "--private") == 0
    card = hub.model(NAME).files["README.md"].decode()
    head = yaml.safe_load(card.split("---\n")[1])
    assert (head["license"], head["library_name"]) == ("cc-by-4.0", "timm")
    assert "# captioner\n" in card
    assert 'timm.create_model("hf-hub:someone/captioner", pretrained=True)' in card
    assert 'virtex.load_captioner("hf-hub:someone/captioner")' in card
    assert "The licence of the weights is cc-by-4.0." in card
    assert "## Limits" in card
    assert hub.model(NAME).private


def test_the_same_push_again_makes_no_commit_and_deletes_nothing(
    hub: Hub, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pushed(run, tmp_path / "out") == 0
    hub.model(NAME).commit({"mine.txt": b"notes", "README.md": b"edited"}, message="mine")
    (tmp_path / "out" / "secret.txt").write_text("of nobody's business")
    for told in ("pushed 4 files", "holds exactly these files: no new commit"):
        assert pushed(run, tmp_path / "out", "--overwrite") == 0
        assert told in capsys.readouterr().err
    messages = [commit.message for commit in hub.model(NAME).commits]
    assert messages == ["initial commit", "Add resnet18 at step 1", "mine", messages[1]]
    assert hub.model(NAME).files.keys() >= {"mine.txt", "weights.safetensors"}
    assert "secret.txt" not in hub.model(NAME).files


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("--push captioner", r"push 'captioner' is no OWNER/NAME .* like someone/my-backbone"),
        ("--push a/b/c", r"push 'a/b/c' is no OWNER/NAME"),
        ("--push someone/-x", r"push 'someone/-x' is no OWNER/NAME"),
        ("--private", r"private has no effect without push"),
        ("--license", r"license 'My own' is no name of a licence: write it like cc-by-4.0"),
        ("--format timm --push a/b", r"push has no effect with --format timm"),
    ],
)
def test_what_cannot_be_pushed_is_told_before_anything_else(
    arguments: str,
    told: str,
    hub: Hub,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = arguments.split() + (["My own"] if arguments == "--license" else [])
    out = tmp_path / "out.pth" if "timm" in arguments else tmp_path / "out"
    command = ["export", "no such run", "--format", "huggingface", "--out", str(out), *words]
    assert main(command) == 2
    assert_told(told, capsys)
    assert hub.requests == []


def assert_told(told: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown = capsys.readouterr().err
    with pytest.raises(AssertionError, match=told):
        raise AssertionError(shown)


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ("nobody", r"nobody is logged in. To do so, log in \(`hf auth login`\) or set"),
        ("offline", r"HF_HUB_OFFLINE is set. Unset it, or leave out --push"),
        ("wrong token", r"the hub does not know the token"),
        ("only reads", r"the token may only read"),
        ("no network", r"Is there a network\? If not, push later"),
        ("public", r"exists and is public, so that a push to it is not private"),
    ],
)
def test_who_may_not_push_is_told_before_the_work(
    state: str,
    told: str,
    hub: Hub,
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if state == "nobody":
        monkeypatch.delenv("HF_TOKEN")
    elif state == "offline":
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    elif state == "wrong token":
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
    elif state == "only reads":
        hub.role = "read"
    elif state == "public":
        hub.model(NAME)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        if state == "no network":
            address = f"http://127.0.0.1:{unused.getsockname()[1]}"
            monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        assert pushed(run, tmp_path / "out", *(["--private"] if state == "public" else [])) == 2
    assert_told(f"ConfigError: (cannot push to )?{NAME}.*{told}", capsys)
    assert not (tmp_path / "out").exists()


def test_a_name_of_others_is_refused_before_the_work(
    hub: Hub, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.organisations = ["our-group"]
    assert pushed(run, tmp_path / "out", name="others/captioner") == 2
    assert_told(r"token is of someone, our-group, and may not write to names of others", capsys)
    assert not (tmp_path / "out").exists()
    assert hub.repositories == {}
    assert pushed(run, tmp_path / "out", name="our-group/captioner") == 0


def test_a_folder_stays_where_the_hub_refuses_a_name_that_it_seemed_to_allow(
    hub: Hub, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.failures["/api/repos/create"] = 403
    assert pushed(run, tmp_path / "out") == 2
    assert_told(r"the token has not the right .*may write to this name.*out is written", capsys)
    assert (tmp_path / "out" / "README.md").is_file()
    assert hub.repositories == {}


def test_files_of_another_model_are_not_left_beside_these(
    hub: Hub, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pushed(run, tmp_path / "out") == 0
    written(tmp_path / "timm", RESNET)
    assert pushed(tmp_path / "timm", tmp_path / "backbone") == 2
    assert_told("holds weights.safetensors of another model, which would be read", capsys)
    assert len(hub.model(NAME).commits) == 2


def test_a_head_of_a_card_that_the_hub_refuses_is_told(
    hub: Hub, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.failures["/api/validate-yaml"] = 400
    assert pushed(run, tmp_path / "out", "--license", "nothing") == 2
    assert_told("cannot push to someone/captioner: Invalid metadata in README.md", capsys)


def test_an_unfinished_push_changes_nothing(
    hub: Hub, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.repositories[f"models/{NAME}"] = Repository(private=True)
    hub.failures[f"/api/models/{NAME}/commit"] = 403
    assert pushed(run, tmp_path / "out", "--private") == 2
    assert_told("the token has not the right", capsys)
    assert len(hub.model(NAME).commits) == 1
