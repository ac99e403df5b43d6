"""Slow twins of the contrastive task: losses pair by pair, text caption by caption."""

import math

import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm

from virtex.models.text_encoder import TextEncoder


def softmax_loss(images: Tensor, texts: Tensor, *, scale: float) -> float:
    """CLIP's, of embeddings (B, E), whose rows belong together."""
    logits = [[scale * float(image @ text) for text in texts] for image in images]
    total = 0.0
    for i in range(len(images)):
        captions = sum(math.exp(logits[i][j]) for j in range(len(texts)))
        pictures = sum(math.exp(logits[j][i]) for j in range(len(images)))
        total -= math.log(math.exp(logits[i][i]) / captions) / 2
        total -= math.log(math.exp(logits[i][i]) / pictures) / 2
    return total / len(images)


def sigmoid_loss(images: Tensor, texts: Tensor, *, scale: float, bias: float) -> float:
    """SigLIP's, of embeddings (B, E), whose rows belong together."""
    total = 0.0
    for i, image in enumerate(images):
        for j, text in enumerate(texts):
            sign = 1 if i == j else -1
            total += math.log(1 + math.exp(-sign * (scale * float(image @ text) + bias)))
    return total / len(images)


def encode_text(encoder: TextEncoder, caption: list[int]) -> Tensor:
    """The vector (D,) of one caption without padding, by written-out attention."""
    weights = encoder.state_dict()
    num_heads = encoder.transformer.layers[0].self_attn.num_heads
    size = encoder.config.hidden_size
    hidden = torch.stack(
        [
            weights["words.weight"][token] + weights["positions"][t]
            for t, token in enumerate(caption)
        ]
    )
    for number in range(encoder.config.num_layers):
        layer = {
            name.removeprefix(f"transformer.layers.{number}."): value
            for name, value in weights.items()
        }
        normed = layer_norm(hidden, (size,), layer["norm1.weight"], layer["norm1.bias"])
        projected = normed @ layer["self_attn.in_proj_weight"].T + layer["self_attn.in_proj_bias"]
        queries, keys, values = projected.split(size, dim=1)
        attended = torch.zeros_like(hidden)
        for head in range(num_heads):
            part = slice(head * size // num_heads, (head + 1) * size // num_heads)
            for t in range(len(caption)):
                seen = t + 1 if encoder.config.causal else len(caption)
                scores = keys[:seen, part] @ queries[t, part] / math.sqrt(size // num_heads)
                attended[t, part] = scores.softmax(0) @ values[:seen, part]
        out = layer["self_attn.out_proj.weight"], layer["self_attn.out_proj.bias"]
        hidden = hidden + attended @ out[0].T + out[1]
        normed = layer_norm(hidden, (size,), layer["norm2.weight"], layer["norm2.bias"])
        expanded = gelu(normed @ layer["linear1.weight"].T + layer["linear1.bias"])
        hidden = hidden + expanded @ layer["linear2.weight"].T + layer["linear2.bias"]
    last = hidden[-1]
    return layer_norm(
        last, (size,), weights["transformer.norm.weight"], weights["transformer.norm.bias"]
    )
