"""Runs of a minute that learn, and runs that go wrong in a known way, for the monitors."""

import json
import random
import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.small_run import small_config
from tests.task_options import task_flags
from virtex.data.layouts import write_scenes
from virtex.pretrain import pretrain

NUM_STEPS = 500
OPTIONS = f"""
data: {{source: coco}}
image: {{scale: [0.8, 1.0], jitter_prob: 0.0, validation_resize: 64}}
backbone: {{options: {{layers: [1, 1, 1, 1], channels: [16, 32, 64, 128]}}}}
run: {{num_steps: {NUM_STEPS}, batch_size: 32, log_every: 10, validate_every: 100,
  checkpoint_every: 0}}
num_samples: 0
"""


@dataclass(frozen=True)
class Seeded:
    """A run that goes wrong."""

    task: str
    options: str = ""
    data: str = "plain"
    """How the data are spoiled: a function below."""
    alarms: tuple[str, ...] = ()
    """Alarms of which one must be raised."""


FAILURES = {
    "rate_100_times": Seeded(
        "bicaptioning",
        "optim: {lr: 0.3, backbone_lr: 0.3}",
        alarms=("stuck_at_chance", "loss_rises", "features_collapse"),
    ),
    "rate_of_zero": Seeded(
        "bicaptioning", "optim: {lr: 0.0, backbone_lr: 0.0}", alarms=("stuck_at_chance",)
    ),
    "shuffled_captions": Seeded(
        "bicaptioning", data="shuffled_captions", alarms=("ignores_image",)
    ),
    "shuffled_captions_clip": Seeded(
        "clip", data="shuffled_captions", alarms=("stuck_at_chance", "ignores_image")
    ),
    "shuffled_captions_tokens": Seeded(
        "token_classification",
        data="shuffled_captions",
        alarms=("stuck_at_chance", "ignores_image"),
    ),
    "equal_captions": Seeded("captioning", data="equal_captions", alarms=("duplicate_captions",)),
    "equal_images": Seeded("clip", data="equal_images", alarms=("features_collapse",)),
    "few_images": Seeded(
        "bicaptioning",
        data="few_images",
        alarms=("far_below_validation", "validation_rises"),
    ),
    "hot_temperature": Seeded("moco", "task: {temperature: 100.0}", alarms=("stuck_at_chance",)),
    "tight_clipping": Seeded(
        "captioning",
        "optim: {optimizer: sgd, lr: 0.1, backbone_lr: 0.1, max_grad_norm: 0.01}",
        alarms=("always_clipped",),
    ),
    "heavy_decay": Seeded(
        "token_classification",
        "optim: {weight_decay: 300.0}",
        alarms=("stuck_at_chance", "features_collapse", "loss_rises"),
    ),
    "sgd_without_warmup": Seeded(
        "captioning",
        "optim: {optimizer: sgd, lr: 30.0, backbone_lr: 30.0, warmup_steps: 0}",
        alarms=("loss_rises", "stuck_at_chance", "norm_spikes", "features_collapse"),
    ),
}

TRUE_ALARMS = {"fashion_masked_lm": {"ignores_image"}, "fashion_icmlm": {"ignores_image"}}
"""Alarms of runs in which nothing was seeded. A product's name has 6 words, one of them hidden: for
500 steps a masked language model guesses it from the others, not the image (a rise of 0.02 % for
masked_lm, of -0.4 % for icmlm)."""


def plain(root: Path, folder: Path) -> None:
    """Write the data as they are."""
    shutil.copytree(root, folder)


def shuffled_captions(root: Path, folder: Path) -> None:
    """Give each image the captions of another."""
    plain(root, folder)
    for path, values in _annotations(folder):
        owners = sorted({row["image_id"] for row in values["annotations"]})
        others = dict(zip(owners, random.Random(0).sample(owners, len(owners)), strict=True))
        for row in values["annotations"]:
            row["image_id"] = others[row["image_id"]]
        path.write_text(json.dumps(values))


def equal_captions(root: Path, folder: Path) -> None:
    """Give all images one caption."""
    plain(root, folder)
    for path, values in _annotations(folder):
        for row in values["annotations"]:
            row["caption"] = "a photograph of our product in good quality"
        path.write_text(json.dumps(values))


def equal_images(root: Path, folder: Path) -> None:
    """Make all images the first one."""
    plain(root, folder)
    paths = sorted(folder.rglob("*.jpg"))
    for path in paths[1:]:
        shutil.copyfile(paths[0], path)


def few_images(root: Path, folder: Path) -> None:
    """Keep 40 images for training."""
    plain(root, folder)
    for path, values in _annotations(folder):
        if "train" in path.name:
            kept = {row["id"] for row in values["images"][:40]}
            values["images"] = values["images"][:40]
            values["annotations"] = [r for r in values["annotations"] if r["image_id"] in kept]
            path.write_text(json.dumps(values))


def _annotations(folder: Path) -> list[tuple[Path, dict[str, list[dict[str, object]]]]]:
    paths = sorted((folder / "annotations").glob("captions_*.json"))
    return [(path, json.loads(path.read_text())) for path in paths]


SPOILED = {
    function.__name__: function
    for function in (plain, shuffled_captions, equal_captions, equal_images, few_images)
}


def write_data(root: Path) -> Path:
    """Write drawn scenes in COCO's layout."""
    write_scenes("coco", root, num_train=1500, num_val=128, image_size=64)
    return root


def alarms_of(run: Path) -> dict[str, tuple[int, str]]:
    """Return step and text of the alarms in a run's log, by name."""
    found = {}
    for line in (run / "log.jsonl").read_text().splitlines():
        record = json.loads(line)
        for name, value in record.items():
            if name.startswith("alarm/"):
                found.setdefault(name.removeprefix("alarm/"), (record["step"], value))
    return found


def train(task: str, data: Path, out: Path, options: str = "") -> dict[str, tuple[int, str]]:
    """Train a task, and return its alarms, but for that of the machine's other work."""
    flags = ["--config", OPTIONS, *task_flags(task), "--data.root", str(data)]
    pretrain(small_config(out, *flags, *(["--config", f"{options}\n"] if options else [])))
    return {name: alarm for name, alarm in alarms_of(out).items() if name != "waits_for_data"}
