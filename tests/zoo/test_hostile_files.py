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
import json, resource, sys, time
import virtex, virtex.predict.loading, virtex.errors
from virtex.zoo.backbones import load_backbone
opened = []
sys.addaudithook(lambda event, args: event == "open" and opened.append(str(args[0])))
for path in sys.argv[1:]:
    opened.clear()
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    ends = []
    for load in (virtex.load_captioner, load_backbone):
        try:
            load(path)
            ends.append("loaded")
        except virtex.errors.CheckpointError:
            ends.append("refused")
        except Exception as error:
            ends.append(repr(error))
    print(json.dumps({
        "ends": ends,
        "other": [name for name in opened if "other" in name],
        "kilobytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before,
        "seconds": time.perf_counter() - start,
    }))
"""
"""Loads each file in turn, and tells how it ended, what else was opened, and what it took."""
CASES: list[tuple[tuple[str, ...], Any]] = [
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
]


def altered(good: Path, out: Path, place: tuple[str, ...], value: Any) -> Path:
    """The weights file with one option of its config set to a value."""
    with safe_open(good, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = dict(file.metadata())
    metadata.pop("virtex_checksum")  # as an attacker would do
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


@pytest.fixture(scope="module")
def outcomes(good: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """How the file itself, and then each case, ended."""
    folder = tmp_path_factory.mktemp("cases")
    paths = [good] + [
        altered(good, folder / f"case{number}.safetensors", *case)
        for number, case in enumerate(CASES)
    ]
    done = subprocess.run(
        [sys.executable, "-c", LOAD, *map(str, paths)],
        cwd=good.parent.parent,
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("number", range(len(CASES)), ids=lambda number: str(CASES[number]))
def test_a_config_in_a_file_runs_opens_and_takes_nothing(
    good: Path, outcomes: list[dict[str, Any]], number: int
) -> None:
    outcome = outcomes[1 + number]
    assert outcome["ends"][0] == "refused"
    assert outcome["ends"][1] in ("refused", "loaded")  # a head does not matter to the backbone
    assert outcome["other"] == []
    assert outcome["kilobytes"] < 300_000
    assert outcome["seconds"] < 20  # wide, for a busy machine; what is not bounded takes minutes
    assert not (good.parent.parent / "CODE_RAN").exists()


def test_the_file_itself_loads(outcomes: list[dict[str, Any]]) -> None:
    assert outcomes[0]["ends"] == ["loaded", "loaded"]
