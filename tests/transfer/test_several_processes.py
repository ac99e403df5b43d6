"""Protocols by two processes give what one gives."""

import json
from functools import partial
from pathlib import Path

import pytest

from tests.tasks.two_processes import in_processes
from tests.transfer.conftest import write_colors
from virtex import distributed
from virtex.config import parse, with_recipes
from virtex.data.layouts import write_scenes
from virtex.transfer.protocols import PROTOCOLS

SMALL = "backbone: {name: resnet18, options: {layers: [1, 1, 1, 1], channels: [8, 8, 16, 32]}}\n"
GROUP_NORM = "backbone: {options: {norm_layer: groupnorm1}}\n"
FROZEN = "image_size: 32\nbatch_size: 8\nnum_workers: 0\ndevice: cpu\n"
TRAINED = """
run: {batch_size: 12, tensorboard: false, device: cpu}
loader: {num_workers: 0}
"""
DETECTOR = """
run: {num_steps: 2}
optim: {lr: 0.001, backbone_lr: 0.001, milestones: [1], warmup_steps: 0}
task: {train_sizes: [64], test_size: 64, max_size: 64,
  regions: {pyramid_norm: false, pyramid_channels: 16, box_width: 32, num_regions: 32}}
num_statistics_batches: 0
"""
IMAGES = "image: {size: 32}\nepochs: 2\noptim: {lr: 10.0}\n"
OPTIONS = {
    "linear": ("colors", [FROZEN, "neighbors: {num_neighbors: 3}\n"]),
    "voc07": ("voc", [FROZEN, "leave_out_rare: true\n"]),
    "imagenet": ("colors", [TRAINED, IMAGES]),
    "finetune": ("colors", [GROUP_NORM, TRAINED, IMAGES, "drop_epochs: []\n"]),
    "coco-segmentation": ("coco", [TRAINED, DETECTOR]),
}


WITH_BATCH_NORM = {
    "finetune": [TRAINED, IMAGES, "drop_epochs: []\n"],
    "coco-segmentation": [TRAINED, DETECTOR, "run: {sync_batch_norm: false}\n"],
}
"""Statistics are each process's own while these train."""


def measure(name: str, texts: list[str], data: Path, out: Path) -> dict[str, float]:
    """A protocol's numbers, on as many processes as there are; on others than the main one none."""
    configs = [part for text in [SMALL, *texts] for part in ("--config", f"\n{text}")]
    places = ("--init", "random", "--data.root", str(data), "--out", str(out / name))
    line = with_recipes(["--config", name, *configs, *places], "transfer")
    results = PROTOCOLS[name].run(parse(PROTOCOLS[name].config, line, prog="test"))
    assert len(results) == int(distributed.is_main())
    return results[0].numbers if results else {}


def measure_all(folder: Path, out: Path) -> dict[str, dict[str, float]]:
    return {
        name: measure(name, texts, folder / data, out) for name, (data, texts) in OPTIONS.items()
    }


def measure_twice(folder: Path, out: Path) -> dict[str, list[dict[str, float]]]:
    """The second time nothing is left to train, and the saved weights are what is tested."""
    return {
        name: [measure(name, texts, folder / OPTIONS[name][0], out) for _ in range(2)]
        for name, texts in WITH_BATCH_NORM.items()
    }


def measure_in_each(folder: Path) -> None:
    """Measure in each process of a group; the main one writes the numbers."""
    once = measure_all(folder, folder / "two")
    numbers = {"once": once, "twice": measure_twice(folder, folder / "batch_norm")}
    if distributed.is_main():
        (folder / "two.json").write_text(json.dumps(numbers))


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, dict]:
    """What one process and what two measured."""
    folder = tmp_path_factory.mktemp("data")
    write_colors(folder / "colors")
    for layout in ("voc", "coco"):
        write_scenes(layout, folder / layout, num_train=24, num_val=10, image_size=64)
    in_processes(2, partial(measure_in_each, folder), timeout=300)
    one = measure_all(folder, folder / "one")
    name = "coco-segmentation"
    one["of two"] = measure(name, OPTIONS[name][1], folder / "coco", folder / "two")
    return one, json.loads((folder / "two.json").read_text())


@pytest.mark.parametrize("name", OPTIONS)
def test_two_processes_measure_what_one_does(name: str, both: tuple[dict, dict]) -> None:
    one, two = both[0][name], both[1]["once"][name]
    if name == "coco-segmentation":  # each process draws its own regions while training
        one, two = both[0]["of two"], two
    assert two == pytest.approx(one, abs=1e-3)


@pytest.mark.parametrize("name", WITH_BATCH_NORM)
def test_two_processes_measure_the_weights_that_they_saved(
    name: str, both: tuple[dict, dict]
) -> None:
    first, second = both[1]["twice"][name]
    assert first == second
