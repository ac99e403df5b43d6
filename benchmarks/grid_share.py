"""Time and memory of a bicaptioning step whose head sees a share of the grid's cells.

`python -m benchmarks.grid_share` prints, for each backbone, the bytes that a forward pass keeps for
the backward pass, without parameters, and the processor time of a step (forward and backward pass,
SGD update): of the bare backbone, of all cells (`task.grid_share` 1), and of the share. Captions
have COCO's lengths, the vocabulary 10,000 pieces. The steps alternate, and times are medians of one
thread's processor time, in which other work on the machine counts little.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from benchmarks.grad_checkpointing import kept_megabytes
from benchmarks.step import VOCAB_SIZE, captions, seconds, training_step
from virtex.models.backbone import Backbone, BackboneConfig
from virtex.models.captioner import Captioner
from virtex.models.packing import Readings, pack_readings
from virtex.models.textual_head import HeadConfig
from virtex.tasks.grid_share import num_seen, take_cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbones", nargs="+", default=["resnet18", "vit_tiny_patch16_224"])
    parser.add_argument("--share", type=float, default=0.3)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--bf16", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.backbones:
        print(f"{name}: {compare(name, arguments)}", flush=True)


def compare(name: str, arguments: argparse.Namespace) -> str:
    """Return memory and time of the bare backbone, of all cells, and of a share of them."""
    torch.manual_seed(0)
    images = torch.randn(arguments.batch, 3, arguments.size, arguments.size)
    images = images.contiguous(memory_format=torch.channels_last)
    readings = pack_readings(*captions(arguments.batch), ("forward", "backward"))
    head = HeadConfig(hidden_size=arguments.hidden, num_layers=arguments.layers)
    captioner = Captioner(Backbone(BackboneConfig(name)), head, VOCAB_SIZE, bidirectional=True)
    captioner.to(memory_format=torch.channels_last)
    backbone = captioner.backbone
    height, width = backbone.grid_size(arguments.size)
    num_cells, number = height * width, num_seen(arguments.share, height * width)
    cells = torch.rand(arguments.batch, num_cells).argsort(1)[:, :number].sort(1).values
    losses = {
        "bare": lambda: backbone(images).mean(),
        "all": partial(loss_of, captioner, images, readings),
        "share": partial(loss_of, captioner, images, readings, cells),
    }
    modules = {"bare": backbone, "all": captioner, "share": captioner}
    kept = {
        kind: kept_megabytes(modules[kind], loss, bf16=arguments.bf16)
        for kind, loss in losses.items()
    }
    steps: dict[str, Callable[[], None]] = {
        kind: training_step(modules[kind], loss, bf16=arguments.bf16)
        for kind, loss in losses.items()
    }
    times = seconds(steps, rounds=arguments.rounds, clock=time.process_time)
    return (
        f"{number} of {num_cells} cells | kept {columns(kept, 'MB')} | step {columns(times, 's')}"
    )


def loss_of(
    captioner: Captioner, images: Tensor, readings: Readings, cells: Tensor | None = None
) -> Tensor:
    """Return the loss of both directions, of a head that sees these cells (B, k), or all."""
    grid = captioner.backbone(images)
    seen = grid if cells is None else take_cells(grid, cells)
    losses = captioner.next_token_losses(seen, readings.inputs, readings.targets, readings.packing)
    return (losses.sum(1) / readings.num_targets).sum()


def columns(values: dict[str, float], unit: str) -> str:
    """Return the values, and what the share saves of the whole and of the head's part."""
    bare, whole, share = (values[kind] for kind in ("bare", "all", "share"))
    return (
        f"bare {bare:.4g} {unit}, all {whole:.4g}, share {share:.4g} "
        f"(x {share / whole:.3f}; beyond the backbone x {(share - bare) / (whole - bare):.2f})"
    )


if __name__ == "__main__":
    main()
