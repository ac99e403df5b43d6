"""A slow twin of prefix language modelling: one caption, and one token's attention, at a time."""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from virtex.tasks.prefix_lm import PrefixLm


def seen_by(place: int, num_prefix: int, *, in_first_block: bool) -> list[int]:
    """The places that a token attends to: the image, and of the caption itself and all before."""
    prefix = list(range(num_prefix))
    if place < num_prefix:
        return prefix
    caption = list(range(num_prefix, place + 1))
    return caption if in_first_block else prefix + caption


def token_losses(task: PrefixLm, image: Tensor, tokens: list[int]) -> list[Tensor]:
    """The loss of each token after the first of a caption, given its normalized image (3, H, W)."""
    network = task.backbone.cnn
    prefix = network.norm_pre(network._pos_embed(network.patch_embed(image[None])))[0]
    read = torch.tensor(tokens[:-1])
    text = task.words(read) + task.positions(torch.arange(len(read)))
    states = torch.cat([prefix, text])  # (N + T, D)
    for number, block in enumerate(network.blocks):
        attended = attention(block.attn, block.norm1(states), len(prefix), first=number == 0)
        states = states + block.ls1(attended)
        states = states + block.ls2(block.mlp(block.norm2(states)))
    logits = task.output(network.norm(states)[len(prefix) :])  # (T, V)
    return [cross_entropy(logits[t], torch.tensor(token)) for t, token in enumerate(tokens[1:])]


def attention(layer, states: Tensor, num_prefix: int, *, first: bool) -> Tensor:
    """The output (N + T, D) of an attention layer of timm, from its parameters."""
    rows = layer.qkv(states).unflatten(1, (3, layer.num_heads, layer.head_dim))
    query, key, value = rows.unbind(1)  # (N + T, A, D / A) each
    found = []
    for place in range(len(states)):
        seen = seen_by(place, num_prefix, in_first_block=first)
        heads = []
        for head in range(layer.num_heads):
            scores = key[seen, head] @ query[place, head] * layer.head_dim**-0.5
            heads.append(scores.softmax(0) @ value[seen, head])
        found.append(torch.cat(heads))
    return layer.proj(torch.stack(found))
