"""Sizes of a Transformer, with what all its uses in this package have in common."""

from dataclasses import dataclass

from virtex.errors import out_of_range

HEAD_CHANNELS = 64
"""Channels of an attention head if num_heads is 0."""
MAX_WIDTH, MAX_LAYERS, MAX_TOKENS = 16_384, 256, 8_192
"""Bounds above every published model; a config beyond them is broken."""


@dataclass(frozen=True)
class TransformerSizes:
    """Width, depth and heads of a Transformer."""

    hidden_size: int
    """Width D of token vectors."""
    num_layers: int
    """Depth L, the number of layers."""
    num_heads: int = 0
    """Number of attention heads; 0 stands for hidden_size / 64."""
    feedforward_size: int = 0
    """Width of the feed-forward layers; 0 stands for 4 * hidden_size."""
    dropout: float = 0.0
    """Fraction of activations dropped in training."""

    @property
    def heads(self) -> int:
        """Number of attention heads, with 0 resolved."""
        return self.num_heads or self.hidden_size // HEAD_CHANNELS

    def function(self) -> dict[str, object]:
        """Return the options on which outputs depend and no shape of a weight does."""
        return {"num_heads": self.heads}

    @property
    def feedforward(self) -> int:
        """Width of the feed-forward layers, with 0 resolved."""
        return self.feedforward_size or 4 * self.hidden_size

    def problems(self) -> list[str]:
        """Return what is wrong with the sizes, and with the `max_tokens` of a subclass."""
        bounds = {"hidden_size": (1, MAX_WIDTH), "num_layers": (1, MAX_LAYERS)}
        bounds |= {"num_heads": (0, MAX_WIDTH), "feedforward_size": (0, 4 * MAX_WIDTH)}
        bounds["max_tokens"] = (3, MAX_TOKENS)  # room for a token between start and end
        problems = out_of_range(self, bounds)
        divisor = self.num_heads or HEAD_CHANNELS
        if self.hidden_size % divisor:
            rule = f"num_heads {divisor}" if self.num_heads else f"{divisor}: set num_heads too"
            problems.append(f"hidden_size {self.hidden_size} is not a multiple of {rule}")
        if not 0 <= self.dropout < 1:
            problems.append(f"dropout {self.dropout} must be from 0 to below 1")
        return problems
