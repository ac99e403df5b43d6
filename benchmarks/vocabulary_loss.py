"""Time of the loss over the vocabulary, plain and fused: `python -m benchmarks.vocabulary_loss`.

Prints, for hidden states (P, D), the time of the forward and backward pass of their product with
the vocabulary and its cross-entropy: as `TextualHead.token_losses` computes it (plain), and by
torch.nn.functional.linear_cross_entropy in chunks (fused), which stores no logits; on a GPU also
the peak of the memory. Both give a loss for each token. They alternate, and times are medians.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor, nn
from torch.nn import functional

from virtex.models.linear import linear
from virtex.tokens import PAD_ID

Losses = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def plain(hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    logits = linear(hidden, weight, bias)  # (P, V)
    return functional.cross_entropy(logits, targets, ignore_index=PAD_ID, reduction="none")


def fused(hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    device = hidden.device.type
    if torch.is_autocast_enabled(device):  # which does not reach inside the fused operation
        dtype = torch.get_autocast_dtype(device)
        hidden, weight, bias = hidden.to(dtype), weight.to(dtype), bias.to(dtype)
    return functional.linear_cross_entropy(
        hidden,
        weight,
        targets,
        linear_bias=bias,
        ignore_index=PAD_ID,
        reduction="none",
        options=nn.LinearCrossEntropyOptions(),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--hidden", type=int, nargs="+", default=[1024, 2048])
    parser.add_argument("--tokens", type=int, nargs="+", default=[200, 3200])
    parser.add_argument("--vocabulary", type=int, default=10_000)
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if not hasattr(functional, "linear_cross_entropy"):
        raise SystemExit(f"torch {torch.__version__} has no linear_cross_entropy")
    for sizes in product(arguments.hidden, arguments.tokens, arguments.precision):
        print(*sizes, compare(*sizes, arguments), flush=True)


def compare(
    hidden_size: int, num_tokens: int, precision: str, arguments: argparse.Namespace
) -> str:
    """Return the times of both, and on a GPU their peaks of memory."""
    device = torch.device(arguments.device)
    shapes = (num_tokens, hidden_size), (arguments.vocabulary, hidden_size), (arguments.vocabulary,)
    inputs = [(0.02 * torch.randn(*shape, device=device)).requires_grad_() for shape in shapes]
    targets = torch.randint(0, arguments.vocabulary, (num_tokens,), device=device)
    times: dict[Losses, list[float]] = {plain: [], fused: []}
    peaks = {}
    for _ in range(1 + arguments.rounds):
        for losses, seconds in times.items():
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            start = time.perf_counter()
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                loss = losses(*inputs, targets).sum()
            torch.autograd.grad(loss, inputs)
            if device.type == "cuda":
                torch.cuda.synchronize()
                peaks[losses] = f" ({torch.cuda.max_memory_allocated() / 1e6:,.0f} MB)"
            seconds.append(time.perf_counter() - start)
    return " | ".join(
        f"{losses.__name__} {1000 * statistics.median(seconds[1:]):.1f} ms{peaks.get(losses, '')}"
        for losses, seconds in times.items()
    )


if __name__ == "__main__":
    main()
