"""A slow twin of the captioner: torch's own Transformer on padded captions.

Its parameters bear the released names, so `to_released` of a Captioner's state dict loads into it.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from virtex.models.captioner import Captioner
from virtex.models.textual_head import HeadConfig
from virtex.zoo.released import to_released


class PaddedEmbedding(nn.Module):
    def __init__(self, config: HeadConfig, vocab_size: int) -> None:
        super().__init__()
        self.words = nn.Embedding(vocab_size, config.hidden_size, padding_idx=0)
        self.positions = nn.Embedding(config.max_tokens, config.hidden_size)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=1e-8)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        positions = torch.arange(tokens.shape[1])
        return self.dropout(self.layer_norm(self.words(tokens) + self.positions(positions)))


class PaddedHead(nn.Module):
    """One direction."""

    def __init__(self, num_channels: int, config: HeadConfig, vocab_size: int) -> None:
        super().__init__()
        self.visual_projection = nn.Linear(num_channels, config.hidden_size)
        self.embedding = PaddedEmbedding(config, vocab_size)
        layer = nn.TransformerDecoderLayer(
            config.hidden_size,
            config.heads,
            config.feedforward,
            config.dropout,
            "gelu",
            batch_first=True,
            norm_first=config.norm == "pre",
        )
        norm = nn.LayerNorm(config.hidden_size) if config.norm == "pre" else None
        self.transformer = nn.TransformerDecoder(layer, config.num_layers, norm)
        self.output = nn.Linear(config.hidden_size, vocab_size)
        self.output.weight = self.embedding.words.weight

    def forward(
        self, grid: Tensor, tokens: Tensor, lengths: Tensor, *, is_causal: bool = True
    ) -> Tensor:
        """Logits (B, T, V)."""
        size = tokens.shape[1]
        padding = torch.arange(size) >= lengths[:, None]
        future = torch.ones(size, size, dtype=torch.bool).triu(1) if is_causal else None
        hidden = self.transformer(
            self.embedding(tokens),
            self.visual_projection(grid.flatten(2).permute(0, 2, 1)),
            tgt_mask=future,
            tgt_key_padding_mask=padding,
        )
        return self.output(hidden)


class PaddedCaptioner(nn.Module):
    """A copy of `captioner`, weights included."""

    def __init__(self, captioner: Captioner) -> None:
        super().__init__()
        sizes = captioner.backbone.num_channels, captioner.config, captioner.vocab_size
        self.visual = copy.deepcopy(captioner.backbone)
        self.textual = PaddedHead(*sizes)
        if captioner.bidirectional:
            self.backward_textual = PaddedHead(*sizes)
            self.backward_textual.visual_projection = self.textual.visual_projection
            self.backward_textual.embedding = self.textual.embedding
            self.backward_textual.output = self.textual.output
        self.to(captioner.head.output_bias.dtype)
        self.load_state_dict(to_released(captioner.state_dict()))
        self.train(captioner.training)

    def logits(self, images: Tensor, tokens: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """In both directions."""
        grid = self.visual(images)
        reverse = reversed_captions(tokens, lengths)
        return {
            "forward": self.textual(grid, tokens, lengths),
            "backward": self.backward_textual(grid, reverse, lengths),
        }

    def loss(self, images: Tensor, tokens: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        logits = self.logits(images, tokens, lengths)
        readings = {"forward": tokens, "backward": reversed_captions(tokens, lengths)}
        return {
            direction: cross_entropy(
                logits[direction][:, :-1].flatten(0, 1),
                reading[:, 1:].flatten(),
                ignore_index=0,
            )
            for direction, reading in readings.items()
        }

    def answer_losses(
        self, images: Tensor, inputs: Tensor, targets: Tensor, *, lengths: Tensor, noncausal: Tensor
    ) -> Tensor:
        """Losses (M,) of all targets that are not 0, caption by caption."""
        grid = self.visual(images)
        losses = []
        for row, length in enumerate(lengths.tolist()):
            one = slice(row, row + 1)
            logits = self.textual(
                grid[one], inputs[one], lengths[one], is_causal=not bool(noncausal[row])
            )
            losses += [
                cross_entropy(logits[0, t], targets[row, t])
                for t in range(length)
                if targets[row, t] != 0
            ]
        return torch.stack(losses)


def reversed_captions(tokens: Tensor, lengths: Tensor) -> Tensor:
    rows = tokens.clone()
    for row, length in zip(rows, lengths.tolist(), strict=True):
        row[:length] = row[:length].flip(0)
    return rows
