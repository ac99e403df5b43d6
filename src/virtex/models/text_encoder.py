"""The text encoder of contrastive learning: a Transformer whose output is at the end token.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision" (CLIP, ICML
2021), section 2.4: pre-norm, causal attention, and the initialization of its released code. In
SigLIP (Zhai et al., ICCV 2023) tokens attend to the whole caption: `causal: false`.

Departures: exact GELU, which CLIP approximates; this package's vocabulary.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from virtex.errors import ConfigError, raise_all
from virtex.models.transformer_sizes import TransformerSizes
from virtex.tokens import PAD_ID


@dataclass(frozen=True)
class TextEncoderConfig(TransformerSizes):
    """Sizes and options of the text encoder; CLIP's by default."""

    hidden_size: int = 512
    num_layers: int = 12
    causal: bool = True
    """Let a token attend to earlier tokens only (CLIP); false: to the whole caption (SigLIP)."""
    max_tokens: int = 30
    """Maximum length of a caption, start and end token included; longer texts are cut."""

    def function(self) -> dict[str, object]:
        return {**super().function(), "causal": self.causal}

    def __post_init__(self) -> None:
        problems = self.problems()
        raise_all(ConfigError, "the options of the text encoder cannot work", problems)


class TextEncoder(nn.Module):
    """A Transformer from captions to vectors."""

    def __init__(self, config: TextEncoderConfig, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        size = config.hidden_size
        self.words = nn.Embedding(vocab_size, size, padding_idx=PAD_ID)
        self.positions = nn.Parameter(torch.empty(config.max_tokens, size))
        layer = nn.TransformerEncoderLayer(
            size,
            config.heads,
            config.feedforward,
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
        """Set CLIP's initial weights, whose residual layers depend on the depth; biases are 0."""
        width_std = self.config.hidden_size**-0.5
        residual_std = width_std * (2 * self.config.num_layers) ** -0.5
        nn.init.normal_(self.words.weight, std=0.02)
        self.words.weight[PAD_ID] = 0
        nn.init.normal_(self.positions, std=0.01)
        for layer in self.transformer.layers:
            nn.init.normal_(layer.self_attn.in_proj_weight, std=width_std)
            nn.init.normal_(layer.self_attn.out_proj.weight, std=residual_std)
            nn.init.normal_(layer.linear1.weight, std=width_std * 2**-0.5)
            nn.init.normal_(layer.linear2.weight, std=residual_std)
        for name, parameter in self.transformer.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Encode captions (B, T), padded on the right, of `lengths` (B,) as vectors (B, D)."""
        num_tokens = tokens.shape[1]
        if num_tokens > self.config.max_tokens:
            raise ConfigError(
                f"captions of {num_tokens} tokens, but the text encoder was built for "
                f"{self.config.max_tokens}: cut the captions or raise text.max_tokens"
            )
        lengths = lengths.to(tokens.device, non_blocking=True)
        hidden = self.words(tokens) + self.positions[:num_tokens]  # (B, T, D)
        steps = torch.arange(num_tokens, device=tokens.device)
        if self.config.causal:
            # The end token precedes all padding, so causal attention alone hides the padding.
            future = steps > steps[:, None]  # (T, T)
            hidden = self.transformer(hidden, mask=future, is_causal=True)
        else:
            hidden = self.transformer(hidden, src_key_padding_mask=steps >= lengths[:, None])
        return hidden[torch.arange(len(tokens), device=tokens.device), lengths - 1]

    def no_weight_decay(self) -> set[str]:
        """Return the names of LayerNorm parameters and biases."""
        return {name for name, parameter in self.named_parameters() if parameter.dim() == 1}
