"""A run folder as `virtex quickstart` leaves one: log, samples, results, timings."""

import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from virtex.transfer.protocol import Result

CAPTIONS = (
    ("a red circle left of a small blue square", "a large red circle beside a blue square"),
    ("two dogs run across wet sand", "two brown dogs playing on the beach at low tide"),
    ("a green triangle above <b>three</b> circles", "a triangle | and some circles"),
    ("a man riding a wave on top of a surfboard", "a surfer in a black suit on a big wave"),
)


def write_log(folder: Path, *, num_steps: int = 2000, every: int = 10) -> None:
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    records: list[dict[str, float | None]] = []
    for step in range(every, num_steps + 1, every):
        fall = 4.6 * math.exp(-step / (0.22 * num_steps))
        forward, backward = (1.15 + fall + 0.1 * rng.normal() + extra for extra in (0, 0.12))
        scale = min(step / 100, 0.5 * (1 + math.cos(math.pi * step / num_steps)))
        records.append(
            {
                "step": step,
                "train/loss": forward + backward,
                "train/captioning_forward": forward,
                "train/captioning_backward": backward,
                "train/grad_norm": None if step == every else 2 + rng.random(),
                "train/lr": 0.001 * scale,
                "train/backbone_lr": 0.2 * scale,
                "speed/images_per_second": 540 + 15 * rng.normal(),
                "speed/data_wait": 0.04,
            }
        )
        if step % (num_steps // 8) == 0:
            losses = {"captioning_forward": 1.3 + fall, "captioning_backward": 1.45 + fall}
            losses["loss"] = sum(losses.values())
            records.append({"step": step, **{f"val/{key}": loss for key, loss in losses.items()}})
    (folder / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def write_config(folder: Path) -> None:
    config = {
        "data": {"source": "scenes", "root": None},
        "backbone": {"name": "resnet18"},
        "task": {"class_path": "virtex.tasks.captioning.CaptioningConfig"},
        "image": {"size": 64},
        "optim": {"lr": 0.001, "backbone_lr": 0.2},
        "run": {"num_steps": 2000, "batch_size": 64},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


def write_samples(folder: Path) -> None:
    (folder / "samples").mkdir()
    samples = []
    for number, captions in enumerate(CAPTIONS):
        shade = np.linspace(40, 215, 96, dtype=np.uint8)
        pixels = np.stack([np.tile(shade, (72, 1)), *[np.full((72, 96), 60 * number)] * 2], axis=2)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / "samples" / f"{number}.jpg")
        said = captions[0].replace("small ", "")
        samples.append(
            {
                "image": f"samples/{number}.jpg",
                "generated": said,
                "log_likelihood": -4.25 - number,
                "captions": captions,
            }
        )
    (folder / "samples.json").write_text(json.dumps({"step": 2000, "samples": samples}))


def make_result(init: str, score: float, **changes: object) -> Result:
    values: dict[str, object] = {
        "protocol": "voc07",
        "headline": "mAP",
        "numbers": {"mAP": score, "AP/cat": score - 3, "num_train": 2500.0, "num_test": 2508.0},
        "settings": {"image_size": 64},
        "initialisation": {
            "init": init,
            "step": None,
            "sha256": hashlib.sha256(init.encode()).hexdigest(),
        },
        "data": {
            "train": {"source": "voc", "images": 2500, "split": "train"},
            "test": {"source": "voc", "images": 2508, "split": "val"},
        },
        "seed": 0,
        "versions": {"python": "3.12.1", "torch": "2.11.0"},
        "device": "cpu",
        "seconds": 41.2,
    }
    return Result(**{**values, **changes})  # type: ignore[arg-type]


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """OUT with a run OUT/pretrain, OUT/results and OUT/timings.json."""
    return build(tmp_path / "quickstart")


def build(out: Path) -> Path:
    run = out / "pretrain"
    write_log(run)
    write_config(run)
    write_samples(run)
    for init, score in (("random", 21.37), (str(run), 48.92), ("imagenet", 45.01)):
        make_result(init, score).write(out / "results")
    scenes = {"protocol": "held-out scenes", "data": {"train": {"source": "scenes"}}}
    for init, score in (("random", 62.4), (str(run), 96.1)):
        make_result(init, score, **scenes).write(out / "results")
    timings = {"draw scenes": 6.2, "tokenizer": 0.9, "pretrain": 214.0, "transfer": 33.3}
    (out / "timings.json").write_text(json.dumps(timings))
    return out
