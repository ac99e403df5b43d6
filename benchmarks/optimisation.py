"""Cost of options of the optimizer in a step: `python -m benchmarks.optimisation`.

Trains copies of one recipe's task, each with another option, on one batch of drawn scenes. The
copies take turns, a step each; prints the median time of a step and of its difference from the
plain copy's step in the same turn.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from virtex.data.source import SourceConfig, open_source
from virtex.data.source_options import Needs
from virtex.data.tokenizer import train_tokenizer
from virtex.engine.device_batches import to_device
from virtex.engine.optim import set_lr
from virtex.engine.run import choose_device
from virtex.engine.state import TrainingState
from virtex.engine.step import train_step
from virtex.models.backbone import Backbone
from virtex.pretrain_config import PretrainConfig, parse_pretrain
from virtex.tasks.base import TaskData

SETTINGS: dict[str, dict[str, float]] = {
    "plain": {},
    "plain again": {},
    "EMA": {"ema_decay": 0.999},
    "layer decay": {"layer_decay": 0.75},
}
NUM_SCENES = 500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="cpu_small")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--turns", type=int, default=60)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    config = parse_pretrain(
        [f"--config={arguments.config}", "--out=unused", "--run.precision=fp32"]
    )
    steps = {name: step_of(config, options, arguments) for name, options in SETTINGS.items()}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(3 + arguments.turns):
        for name, step in steps.items():
            times[name].append(step())
    plain = times["plain"][3:]
    for name, found in times.items():
        more = statistics.median(a - b for a, b in zip(found[3:], plain, strict=True))
        print(f"{name}: {1e3 * statistics.median(found[3:]):.1f} ms, {1e3 * more:+.2f} ms")


def step_of(
    config: PretrainConfig, options: dict[str, float], arguments: argparse.Namespace
) -> Callable[[], float]:
    """Return a function that takes a training step and returns its seconds."""
    source = open_source(
        SourceConfig(num_images=NUM_SCENES), split="train", needs=Needs(captions=True)
    )
    assert source is not None
    captions = [caption for index in range(NUM_SCENES) for caption in source[index].captions]
    tokenizer = train_tokenizer(captions, vocab_size=500)
    torch.manual_seed(0)
    data = TaskData(config.image, tokenizer, source.categories, NUM_SCENES)
    task = config.task.build(Backbone(config.backbone), data)
    device = choose_device(arguments.device)
    task.to(device=device, memory_format=torch.channels_last).train()
    generator = np.random.default_rng(0)
    encoded = [task.encode(source[index], generator) for index in range(arguments.batch)]
    batch = to_device(task.collate(encoded), device, channels_last=True)
    optim = replace(config.optim, **options)
    state = TrainingState(task, run=config.run, optim=optim, device=device)
    set_lr(state.optimizer, 0.1)

    def step() -> float:
        start = time.perf_counter()
        train_step(task, [dict(batch)], state, run=config.run, optim=optim)
        if device.type != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    return step


if __name__ == "__main__":
    main()
