"""Time of a bicaptioning step, relative to its backbone's: `python -m benchmarks.step`.

Prints the time of a full step (losses of both directions, backward pass, SGD update) as a multiple
of the bare backbone's step on the same images, at the same precision and channels-last. The steps
alternate, and ratios are of medians. `padded` is torch's own Transformer on padded captions.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from tests.oracles.textual_head import PaddedCaptioner
from virtex.models.backbone import Backbone, BackboneConfig
from virtex.models.captioner import Captioner
from virtex.models.textual_head import HeadConfig
from virtex.tokens import EOS_ID, NUM_SPECIAL, PAD_ID, SOS_ID

VOCAB_SIZE = 10_000
LENGTHS = range(9, 31)
PER_MILLE = [4, 46, 161, 200, 192, 142, 95, 59, 35, 22, 14, 9, 6, 4, 3, 2, 2, 1, 1, 1, 0, 1]
"""Quantiles of the number of tokens in COCO's 414,113 captions of train2014, by a 10,000-piece BPE,
with start and end, at most 30; the mean is 13.5."""
Step = Callable[[], None]


def captions(batch_size: int) -> tuple[Tensor, Tensor]:
    """Return random tokens (B, T) and their lengths (B,), which are COCO's quantiles."""
    population = torch.tensor(LENGTHS).repeat_interleave(torch.tensor(PER_MILLE))
    quantiles = (torch.arange(batch_size) + 0.5) / batch_size
    lengths = population[(quantiles * len(population)).long()]
    tokens = torch.randint(NUM_SPECIAL, VOCAB_SIZE, (batch_size, int(lengths.max())))
    tokens[:, 0] = SOS_ID
    tokens[torch.arange(batch_size), lengths - 1] = EOS_ID
    steps = torch.arange(tokens.shape[1])
    return tokens.masked_fill(steps >= lengths[:, None], PAD_ID), lengths


def training_step(model: nn.Module, loss: Callable[[], Tensor], *, bf16: bool) -> Step:
    """Return a step: forward and backward pass and SGD update of `model`."""
    optimizer = torch.optim.SGD(
        model.parameters(), lr=1e-4, momentum=0.9, weight_decay=1e-4, fused=True
    )

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            value = loss()
        value.backward()
        optimizer.step()

    return step


def steps(hidden_size: int, arguments: argparse.Namespace, *, bf16: bool) -> dict[str, Step]:
    """Return the three kinds of step, on the same images and captions."""
    torch.manual_seed(0)
    tokens, lengths = captions(arguments.batch)
    images = torch.randn(arguments.batch, 3, arguments.size, arguments.size)
    images = images.contiguous(memory_format=torch.channels_last)
    backbone = Backbone(BackboneConfig(arguments.backbone))
    bare = Backbone(BackboneConfig(arguments.backbone))
    packed = Captioner(
        backbone, HeadConfig(hidden_size=hidden_size), VOCAB_SIZE, bidirectional=True
    )
    models = {"bare": bare, "packed": packed, "padded": PaddedCaptioner(packed)}
    for model in models.values():
        model.to(memory_format=torch.channels_last)
    losses = {
        "bare": lambda: models["bare"](images).mean(),
        "packed": lambda: sum(models["packed"].loss(images, tokens, lengths).values()),
        "padded": lambda: sum(models["padded"].loss(images, tokens, lengths).values()),
    }
    return {name: training_step(models[name], losses[name], bf16=bf16) for name in arguments.kinds}


def seconds(
    kinds: dict[str, Step], *, rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Return the median time of each kind of step, after a warm-up step."""
    times: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(1 + rounds):
        for name, step in kinds.items():
            start = clock()
            step()
            times[name].append(clock() - start)
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--hidden", type=int, nargs="+", default=[1024, 2048])
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--kinds", nargs="+", default=["bare", "packed", "padded"])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for hidden_size in arguments.hidden:
        for precision in arguments.precision:
            kinds = steps(hidden_size, arguments, bf16=precision == "bf16")
            measured = seconds(kinds, rounds=arguments.rounds)
            columns = [
                f"{name} {value:6.3f} s x {value / measured['bare']:.2f}"
                for name, value in measured.items()
            ]
            print(f"H{hidden_size} {precision}:", " | ".join(columns), flush=True)


if __name__ == "__main__":
    main()
