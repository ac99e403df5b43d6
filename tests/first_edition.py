"""Measurements of the files in tests/golden/first_edition, by today's code.

`python -m tests.first_edition` wrote measured.json there, with the code of commit c6382b2.
"""

import hashlib
import json
import lzma
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

import virtex
from tests.drawn_images import photo, write_classes, write_photos
from virtex.cli import main
from virtex.models.backbone import BackboneConfig

EDITION = Path(__file__).parent / "golden" / "first_edition"
CUT_RUNS = ("bicaptioning", "token_classification", "clip")
WEIGHTS = tuple(sorted(path.name for path in (EDITION / "weights").glob("*.safetensors")))
TASKS = (*CUT_RUNS, *(f"weights/{name}" for name in WEIGHTS))
"""INITs that hold a whole task."""
BACKBONES = (
    *TASKS,
    *(f"{name}/checkpoints/step_00000006.pt" for name in CUT_RUNS),
    *("exported/hub", "exported/task.safetensors", "exported/timm.pth", "exported/torchvision.pth"),
)
CAPTIONERS = (
    "bicaptioning",
    "bicaptioning/checkpoints/step_00000006.pt",
    "exported/hub",
    "exported/original.pth",
    *(f"weights/{name}.safetensors" for name in ("bicaptioning", "cappa", "captioning")),
)
CAPTION = ("caption", "weights/bicaptioning.safetensors", "photos", "--out", "captions.jsonl",
           "--batch_size", "3", "--num_workers", "0", "--device", "cpu")  # fmt: skip
TEXT = "a dog in the garden"
SMALL = BackboneConfig(
    "resnet18",
    options={
        "layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8], "stem_type": "deep", "stem_width": 8
    },
)  # fmt: skip
"""The architecture, which bare weights do not tell."""


def unpack(folder: Path) -> Path:
    """Copy the files, and draw the images that they were made from."""
    shutil.copytree(EDITION, folder)
    for packed in folder.rglob("*.xz"):
        packed.with_suffix("").write_bytes(lzma.decompress(packed.read_bytes()))
        packed.unlink()
    write_photos(folder / "photos")
    write_classes(folder / "classes")
    return folder


def digest(state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of names and bytes."""
    total = hashlib.sha256()
    for name, value in sorted(state.items()):
        total.update(name.encode())
        total.update(value.detach().contiguous().reshape(-1).view(torch.uint8).numpy())
    return total.hexdigest()


def records(run: str | Path) -> list[dict[str, float]]:
    """Read the log of a run."""
    return [json.loads(line) for line in (Path(run) / "log.jsonl").read_text().splitlines()]


@torch.no_grad()
def backbone(init: str) -> dict[str, Any]:
    """Measure a backbone: its weights, and the sum of an image's pooled features."""
    config = SMALL if init == "exported/timm.pth" else None
    loaded = virtex.load_backbone(init, config=config)
    image = torch.linspace(-2, 2, 3 * 32 * 32).view(1, 3, 32, 32)
    features = loaded(image).mean((2, 3)).double()  # (1, C)
    return {"sha256": digest(loaded.state_dict()), "features": features.sum().item()}


def task(init: str) -> str:
    """Return the digest of a whole task's weights, by way of `virtex export`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "task.safetensors")
        assert main(["export", init, "--format", "safetensors", "--out", str(path)]) == 0
        return digest(load_file(path))


def captioner(init: str) -> dict[str, Any]:
    """Measure a captioner: its weights, and captions of two images."""
    tokenizer = "vocabulary.model" if init == "exported/original.pth" else None
    predictor = virtex.load_captioner(init, tokenizer=tokenizer)
    photos = [photo(0), photo(5)]
    captions = predictor.caption(photos)
    return {
        "sha256": digest(predictor.captioner.state_dict()),
        "captions": [caption.text for caption in captions],
        "log_likelihoods": [caption.log_likelihood for caption in captions],
        "scores": predictor.score(photos, [TEXT, TEXT]),
    }


def embedder() -> list[float]:
    """Return the similarity of two images to a text."""
    model = virtex.load_embedder("clip")
    images, texts = model.embed_images([photo(0), photo(5)]), model.embed_texts(TEXT)
    return (images @ texts.T).flatten().tolist()


def resumed(run: str) -> dict[str, Any]:
    """Resume a run to its end, and return its losses and the norm of each weight."""
    assert main(["pretrain", "--out", run]) == 0
    state = load_file(Path(run, "weights.safetensors"))
    state.pop("tokenizer")
    return {
        "losses": [one["train/loss"] for one in records(run) if "train/loss" in one],
        "norms": {name: value.double().norm().item() for name, value in state.items()},
    }


def captions() -> list[dict[str, Any]]:
    """Finish a file of captions that was cut, and return its rows."""
    assert main(list(CAPTION)) == 0
    return [json.loads(line) for line in Path("captions.jsonl").read_text().splitlines()]


def measure() -> dict[str, Any]:
    """Measure everything, below the working folder."""
    return {
        "backbones": {init: backbone(init) for init in BACKBONES},
        "tasks": {init: task(init) for init in TASKS},
        "captioners": {init: captioner(init) for init in CAPTIONERS},
        "embedder": embedder(),
        "captions": captions(),
        "resumed": {run: resumed(run) for run in CUT_RUNS},
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        os.chdir(unpack(Path(temporary, "edition")))
        text = json.dumps(measure(), indent=1) + "\n"
    (EDITION / "measured.json").write_text(text)
