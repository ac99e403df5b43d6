"""The text encoder of a contrastive task: a Transformer, read out at the caption's end token.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision" (CLIP, ICML
2021), section 2.4: pre-norm, causal attention, and the initialisation of its released code. SigLIP
(Zhai et al., ICCV 2023) lets tokens see the whole caption: `causal: false`.

Departures: plain GELU in place of CLIP's approximation of it; this package's vocabulary.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from virtex.errors import ConfigError, raise_all
from virtex.models.transformer_sizes import HEAD_CHANNELS, size_problems
from virtex.tokens import PAD_ID


@dataclass(frozen=True)
class TextEncoderConfig:
    """Size and kind of the text encoder; CLIP's by default."""

    hidden_size: int = 512
    """Width D of token vectors."""
    num_layers: int = 12
    """Depth L."""
    num_heads: int = 0
    """Attention heads; 0 stands for hidden_size / 64."""
    feedforward_size: int = 0
    """Width of the feed-forward layers; 0 stands for 4 * hidden_size."""
    dropout: float = 0.0
    """Share of activations dropped in training."""
    causal: bool = True
    """Let a token see only the tokens before it (CLIP); false: the whole caption (SigLIP)."""
    max_tokens: int = 30
    """Longest caption, with its start and end tokens; the text of longer ones is cut."""

    def __post_init__(self) -> None:
        problems = size_problems(
            hidden_size=self.hidden_size,
            num_layers=self.num_layers,
            num_heads=self.num_heads,
            feedforward_size=self.feedforward_size,
            dropout=self.dropout,
            max_tokens=self.max_tokens,
        )
        raise_all(ConfigError, "the options of the text encoder cannot work", problems)


class TextEncoder(nn.Module):
    """Captions to vectors: tokens (B, T) int64, padded on the right, to (B, D)."""

    def __init__(self, config: TextEncoderConfig, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        size = config.hidden_size
        self.words = nn.Embedding(vocab_size, size, padding_idx=PAD_ID)
        self.positions = nn.Parameter(torch.empty(config.max_tokens, size))
        layer = nn.TransformerEncoderLayer(
            size,
            config.num_heads or size // HEAD_CHANNELS,
            config.feedforward_size or 4 * size,
            config.dropout,
            "gelu",
            batch_first=True,
            norm_first=True,
        )
        self.transformer = nn.TransformerEncoder(
            layer, config.num_layers, nn.LayerNorm(size), enable_nested_tensor=False
        )
        self.initialize()

    @torch.no_grad()
    def initialize(self) -> None:
        """CLIP's: deeper stacks write to the residual stream with smaller weights; biases are 0."""
        width_std = self.config.hidden_size**-0.5
        residual_std = width_std * (2 * self.config.num_layers) ** -0.5
        nn.init.normal_(self.words.weight, std=0.02)
        self.words.weight[PAD_ID] = 0
        nn.init.normal_(self.positions, std=0.01)
        for layer in self.transformer.layers:
            nn.init.normal_(layer.self_attn.in_proj_weight, std=width_std)  # type: ignore
            nn.init.normal_(layer.self_attn.out_proj.weight, std=residual_std)  # type: ignore
            nn.init.normal_(layer.linear1.weight, std=width_std * 2**-0.5)  # type: ignore
            nn.init.normal_(layer.linear2.weight, std=residual_std)  # type: ignore
        for name, parameter in self.transformer.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Tokens (B, T), of which the first `lengths` (B,) are real, to (B, D)."""
        num_tokens = tokens.shape[1]
        if num_tokens > self.config.max_tokens:
            raise ConfigError(
                f"captions of {num_tokens} tokens, but the text encoder was built for "
                f"{self.config.max_tokens}: cut the captions or raise text.max_tokens"
            )
        lengths = lengths.to(tokens.device)
        hidden = self.words(tokens) + self.positions[:num_tokens]  # (B, T, D)
        steps = torch.arange(num_tokens, device=tokens.device)
        if self.config.causal:
            # The end token stands before all padding, which it therefore does not see.
            future = steps[None, :] > steps[:, None]  # (T, T)
            hidden = self.transformer(hidden, mask=future, is_causal=True)
        else:
            hidden = self.transformer(hidden, src_key_padding_mask=steps >= lengths[:, None])
        return hidden[torch.arange(len(tokens), device=tokens.device), lengths - 1]

    def no_weight_decay(self) -> set[str]:
        """Names of LayerNorms and biases."""
        return {name for name, parameter in self.named_parameters() if parameter.dim() == 1}
