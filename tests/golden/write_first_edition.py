"""Write tests/golden/first_edition: files as commit c6382b2, the first edition, left them to users.

Runs with that commit alone, since it is the commit's code that must write the files:

    git worktree add ../first c6382b2 && cd ../first
    PYTHONPATH=$PWD/src:$PWD python NEW/tests/golden/write_first_edition.py EMPTY_FOLDER

where NEW is a checkout that holds this script. What today's code must make of the files is measured
by tests/first_edition.py. Weights files are the same but for the order of their metadata, and so
are results but for the digests of those in their names.
"""

import lzma
import os
import shutil
import sys
import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest import mock

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from sentencepiece import SentencePieceTrainer
from torch import Tensor

import virtex.pretrain
from tests.task_options import TASKS
from virtex.cli import main

sys.path.append(str(Path(__file__).parents[1]))
from drawn_images import write_classes, write_photos

CONFIGS = Path(__file__).parent / "first_edition" / "configs"
"""Written by hand, as users do: one extends another, and names its task by class."""
RUNS = ("bicaptioning", "token_classification", "clip")
"""Kept as whole run folders; of the other task forms the weights file alone is kept."""
TARGET = ["--data.source", "scenes", "--data.num_images", "60", "--data.num_val_images", "40",
          "--data.image_size", "64"]  # fmt: skip
SCENES = ["--data.source", "scenes", "--data.num_val_images", "8", "--data.image_size", "64"]
CLASSES = ["--data.root", "classes"]
QUICK = ["--num_workers", "0", "--device", "cpu", "--out", "results"]
MODIFIED_NS = 1_700_000_000_000_000_000
"""When the shard was last changed, which its index remembers and a checkout does not keep."""


def run(*arguments: str, returns: int = 0) -> None:
    """Run one command of the first edition."""
    assert main(list(arguments)) == returns, arguments


def write_vocabulary() -> None:
    """Write a vocabulary of 1 kB: sentencepiece's table of characters would add 240 kB to it."""
    train = partial(SentencePieceTrainer.train, normalization_rule_name="identity")
    with mock.patch.object(SentencePieceTrainer, "train", train):
        run("tokenizer", "--data.num_images", "24", "--vocab_size", "60",
            "--out", "vocabulary.model")  # fmt: skip


def pretrain() -> None:
    """Leave run folders cut at their first checkpoint, and weights files of runs that ended."""
    keep_weights = virtex.pretrain._KeepWeights.__call__

    def cut(self: object, step: int, checkpoint: Path) -> None:
        keep_weights(self, step, checkpoint)
        raise KeyboardInterrupt

    for name in TASKS:
        arguments = ["pretrain", "--config", f"configs/{name}.yaml", "--out", name]
        if name in RUNS:
            with mock.patch.object(virtex.pretrain._KeepWeights, "__call__", cut):
                run(*arguments, returns=130)
        else:
            run(*arguments)
            Path("weights").mkdir(exist_ok=True)
            shutil.move(f"{name}/weights.safetensors", f"weights/{name}.safetensors")
            shutil.rmtree(name)


def transfer() -> None:
    """Write results of the protocols that take seconds, and the features that one keeps."""
    init = ["--init", "bicaptioning"]
    run("transfer", "voc07", "--config", "configs/voc07_small.yaml", *init, *TARGET,
        "--out", "results")  # fmt: skip
    run("transfer", "captioning", *init, *SCENES, *QUICK)
    run("transfer", "retrieval", *init, *SCENES, *QUICK)
    run("transfer", "zero-shot", "--init", "clip", *CLASSES, *QUICK)
    features = set(Path("results/features").iterdir())
    run("transfer", "linear", *init, *CLASSES, "--image_size", "32", *QUICK)
    for folder in set(Path("results/features").iterdir()) - features:
        shutil.rmtree(folder)
    for file in Path("results").iterdir():
        if file.is_file() and file.suffix != ".json":
            file.unlink()


def amplify() -> None:
    """Make captions depend on the image, as they do after longer training, in weights files."""
    shutil.copy("bicaptioning/weights.safetensors", "weights/bicaptioning.safetensors")
    for name in ("bicaptioning", "captioning", "cappa"):
        path = Path(f"weights/{name}.safetensors")
        replace_values(path, shake, prefix="captioner.head.")


def caption() -> None:
    """Write a file of captions that was cut within a line."""
    run("caption", "weights/bicaptioning.safetensors", "photos", "--out", "captions.jsonl",
        "--batch_size", "3", "--num_workers", "0", "--device", "cpu")  # fmt: skip
    content = Path("captions.jsonl").read_bytes()
    ends = [place + 1 for place, byte in enumerate(content) if byte == ord("\n")]
    Path("captions.jsonl").write_bytes(content[: ends[3] + 20])


def index_shard() -> None:
    """Write a tar shard with its index."""
    shard = Path("shards/00000.tar")
    shard.parent.mkdir()
    with tarfile.open(shard, "w") as tar:
        for photo in sorted(Path("photos").iterdir())[:3]:
            text = photo.with_suffix(".txt")
            text.write_text(f"a picture called {photo.stem}\n")
            tar.add(photo)
            tar.add(text)
            text.unlink()
    os.utime(shard, ns=(MODIFIED_NS, MODIFIED_NS))
    run("tokenizer", "--data.source", "webdataset", "--data.root", "shards", "--vocab_size", "24",
        "--out", "shards.model")  # fmt: skip
    Path("shards.model").unlink()


def export() -> None:
    """Write each layout; those that demand a whole ResNet hold a pattern, to be compressed."""
    Path("exported").mkdir()
    for init, layout, name in (
        ("bicaptioning", "timm", "timm.pth"),
        ("bicaptioning", "huggingface", "hub"),
        ("token_classification", "safetensors", "task.safetensors"),
    ):
        run("export", init, "--format", layout, "--out", f"exported/{name}")
    large = ["pretrain", "--config", "configs/bicaptioning.yaml", "--run.num_steps", "1",
             "--backbone.options", "{}", "--num_samples", "0", "--task.head.num_heads", "1",
             "--task.head.hidden_size", "64"]  # fmt: skip
    for layout, backbone in (("torchvision", "resnet50"), ("original", "resnet18")):
        run(*large, "--backbone.name", backbone, "--out", backbone)
        replace_values(Path(backbone, "weights.safetensors"), pattern)
        path = Path(f"exported/{layout}.pth")
        run("export", backbone, "--format", layout, "--out", str(path))
        shutil.rmtree(backbone)


def shake(value: Tensor) -> Tensor:
    """Replace a matrix by large random numbers, and leave other weights."""
    rng = torch.Generator().manual_seed(len(value))
    return torch.randn(value.shape, generator=rng) if value.ndim > 1 else value


def pattern(value: Tensor) -> Tensor:
    """Replace a weight by a pattern of period 61, which compresses well."""
    if not value.is_floating_point():
        return value
    low, high = (-1, 1) if value.ndim > 1 else (0.5, 1)
    fan_in = value[0].numel() if value.ndim > 1 else 1
    period = torch.linspace(low, high, 61) / fan_in**0.5
    return period.repeat(value.numel() // 61 + 1)[: value.numel()].view_as(value)


def replace_values(path: Path, change: Callable[[Tensor], Tensor], *, prefix: str = "") -> None:
    """Change the tensors of a weights file whose names begin with `prefix`."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    state = load_file(path)
    new = {name: change(value) for name, value in state.items() if name.startswith(prefix)}
    save_file({**state, **new}, path, metadata)


def write(folder: Path) -> None:
    """Write everything below an empty folder; paths in the files are relative to it."""
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    write_photos(Path("photos"))
    write_classes(Path("classes"))
    shutil.copytree(CONFIGS, "configs")
    write_vocabulary()
    pretrain()
    amplify()
    caption()
    transfer()
    run("study", "configs/study.yaml", "--out", "study")
    for features in list(Path("study").rglob("features")):
        shutil.rmtree(features)
    Path("study/token_bags/seed_0/weights.safetensors").unlink()
    index_shard()
    export()
    for images in ("photos", "classes"):
        shutil.rmtree(images)
    for path in [*folder.rglob("*.pt"), *folder.rglob("*.pth")]:
        path.with_name(f"{path.name}.xz").write_bytes(lzma.compress(path.read_bytes()))
        path.unlink()


if __name__ == "__main__":
    write(Path(sys.argv[1]).resolve())
