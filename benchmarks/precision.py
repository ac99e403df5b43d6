"""Training speed of a recipe's network at each precision: `python -m benchmarks.precision`.

Prints images/s of whole steps (loss, backward pass, update) on drawn scenes, without the time of
loading, and what precision `auto` chooses here. The steps of all precisions alternate, and speeds
are of medians. A CPU without bf16 is emulated by the environment variables
ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from virtex.data.source import open_source
from virtex.data.tokenizer import train_tokenizer
from virtex.engine.device_batches import to_device
from virtex.engine.optim import build_optimizer
from virtex.engine.precision import choose_precision
from virtex.engine.run import autocast, choose_device
from virtex.models.backbone import Backbone
from virtex.pretrain import PretrainConfig, parse_pretrain
from virtex.tasks.base import Batch, TaskData

NUM_SCENES = 1_000
Step = Callable[[], None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipes", nargs="+", default=["quickstart", "cpu_small"])
    parser.add_argument("--backbones", nargs="+", help="timm networks in place of the recipes' own")
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = choose_device(arguments.device)
    for name, backbone in itertools.product(arguments.recipes, arguments.backbones or [None]):
        config = recipe(name, backbone)
        batch, data = prepared(config, device)
        steps = {
            precision: training_step(config, batch, data, precision)
            for precision in arguments.precision
        }
        seconds = medians(steps, device, rounds=arguments.rounds)
        speeds = [f"{key} {config.run.batch_size / value:.0f}" for key, value in seconds.items()]
        automatic = choose_precision("auto", device, network=Backbone(config.backbone))
        what = ", ".join(filter(None, (name, backbone)))
        print(f"{what}, images/s: {', '.join(speeds)}; auto is {automatic}", flush=True)


def recipe(name: str, backbone: str | None) -> PretrainConfig:
    """Return a recipe's options, for drawn scenes of its image size."""
    arguments = ["--config", name, "--data.source", "scenes", "--out", "unused"]
    arguments += [] if backbone is None else ["--backbone.name", backbone]
    size = str(parse_pretrain(arguments).image.size)
    scenes = ["--data.num_images", str(NUM_SCENES), "--data.image_size", size]
    return parse_pretrain([*arguments, *scenes])


def prepared(config: PretrainConfig, device: torch.device) -> tuple[Batch, TaskData]:
    """Return a batch on a device, and what the task must know of its data."""
    source = open_source(config.data, split="train", needs=config.task.needs)
    assert source is not None
    captions = (caption for index in range(NUM_SCENES) for caption in source[index].captions)
    tokenizer = train_tokenizer(captions, vocab_size=config.tokenizer.vocab_size)
    data = TaskData(config.image, tokenizer, source.categories, len(source))
    task = config.task.build(Backbone(config.backbone), data)
    examples = [source[index % NUM_SCENES] for index in range(config.run.batch_size)]
    encoded = [task.encode(one, np.random.default_rng(0)) for one in examples]
    return to_device(task.collate(encoded), device, channels_last=True), data


def training_step(config: PretrainConfig, batch: Batch, data: TaskData, precision: str) -> Step:
    """Return a step of a new network at a precision."""
    torch.manual_seed(0)
    device = batch["image"].device
    task = config.task.build(Backbone(config.backbone), data)
    task.to(device=device, memory_format=torch.channels_last).train()
    optimizer = build_optimizer(task, config.optim)

    def step() -> None:
        with autocast(precision, device):
            loss = task(batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def medians(steps: dict[str, Step], device: torch.device, *, rounds: int) -> dict[str, float]:
    """Return the median time of each kind of step, after two warm-up steps."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(2 + rounds):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values[2:]) for name, values in times.items()}


if __name__ == "__main__":
    main()
