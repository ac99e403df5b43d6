"""Time for which training stands still at a checkpoint: `python benchmarks/checkpoint.py`.

Trains bicaptioning (ResNet-50, L1 H1024, a vocabulary of 10,000, SGD, Lookahead) on one batch of
drawn scenes: once it waits for each checkpoint and weights file, once a thread writes them. `pause`
is the time between two steps with a checkpoint between them, `slow` the time of the steps during a
write as a multiple of the median of the others, `all` what a checkpoint costs in seconds. A write
should be over well before the next checkpoint: else give a larger --every.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from virtex.data.source import SourceConfig, open_source
from virtex.data.source_options import Needs
from virtex.data.tokenizer import train_tokenizer
from virtex.data.transforms import ImageConfig
from virtex.engine.loop import fit
from virtex.engine.optim import OptimConfig
from virtex.engine.run import RunConfig, RunFolder, choose_device
from virtex.models.backbone import Backbone, BackboneConfig
from virtex.tasks.base import Batch, Task, TaskData
from virtex.tasks.captioning import CaptioningConfig
from virtex.zoo.weights_file import save_weights

VOCAB_SIZE = 10_000
LETTERS = list("abcdefghijklmnopqrstuvwxyz")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--every", type=int, default=8, help="steps between two checkpoints")
    parser.add_argument("--checkpoints", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, help="folder on the disk to measure")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    task, batch = prepare(arguments)
    for in_thread in (False, True):
        with tempfile.TemporaryDirectory(dir=arguments.out) as folder:
            times = train(task, batch, Path(folder), arguments, in_thread=in_thread)
            size = sum(f.stat().st_size for f in Path(folder, "checkpoints").iterdir()) / 1e6
        print(f"{'thread' if in_thread else 'waiting'}: {times.report(arguments)}", flush=True)
    print(f"a checkpoint has {size:.0f} MB")


def prepare(arguments: argparse.Namespace) -> tuple[Task, Batch]:
    """Return the task and a batch for it."""
    source = open_source(
        SourceConfig(num_images=arguments.batch, image_size=arguments.size),
        split="train",
        needs=Needs(captions=True),
    )
    assert source is not None
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(LETTERS, 8)) for _ in range(20_000)]
    tokenizer = train_tokenizer(words, vocab_size=VOCAB_SIZE)
    data = TaskData(ImageConfig(size=arguments.size), tokenizer)
    torch.manual_seed(0)
    task = CaptioningConfig().build(Backbone(BackboneConfig(arguments.backbone)), data)
    return task, task.collate([task.encode(source[i], rng) for i in range(arguments.batch)])


@dataclass
class Times:
    """Moments at which steps began and ended and checkpoints were whole, in seconds."""

    begun: list[float] = field(default_factory=list)
    ended: list[float] = field(default_factory=list)
    written: list[float] = field(default_factory=list)

    def report(self, arguments: argparse.Namespace) -> str:
        """Return median, pauses, slow-down and cost."""
        begun, ended = (
            torch.tensor(times, dtype=torch.float64) for times in (self.begun, self.ended)
        )
        seconds, numbers = ended - begun, torch.arange(len(begun))
        pauses = (begun[1:] - ended[:-1])[arguments.every - 1 :: arguments.every]
        writing = torch.zeros(len(begun), dtype=torch.bool)
        for number, end in enumerate(self.written, start=1):
            writing |= (numbers >= number * arguments.every) & (begun < end)
        median = statistics.median(seconds[~writing][1:].tolist())
        slow = seconds[writing].mean().item() / median if writing.any() else 1.0
        extra = (seconds[writing] - median).sum().item() / arguments.checkpoints
        listed = " ".join(f"{pause:.2f}" for pause in pauses.tolist())
        return (
            f"step {median:.2f} s, pause {listed} s, slow x {slow:.2f}, "
            f"all {pauses.mean().item() + extra:.2f} s"
        )


def train(
    task: Task, batch: Batch, out: Path, arguments: argparse.Namespace, *, in_thread: bool
) -> Times:
    """Train past the last checkpoint that is measured, and return the times."""
    times = Times()

    def keep(step: int, task_state: Mapping[str, Tensor], _: object = None) -> None:
        path = out / "weights.safetensors"
        save_weights(path, task_state, config={}, tokenizer=None, step=step)
        times.written.append(time.perf_counter())

    def batches(step: int) -> Generator[list[Batch]]:
        while True:
            yield [batch]

    run = RunConfig(
        num_steps=arguments.every * (arguments.checkpoints + 1),
        batch_size=arguments.batch,
        checkpoint_every=arguments.every,
        keep_checkpoints=1,
        log_every=1000,
        device=arguments.device,
        tensorboard=False,
    )
    hook = task.register_forward_pre_hook(lambda *_: times.begun.append(now(arguments.device)))
    task.after_step = lambda *_: times.ended.append(now(arguments.device))  # type: ignore[method-assign]
    waiting = None if in_thread else (lambda step: keep(step, task.state_dict()))
    fit(
        task,
        batches,
        folder=RunFolder(out),
        run=run,
        optim=OptimConfig(lr=1e-4, backbone_lr=1e-4),
        device=choose_device(arguments.device),
        config={},
        on_checkpoint=waiting,
        on_written=keep if in_thread else None,
    )
    hook.remove()
    return times


def now(device: str) -> float:
    """Return the time at which the device has done what it was given."""
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    main()
