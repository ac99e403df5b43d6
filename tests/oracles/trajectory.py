"""A slow twin of training: the paper's optimizer written out parameter by parameter.

The model is the padded twin with the released names, by which the rules of the groups are stated.
"""

import math
import re
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from tests.oracles.textual_head import PaddedCaptioner

NOT_DECAYED = re.compile(r"(backward_)?textual\.(embedding|transformer)\..*(norm|bias)")
MOMENTUM, WEIGHT_DECAY, CLIP = 0.9, 1e-4, 10.0
LR, BACKBONE_LR = 1e-3, 0.2
LOOKAHEAD_STEPS, LOOKAHEAD_ALPHA = 5, 0.5


def lr_multipliers(num_steps: int, warmup: int, *, first: int) -> list[float]:
    """Warm-up that begins at `first` / warmup, then half a cosine that reaches 0 after the end."""
    rising = [(step + first) / warmup for step in range(warmup)]
    falling = num_steps - warmup
    return rising + [math.cos(step / falling * math.pi / 2) ** 2 for step in range(falling)]


def trajectory(
    model: PaddedCaptioner,
    batches: Iterable[tuple[Tensor, Tensor, Tensor]],
    multipliers: Sequence[float],
) -> list[tuple[float, float]]:
    """Loss and gradient norm (before clipping) of each step; `model` is trained in place."""
    named = list(model.named_parameters())
    slow = [parameter.detach().clone() for _, parameter in named]
    momenta = [torch.zeros_like(parameter) for _, parameter in named]
    seen = []
    for step, (batch, scale) in enumerate(zip(batches, multipliers, strict=True), start=1):
        model.zero_grad()
        loss = torch.stack(list(model.loss(*batch).values())).sum()
        loss.backward()
        norm = math.sqrt(sum(gradient(parameter).square().sum().item() for _, parameter in named))
        seen.append((loss.item(), norm))
        shrink = min(1.0, CLIP / norm)
        with torch.no_grad():
            for (name, parameter), momentum in zip(named, momenta, strict=True):
                decay = 0.0 if NOT_DECAYED.match(name) else WEIGHT_DECAY
                lr = scale * (BACKBONE_LR if "cnn" in name else LR)
                momentum.mul_(MOMENTUM).add_(shrink * gradient(parameter) + decay * parameter)
                parameter.sub_(lr * momentum)
            if step % LOOKAHEAD_STEPS == 0:
                for (_, parameter), anchor in zip(named, slow, strict=True):
                    anchor.add_(LOOKAHEAD_ALPHA * (parameter - anchor))
                    parameter.copy_(anchor)
    return seen


def gradient(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad
