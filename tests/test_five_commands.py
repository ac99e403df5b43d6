"""README's five commands, from own pairs to a published model, as a newcomer types them.

The first one installs a copy of the package, which the others then run. The hub is a stub.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import timm
import torch

import virtex
from tests.hub_stub import USER, Hub, serving_hub, use_hub
from virtex.data.layouts import write_scenes

ROOT = Path(__file__).resolve().parents[1]
HEADING = "## From your own pairs to a published model"
PROJECT = ("src", "pyproject.toml", "README.md", "LICENSE")
TOY = (
    "--image.size 64 --tokenizer.vocab_size 250 --run.batch_size 8 --run.num_steps 4 "
    "--run.precision fp32 --loader.num_workers 0 --task.head.hidden_size 64 --num_samples 2 "
    "--processes 1"
)
NAME = f"{USER}/birds"
SECONDS = 120
ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+")


def commands() -> list[str]:
    """Return the commands of README's section."""
    section = (ROOT / "README.md").read_text().split(f"{HEADING}\n")[1]
    return re.findall(r"^    (.+)$", section.split("\n\n")[0], re.MULTILINE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A newcomer's folder with pairs and labelled images."""
    folder = tmp_path_factory.mktemp("newcomer")
    write_scenes("sidecar", folder / "PAIRS", num_train=60, num_val=0, image_size=64)
    write_scenes("imagenet", folder / "CLASSES", num_train=60, num_val=20, image_size=64)
    return folder


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with serving_hub() as hub:
        yield hub


@pytest.fixture(scope="module")
def environment(folder, hub) -> dict[str, str]:
    """The environment with the copy that the first command installs."""
    project = folder / "project"
    project.mkdir()
    for name in PROJECT:
        source = ROOT / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, project / name)
    site = folder / "site"
    # The dependencies are here already, those of the build too.
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--target", str(site)]
    install = shlex.split(commands()[0])
    subprocess.run([sys.executable, "-m", *install, *options], cwd=project, check=True)
    return (
        os.environ
        | hub.environment(folder / "hub")
        | {
            "PYTHONPATH": str(site),
            "OMP_NUM_THREADS": "1",
        }
    )


def typed(command: str, folder: Path, options: str = "") -> list[str]:
    """Return the words of a command of the installed copy."""
    name, *words = shlex.split(command.replace("USER/NAME", NAME))
    assert name == "virtex"
    return [sys.executable, str(folder / "site" / "bin" / name), *words, *shlex.split(options)]


def test_pairs_become_a_published_model(folder, hub, environment, tmp_path, monkeypatch):
    install, pretrain, transfer, export, demo = commands()
    assert install == "pip install '.[demo]'"
    for command, options in (
        (pretrain, TOY),
        (transfer, "--image_size 64 --num_workers 0"),
        (export, ""),
    ):
        words = typed(command, folder, options)
        done = subprocess.run(
            words, cwd=folder, env=environment, text=True, capture_output=True, timeout=SECONDS
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"

    results = [json.loads(path.read_text()) for path in (folder / "RUN/results").glob("*.json")]
    assert [result["protocol"] for result in results] == ["linear"]
    assert "model.safetensors" in hub.model(NAME).files

    use_hub(monkeypatch, hub, cache=tmp_path / "cache")
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = virtex.load_backbone(str(folder / "RUN"))(images)
    assert torch.allclose(virtex.load_backbone(f"hf-hub:{NAME}")(images), expected, atol=1e-5)
    model = timm.create_model(f"hf-hub:{NAME}", pretrained=True).eval()
    assert torch.allclose(model.forward_features(images), expected, atol=1e-5)

    with subprocess.Popen(
        typed(demo, folder, "--port 0"), cwd=folder, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as server:  # fmt: skip
        try:
            assert server.stdout is not None
            address = next(found[0] for found in map(ADDRESS.search, server.stdout) if found)
            with urllib.request.urlopen(address, timeout=SECONDS) as page:
                assert b"<html" in page.read()
        finally:
            server.terminate()
