"""The textual head: Transformer decoders that read a caption and look at the feature grid.

Desai and Johnson, CVPR 2021, section 3 (figure 3). One decoder per reading direction; the visual
projection, the embeddings and the output layer are shared by both directions, and the output
weights are those of the token embedding. Text is computed on packed tokens, see attention.py.

Departures: a caption's last token predicts nothing, so it is left out of the decoder's input.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from virtex.errors import ConfigError, raise_all
from virtex.models.attention import GridAttention, Packing, SelfAttention
from virtex.models.kv_cache import KeyValueCache, LayerCache
from virtex.models.linear import Linear, linear
from virtex.models.transformer_sizes import HEAD_CHANNELS, size_problems
from virtex.tokens import PAD_ID

Direction = Literal["forward", "backward"]
DIRECTIONS: tuple[Direction, ...] = ("forward", "backward")
Sublayer = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class HeadConfig:
    """Size and kind of the Transformer decoders."""

    hidden_size: int = 1024
    """Width H of token vectors."""
    num_layers: int = 1
    """Depth L of each decoder."""
    num_heads: int = 0
    """Attention heads A; 0 stands for hidden_size / 64."""
    feedforward_size: int = 0
    """Width of the feed-forward layers; 0 stands for 4 * hidden_size."""
    dropout: float = 0.1
    """Share of activations dropped in training."""
    norm: Literal["post", "pre"] = "post"
    """LayerNorm after each sublayer (the paper's) or before it."""
    max_tokens: int = 30
    """Longest caption, with its start and end tokens."""

    def __post_init__(self) -> None:
        problems = size_problems(
            hidden_size=self.hidden_size,
            num_layers=self.num_layers,
            num_heads=self.num_heads,
            feedforward_size=self.feedforward_size,
            dropout=self.dropout,
            max_tokens=self.max_tokens,
        )
        if self.norm not in ("post", "pre"):
            problems.append(f"norm {self.norm!r} is neither 'post' nor 'pre'")
        raise_all(ConfigError, "the options of the textual head cannot work", problems)

    @property
    def heads(self) -> int:
        """A, with the rule applied."""
        return self.num_heads or self.hidden_size // HEAD_CHANNELS

    @property
    def feedforward(self) -> int:
        """F, with the rule applied."""
        return self.feedforward_size or 4 * self.hidden_size


class TokenEmbedding(nn.Module):
    """Token plus learned position, normalised."""

    def __init__(self, config: HeadConfig, vocab_size: int) -> None:
        super().__init__()
        self.words = nn.Embedding(vocab_size, config.hidden_size, padding_idx=PAD_ID)
        self.positions = nn.Embedding(config.max_tokens, config.hidden_size)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=1e-8)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Ids of any shape, and positions that fit it, to (..., D)."""
        return self.dropout(self.layer_norm(self.words(tokens) + self.positions(positions)))


class DecoderLayer(nn.Module):
    """Attention to tokens, attention to the grid, feed-forward; each with a residual."""

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

    def forward(self, hidden: Tensor, packing: Packing, grid: Tensor) -> Tensor:
        """(P, D) and the projected grid (B, N, D) to (P, D)."""
        return self._sublayers(
            hidden,
            lambda tokens: self.self_attention(tokens, packing),
            lambda tokens: self.grid_attention(tokens, packing, grid),
        )

    def attention(self, hidden: Tensor, packing: Packing, grid: Tensor) -> tuple[Tensor, Tensor]:
        """As `forward`, and where each token looked: (P, D) and (B, A, T, N)."""
        weights: list[Tensor] = []

        def attend_grid(tokens: Tensor) -> Tensor:
            weights.append(self.grid_attention.weights(tokens, packing, grid))
            return self.grid_attention(tokens, packing, grid)

        hidden = self._sublayers(
            hidden, lambda tokens: self.self_attention(tokens, packing), attend_grid
        )
        return hidden, weights[0]

    def start(self, grid: Tensor, *, num_beams: int, num_steps: int) -> LayerCache:
        """An empty cache for captions of the projected grids (B, N, D)."""
        keys, values = self.grid_attention.keys_values(grid)
        return LayerCache(keys, values, num_beams=num_beams, num_steps=num_steps)

    def step(self, hidden: Tensor, cache: LayerCache, kept: slice) -> Tensor:
        """One token per beam, (B, K, D) to (B, K, D)."""
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

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(config.hidden_size) if config.norm == "pre" else nn.Identity()

    def forward(self, hidden: Tensor, packing: Packing, grid: Tensor) -> Tensor:
        """Embedded tokens (P, D) and the projected grid (B, N, D) to (P, D)."""
        for layer in self.layers:
            hidden = layer(hidden, packing, grid)
        return self.norm(hidden)

    def attention(self, hidden: Tensor, packing: Packing, grid: Tensor) -> Tensor:
        """Where each token looked in each layer, (B, L, A, T, N); arguments as of `forward`."""
        weights: list[Tensor] = []
        for layer in self.layers:
            hidden, looked = layer.attention(hidden, packing, grid)  # type: ignore[operator]
            weights.append(looked)
        return torch.stack(weights, 1)

    def start(self, grid: Tensor, *, num_beams: int, num_steps: int) -> list[LayerCache]:
        """An empty cache for each layer, for captions of the projected grids (B, N, D)."""
        return [
            layer.start(grid, num_beams=num_beams, num_steps=num_steps)  # type: ignore[operator]
            for layer in self.layers
        ]

    def step(self, hidden: Tensor, caches: list[LayerCache], kept: slice) -> Tensor:
        """One embedded token per beam, (B, K, D) to (B, K, D); see `KeyValueCache.extend`."""
        for layer, cache in zip(self.layers, caches, strict=True):
            hidden = layer.step(hidden, cache, kept)  # type: ignore[operator]
        return self.norm(hidden)


class TextualHead(nn.Module):
    """A decoder per direction, between shared visual projection, embedding and output layer."""

    def __init__(
        self, num_channels: int, config: HeadConfig, vocab_size: int, *, bidirectional: bool
    ) -> None:
        super().__init__()
        self.visual_projection = Linear(num_channels, config.hidden_size)
        self.embedding = TokenEmbedding(config, vocab_size)
        self.decoders = nn.ModuleList(Decoder(config) for _ in range(1 + bidirectional))
        self.output_bias = nn.Parameter(torch.empty(vocab_size))
        self.directions = DIRECTIONS[: len(self.decoders)]
        self.initialize()

    @torch.no_grad()
    def initialize(self) -> None:
        """Weights of linear layers, attention and embeddings N(0, 0.02); padding's row is zero.

        Biases start as PyTorch starts them: those of attention at zero, others uniform within
        1 / sqrt(inputs), the output's included.
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
        """Hidden states of several readings of the same captions; `logits` scores what comes next.

        Args:
            tokens: (R, P) packed inputs, a row for each of `directions`.
            packing: Where they lie, and which see which; the same in every direction.
            grid: (B, C, h, w) feature grids.

        Returns:
            (R, P, D).
        """
        projected = self.project(grid)
        embedded = self.embedding(tokens, packing.positions)  # (R, P, D)
        readings = zip(directions, embedded, strict=True)
        return torch.stack(
            [self.decoder(direction)(hidden, packing, projected) for direction, hidden in readings]
        )

    def attention(
        self, tokens: Tensor, packing: Packing, grid: Tensor, *, direction: Direction
    ) -> Tensor:
        """Where one reading's tokens (P,) look in grids (B, C, h, w): (B, L, A, T, N)."""
        embedded = self.embedding(tokens, packing.positions)  # (P, D)
        return self.decoder(direction).attention(embedded, packing, self.project(grid))

    def project(self, grid: Tensor) -> Tensor:
        """(B, C, h, w) to (B, N, D)."""
        return self.visual_projection(grid.flatten(2).transpose(1, 2))

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., D) to (..., V)."""
        return linear(hidden, self.embedding.words.weight, self.output_bias)

    def token_losses(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy (R, P) of hidden states (R, P, D) with targets (R, P); 0 for padding.

        All directions take one product with the vocabulary. Chunks of it, computed again in the
        backward pass, took twice the time; torch's linear_cross_entropy took the same time.
        """
        logits = self.logits(hidden.flatten(0, 1))  # (R * P, V)
        losses = cross_entropy(logits, targets.flatten(), ignore_index=PAD_ID, reduction="none")
        return losses.view_as(targets)

    def decoder(self, direction: Direction) -> Decoder:
        """The decoder that reads in a direction."""
        if direction not in self.directions:
            raise ConfigError(
                f"the textual head reads {' and '.join(self.directions)}, not {direction!r}; "
                "a bidirectional one reads forward and backward"
            )
        return self.decoders[DIRECTIONS.index(direction)]  # type: ignore[return-value]

    def start(
        self, grid: Tensor, *, num_beams: int, num_steps: int, direction: Direction
    ) -> KeyValueCache:
        """An empty cache for `num_steps` steps of K beams for each grid (B, C, h, w)."""
        max_tokens = self.embedding.positions.num_embeddings
        if num_steps > max_tokens:
            raise ConfigError(
                f"captions of up to {num_steps} steps asked of a model that was built for "
                f"{max_tokens} tokens: set the decoding's max_steps to at most {max_tokens}"
            )
        layers = self.decoder(direction).start(
            self.project(grid), num_beams=num_beams, num_steps=num_steps
        )
        return KeyValueCache(layers, direction=direction)

    def step(self, tokens: Tensor, cache: KeyValueCache) -> Tensor:
        """The last token of each beam (B, K) to logits of the next (B, K, V); the cache grows."""
        embedded = self.embedding(tokens, torch.full_like(tokens, cache.position))  # (B, K, D)
        kept = cache.extend()
        return self.logits(self.decoder(cache.direction).step(embedded, cache.layers, kept))

    def no_weight_decay(self) -> set[str]:
        """Names of LayerNorms and biases inside the textual embedding and the Transformers.

        The biases of visual projection and output are decayed, as in the paper's protocol.
        """
        inside = ("embedding.", "decoders.")
        return {
            name
            for name, parameter in self.named_parameters()
            if name.startswith(inside) and parameter.dim() == 1
        }
