"""Each command opens the weights file of its INIT once, for weights and record alike."""

import sys
from pathlib import Path

import pytest

from tests.demo.small_run import write_run
from virtex.cli import main

_paths: list[str] = []
sys.addaudithook(lambda event, args: event == "open" and _paths.append(str(args[0])))
SCENES = "--data.source scenes --data.num_images 8 --data.num_val_images 4 --data.image_size 64"
FAST = "--num_workers 0 --batch_size 4"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("opened_once") / "run")


@pytest.mark.parametrize(
    "command",
    [
        f"transfer captioning --init RUN {SCENES} {FAST} --out OUT",
        f"transfer retrieval --init RUN {SCENES} {FAST} --out OUT",
        f"transfer voc07 --init RUN {SCENES} {FAST} --image_size 32 --labels 0.9 --num_seeds 2"
        " --leave_out_rare --data.num_images 40 --data.num_val_images 20 --out OUT",
        "export RUN --format timm --out OUT/model.safetensors",
        "export RUN --format huggingface --out OUT/model",
    ],
)
def test_a_command_opens_the_weights_file_once(run: Path, tmp_path: Path, command: str) -> None:
    _paths.clear()
    words = [
        word.replace("RUN", str(run)).replace("OUT", str(tmp_path)) for word in command.split()
    ]
    assert main(words) == 0
    assert _paths.count(str(run / "weights.safetensors")) == 1
