"""The textual head: Transformer decoders that attend to a caption and to the feature grid.

Desai and Johnson, CVPR 2021, section 3 (figure 3). Each reading direction has a decoder; both share
the visual projection, the embeddings and the output layer, whose weights are the token embedding's.
Tokens are packed, see packing.py.

Departure: a caption's last token predicts nothing, so the decoder's input leaves it out.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from virtex.errors import ConfigError, raise_all
from virtex.models.attention import GridAttention, SelfAttention
from virtex.models.kv_cache import KeyValueCache, LayerCache
from virtex.models.linear import Linear, linear
from virtex.models.packing import DIRECTIONS, Direction, Packing
from virtex.models.transformer_sizes import TransformerSizes
from virtex.tokens import PAD_ID

Sublayer = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class HeadConfig(TransformerSizes):
    """Sizes and options of the Transformer decoders."""

    hidden_size: int = 1024
    num_layers: int = 1
    dropout: float = 0.1
    norm: Literal["post", "pre"] = "post"
    """LayerNorm after each sublayer (the paper's) or before it."""
    max_tokens: int = 30
    """Maximum length of a caption, start and end token included."""

    def function(self) -> dict[str, object]:
        return {**super().function(), "norm": self.norm}

    def __post_init__(self) -> None:
        problems = self.problems()
        if self.norm not in ("post", "pre"):
            problems.append(f"norm {self.norm!r} is neither 'post' nor 'pre'")
        raise_all(ConfigError, "the options of the textual head cannot work", problems)


class TokenEmbedding(nn.Module):
    """Sum of token and learned position embeddings, normalized."""

    def __init__(self, config: HeadConfig, vocab_size: int) -> None:
        super().__init__()
        self.words = nn.Embedding(vocab_size, config.hidden_size, padding_idx=PAD_ID)
        self.positions = nn.Embedding(config.max_tokens, config.hidden_size)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=1e-8)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Embed token ids (...) at positions (...) as (..., D).

        Positions of dead tokens may lie beyond the last one.
        """
        positions = positions.clamp(max=self.positions.num_embeddings - 1)
        return self.dropout(self.layer_norm(self.words(tokens) + self.positions(positions)))


class DecoderLayer(nn.Module):
    """Self-attention, attention to the grid, and feed-forward, each with a residual connection."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.self_attention = SelfAttention(size, num_heads=config.heads, dropout=config.dropout)
        self.grid_attention = GridAttention(size, num_heads=config.heads, dropout=config.dropout)
        self.feedforward = nn.Sequential(
            OrderedDict(
                expand=Linear(size, config.feedforward),
                activation=nn.GELU(),
                dropout=nn.Dropout(config.dropout),
                contract=Linear(config.feedforward, size),
            )
        )
        self.self_norm = nn.LayerNorm(size)
        self.grid_norm = nn.LayerNorm(size)
        self.feedforward_norm = nn.LayerNorm(size)
        self.dropout = nn.Dropout(config.dropout)
        self.norm_first = config.norm == "pre"

    def forward(
        self, hidden: Tensor, packing: Packing, grid: Tensor, weights: list[Tensor] | None = None
    ) -> Tensor:
        """Transform hidden states (P, D); append grid attention (B, A, T, N) to `weights`."""

        def attend_grid(tokens: Tensor) -> Tensor:
            if weights is not None:
                weights.append(self.grid_attention.weights(tokens, packing, grid))
            return self.grid_attention(tokens, packing, grid)

        return self._sublayers(
            hidden, lambda tokens: self.self_attention(tokens, packing), attend_grid
        )

    def step(self, hidden: Tensor, cache: LayerCache, kept: slice) -> Tensor:
        """Transform the hidden states (B, K, D) of one token per beam."""
        return self._sublayers(
            hidden,
            lambda tokens: self.self_attention.step(tokens, cache, kept),
            lambda tokens: self.grid_attention.step(tokens, cache),
        )

    def _sublayers(self, hidden: Tensor, attend_tokens: Sublayer, attend_grid: Sublayer) -> Tensor:
        hidden = self._residual(hidden, self.self_norm, attend_tokens)
        hidden = self._residual(hidden, self.grid_norm, attend_grid)
        return self._residual(hidden, self.feedforward_norm, self.feedforward)

    def _residual(self, hidden: Tensor, norm: nn.Module, sublayer: Sublayer) -> Tensor:
        if self.norm_first:
            return hidden + self.dropout(sublayer(norm(hidden)))
        return norm(hidden + self.dropout(sublayer(hidden)))


class Decoder(nn.Module):
    """A stack of decoder layers, for one reading direction."""

    layers: Any
    """A ModuleList of `DecoderLayer`."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(config.hidden_size) if config.norm == "pre" else nn.Identity()

    def forward(
        self, hidden: Tensor, packing: Packing, grid: Tensor, weights: list[Tensor] | None = None
    ) -> Tensor:
        """Return hidden states (P, D) of embedded tokens (P, D), given the grid (B, N, D).

        Each layer appends its attention to the grid (B, A, T, N) to `weights`.
        """
        for layer in self.layers:
            hidden = layer(hidden, packing, grid, weights)
        return self.norm(hidden)

    def start(self, grid: Tensor, *, num_beams: int, num_steps: int) -> list[LayerCache]:
        """Return an empty cache for each layer, for captions of the projected grids (B, N, D)."""
        projected = [layer.grid_attention.keys_values(grid) for layer in self.layers]
        return [LayerCache(*pair, num_beams=num_beams, num_steps=num_steps) for pair in projected]

    def step(self, hidden: Tensor, caches: list[LayerCache], kept: slice) -> Tensor:
        """Return the hidden states (B, K, D) of one embedded token per beam (B, K, D).

        Args:
            kept: The cached positions, from `KeyValueCache.extend`.
        """
        for layer, cache in zip(self.layers, caches, strict=True):
            hidden = layer.step(hidden, cache, kept)
        return self.norm(hidden)


class TextualHead(nn.Module):
    """Decoders for one or two directions, with shared projection, embedding and output layer."""

    decoders: Any
    """A ModuleList of `Decoder`, in the order of `directions`."""

    def __init__(
        self, num_channels: int, config: HeadConfig, vocab_size: int, *, bidirectional: bool
    ) -> None:
        super().__init__()
        self.visual_projection = Linear(num_channels, config.hidden_size)
        self.embedding = TokenEmbedding(config, vocab_size)
        self.decoders = nn.ModuleList(Decoder(config) for _ in range(1 + bidirectional))
        self.output_bias = nn.Parameter(torch.empty(vocab_size))
        self.directions = DIRECTIONS[: len(self.decoders)]
        self.label_smoothing = 0.0
        """Share of each target, in training, that is spread evenly over the vocabulary."""
        self.initialize()

    @torch.no_grad()
    def initialize(self) -> None:
        """Draw the weights of linear layers and embeddings from N(0, 0.02); padding's row is zero.

        Biases have PyTorch's initial values: zero in attention, otherwise uniform within
        1 / sqrt(inputs), also in the output layer.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, SelfAttention | GridAttention):
                for name, parameter in module.named_parameters():
                    if name.endswith("bias"):
                        nn.init.zeros_(parameter)
        self.embedding.words.weight[PAD_ID] = 0
        bound = self.embedding.words.embedding_dim**-0.5
        nn.init.uniform_(self.output_bias, -bound, bound)

    def forward(
        self, tokens: Tensor, packing: Packing, grid: Tensor, *, directions: Sequence[Direction]
    ) -> Tensor:
        """Return the hidden states (R, P, D) of R readings, from which `logits` predicts tokens.

        Args:
            tokens: (R, P) packed inputs, a row for each of `directions`.
            packing: Their layout, the same in every direction.
            grid: (B, C, h, w) feature grids; the layout of images with K captions each has B * K
                rows.
        """
        projected = self.project(grid)  # (B, N, D)
        embedded = self.embedding(tokens, packing.positions)  # (R, P, D)
        readings = zip(directions, embedded, strict=True)
        return torch.stack(
            [self.decoder(direction)(hidden, packing, projected) for direction, hidden in readings]
        )

    def attention(
        self, tokens: Tensor, packing: Packing, grid: Tensor, *, direction: Direction
    ) -> Tensor:
        """Return the attention weights (B, L, A, T, N) of tokens (P,) to grids (B, C, h, w)."""
        embedded = self.embedding(tokens, packing.positions)  # (P, D)
        weights: list[Tensor] = []
        self.decoder(direction)(embedded, packing, self.project(grid), weights)
        return torch.stack(weights, 1)

    def project(self, grid: Tensor) -> Tensor:
        """Project grids (B, C, h, w) to (B, N, D)."""
        return self.visual_projection(grid.flatten(2).transpose(1, 2))

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits (..., V) of hidden states (..., D)."""
        return linear(hidden, self.embedding.words.weight, self.output_bias)

    def token_losses(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Return the cross-entropy (R, P) of hidden states (R, P, D); 0 for targets of padding.

        All directions share one product with the vocabulary. torch's linear_cross_entropy, which
        stores no logits, takes four products instead of three, and on a CPU twice the time or
        more: `python -m benchmarks.vocabulary_loss --device cuda` compares them on a GPU.
        """
        logits = self.logits(hidden.flatten(0, 1))  # (R * P, V)
        losses = cross_entropy(
            logits,
            targets.flatten(),
            ignore_index=PAD_ID,
            reduction="none",
            label_smoothing=self.label_smoothing if self.training else 0.0,
        )
        return losses.view_as(targets)

    def decoder(self, direction: Direction) -> Decoder:
        """Return the decoder of a direction."""
        if direction not in self.directions:
            raise ConfigError(
                f"the textual head reads {' and '.join(self.directions)}, not {direction!r}; "
                "a bidirectional one reads forward and backward"
            )
        return self.decoders[DIRECTIONS.index(direction)]

    def start(
        self, grid: Tensor, *, num_beams: int, num_steps: int, direction: Direction
    ) -> KeyValueCache:
        """Return an empty cache for `num_steps` steps of K beams of each grid (B, C, h, w)."""
        max_tokens = self.embedding.positions.num_embeddings
        if num_steps > max_tokens:
            raise ConfigError(
                f"captions of up to {num_steps} steps requested of a model that was built for "
                f"{max_tokens} tokens: set the decoding's max_steps to at most {max_tokens}"
            )
        layers = self.decoder(direction).start(
            self.project(grid), num_beams=num_beams, num_steps=num_steps
        )
        return KeyValueCache(layers, direction=direction)

    def step(self, tokens: Tensor, cache: KeyValueCache) -> Tensor:
        """Return the logits (B, K, V) after each beam's last token (B, K); extend the cache."""
        embedded = self.embedding(tokens, torch.full_like(tokens, cache.position))  # (B, K, D)
        kept = cache.extend()
        return self.logits(self.decoder(cache.direction).step(embedded, cache.layers, kept))

    def no_weight_decay(self) -> set[str]:
        """Return LayerNorm parameters and biases of the token embedding and the Transformers.

        The biases of the visual projection and the output layer are decayed, as in the paper.
        """
        inside = ("embedding.", "decoders.")
        return {
            name
            for name, parameter in self.named_parameters()
            if name.startswith(inside) and parameter.dim() == 1
        }
