"""How captions are written: the options of all searches."""

import math
from dataclasses import dataclass, replace
from typing import Literal, Self

from virtex.errors import ConfigError, raise_all
from virtex.tokens import MASK_ID, PAD_ID, SOS_ID


@dataclass(frozen=True)
class DecodingConfig:
    """How captions are written."""

    strategy: Literal["beam", "nucleus", "greedy"] = "beam"
    """beam: a likely caption; greedy: the likeliest token each time; nucleus: a random caption."""
    num_beams: int = 5
    """Beam search: how many captions of an image are followed at once."""
    per_node_beams: int = 2
    """Beam search: how many next tokens each of them may propose."""
    max_steps: int = 30
    """Most tokens of a caption, its end token and what it was told to begin with included."""
    top_p: float = 0.9
    """Nucleus: draw from the fewest tokens whose probabilities sum to at least this."""
    top_k: int = 0
    """Nucleus: draw from so many of the likeliest tokens, among which top_p then chooses; 0 stands
    for all."""
    temperature: float = 1.0
    """Nucleus: divides the logits; below 1 makes likely tokens likelier."""
    length_penalty: float = 0.0
    """Captions still there at the end are ranked by log p / tokens ** this; 0 ranks them by log p,
    1 by log p per token (the end token counts)."""
    no_repeat_ngram: int = 0
    """So many tokens in a row are never written twice in a caption; 1: no token twice; 0: off."""
    backward_weight: float = 0.0
    """Weight, from 0 to 1, of the decoder that reads right to left when finished captions are
    ranked: by (1 - w) log p forward + w log p backward. Beam search ranks all its beams, nucleus
    sampling the captions asked for. Above 0 it takes a bidirectional model."""
    original: bool = False
    """Search as the released code did: the decoder sees the start token at the first step only,
    and padding, start and mask may be generated."""

    def __post_init__(self) -> None:
        problems = [
            f"{name} is {getattr(self, name)}, must be at least {least}"
            for least, names in enumerate(
                [("top_k", "no_repeat_ngram"), ("num_beams", "per_node_beams", "max_steps")]
            )
            for name in names
            if getattr(self, name) < least
        ]
        if self.strategy not in ("beam", "nucleus", "greedy"):
            problems.append(f"strategy is {self.strategy!r}, must be beam, nucleus or greedy")
        if not 0 < self.top_p <= 1:
            problems.append(f"top_p is {self.top_p}, must be above 0 and at most 1")
        if not 0 < self.temperature < math.inf:
            problems.append(f"temperature is {self.temperature}, must be above 0 and finite")
        if not math.isfinite(self.length_penalty):
            problems.append(f"length_penalty is {self.length_penalty}, must be finite")
        if not 0 <= self.backward_weight <= 1:
            problems.append(f"backward_weight is {self.backward_weight}, must be from 0 to 1")
        elif self.backward_weight and self.strategy == "greedy":
            problems.append(
                f"backward_weight is {self.backward_weight}, but strategy greedy writes a single "
                "caption, which leaves nothing to rank: use beam or nucleus"
            )
        raise_all(ConfigError, "the decoding options cannot work", problems)

    @property
    def forbidden(self) -> list[int]:
        """Tokens that are never generated."""
        return [] if self.original else [PAD_ID, SOS_ID, MASK_ID]

    def within(self, max_tokens: int) -> Self:
        """The same, with `max_steps` cut to the longest caption that a model was built for."""
        return replace(self, max_steps=min(self.max_steps, max_tokens))

    def num_running(self, num_captions: int = 1) -> int:
        """How many captions of an image are followed at once to return `num_captions`.

        Raises:
            ConfigError: Less than one, or more than the search finds.
        """
        if num_captions < 1:
            raise ConfigError(f"{num_captions} captions an image asked for, must be at least 1")
        if self.strategy == "nucleus":
            return num_captions
        if self.strategy == "greedy":
            if num_captions > 1:
                raise ConfigError(
                    f"{num_captions} captions an image asked of strategy greedy, which writes a "
                    "single one: use beam or nucleus"
                )
            return 1
        if num_captions > self.num_beams:
            raise ConfigError(
                f"{num_captions} captions an image asked of {self.num_beams} beams: raise "
                "num_beams (--beams), or use strategy nucleus (--nucleus)"
            )
        return self.num_beams
