"""Weights files whose config tries to run, open or fetch something, or to take all memory."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from tests.demo.small_run import write_run

HELPER = "from pathlib import Path\nPath('CODE_RAN').write_text('x')\nclass Config:\n    pass\n"
LOAD = """
import resource, sys, time
import virtex, virtex.predict.loading, virtex.errors
from virtex.zoo.backbones import load_backbone
opened = []
sys.addaudithook(lambda event, args: event == "open" and opened.append(str(args[0])))
before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
for load in (virtex.load_captioner, load_backbone):
    try:
        load(sys.argv[1])
        print("loaded")
    except virtex.errors.CheckpointError as error:
        print("refused", error)
kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print("other files", sum("other" in path for path in opened))
print("fits", kilobytes < 300_000 and time.perf_counter() - start < 20)
"""
"""Bounds are wide, so that a busy machine does not fail them; unbounded sizes take gigabytes."""


def altered(good: Path, out: Path, place: tuple[str, ...], value: Any) -> Path:
    """The weights file with one option of its config set to a value."""
    with safe_open(good, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = dict(file.metadata())
    config = json.loads(metadata["config"])
    inner = config
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    save_file(tensors, out, {**metadata, "config": json.dumps(config)})
    return out


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "helper.py").write_text(HELPER)
    torch.save({}, folder / "other.pth")
    return write_run(folder / "run") / "weights.safetensors"


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("task",), "helper.Config"),
        (("image",), "helper.Config"),
        (("backbone",), "helper.Config"),
        (("task", "class_path"), "helper.Config"),
        (("backbone", "options", "checkpoint_path"), "other.pth"),
        (("backbone", "options", "pretrained_cfg_overlay"), {"file": "other.pth"}),
        (("backbone", "options", "pretrained_cfg"), "other"),
        (("backbone", "options", "channels"), [1 << 20] * 4),
        (("backbone", "options", "channels"), [1 << 14] * 4),
        (("backbone", "options", "layers"), [1_000_000, 1, 1, 1]),
        (("backbone", "name"), "local-dir:."),
        (("backbone", "name"), "hf-hub:other/name"),
        (("task", "init_args", "head", "hidden_size"), 1 << 20),
        (("task", "init_args", "head", "hidden_size"), 1 << 14),
        (("task", "init_args", "head", "num_layers"), 1_000_000),
        (("task", "init_args", "head", "max_tokens"), 1_000_000_000),
    ],
)
def test_a_config_in_a_file_runs_opens_and_takes_nothing(
    good: Path, tmp_path: Path, place: tuple[str, ...], value: Any
) -> None:
    folder = good.parent.parent
    path = altered(good, tmp_path / "weights.safetensors", place, value)
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(path)], cwd=folder, capture_output=True, text=True
    )
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0].startswith("refused")
    assert not (folder / "CODE_RAN").exists()
    assert lines[-2:] == ["other files 0", "fits True"]


def test_backbone_options_of_the_file_itself_load(good: Path, tmp_path: Path) -> None:
    """The same path through the loader with nothing hostile in it."""
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(good)], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout.splitlines() == ["loaded", "loaded", "other files 0", "fits True"]
