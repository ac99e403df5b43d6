"""A slow twin of `Captioner.attention`: torch's own Transformer, one caption at a time, by hand."""

from typing import Any

import torch
from torch import Tensor, nn

from tests.oracles.textual_head import PaddedCaptioner
from virtex.models.captioner import Captioner


def attention_by_hand(
    captioner: Captioner, image: Tensor, caption: Tensor, *, direction: str
) -> dict[int, Tensor]:
    """At each place of a caption (T,) at which a token is said, its weights (L, A, N)."""
    twin = PaddedCaptioner(captioner)
    head = twin.textual if direction == "forward" else twin.backward_textual
    reading = caption if direction == "forward" else caption.flip(0)
    seen: list[tuple[nn.MultiheadAttention, Tensor, Tensor]] = []

    def remember(module: nn.MultiheadAttention, arguments: tuple[Tensor, ...], _: Any) -> None:
        seen.append((module, arguments[0][0], arguments[1][0]))  # (T, D) and (N, D)

    for layer in head.transformer.layers:
        layer.multihead_attn.register_forward_pre_hook(remember, with_kwargs=True)
    with torch.no_grad():
        head(twin.visual(image[None]), reading[None], torch.tensor([len(reading)]))
        layers = [_weights(*arguments) for arguments in seen]  # L times (A, T, N)
    places = range(1, len(caption)) if direction == "forward" else range(len(caption) - 2, -1, -1)
    return {
        place: torch.stack([layer[:, step] for layer in layers])
        for step, place in enumerate(places)
    }


def _weights(module: nn.MultiheadAttention, hidden: Tensor, cells: Tensor) -> Tensor:
    """Softmax of each head's queries with its keys, (A, T, N)."""
    size, channels = module.embed_dim, module.head_dim
    queries = hidden @ module.in_proj_weight[:size].T + module.in_proj_bias[:size]
    keys = cells @ module.in_proj_weight[size : 2 * size].T + module.in_proj_bias[size : 2 * size]
    heads = [slice(start, start + channels) for start in range(0, size, channels)]
    return torch.stack(
        [(queries[:, one] @ keys[:, one].T / channels**0.5).softmax(1) for one in heads]
    )
