"""Options of decoding, for all searches."""

import math
from dataclasses import dataclass, replace
from typing import Literal, Self

from virtex.errors import ConfigError, is_integer, is_number, raise_all
from virtex.tokens import MASK_ID, PAD_ID, SOS_ID

MAX_PENALTY = 14
"""Largest exponent of a caption's length; that of 500 tokens stays within float32."""


@dataclass(frozen=True)
class DecodingConfig:
    """Options of decoding: how captions are searched for and ranked."""

    strategy: Literal["beam", "nucleus", "greedy"] = "beam"
    """beam: beam search; greedy: the likeliest token in each step; nucleus: a random caption."""
    num_beams: int = 5
    """Beam search: number of beams, the captions of an image that are kept in each step."""
    per_node_beams: int = 2
    """Beam search: number of next tokens that each beam proposes."""
    max_steps: int = 30
    """Maximum number of tokens of a caption, prefix and end token included."""
    top_p: float = 0.9
    """Nucleus: sample from the fewest tokens whose probabilities sum to at least this."""
    top_k: int = 0
    """Nucleus: sample from this many of the likeliest tokens, truncated by top_p; 0: from all."""
    temperature: float = 1.0
    """Nucleus: divisor of the logits; below 1 makes likely tokens likelier."""
    length_penalty: float = 0.0
    """Exponent in the ranking of finished captions by log p / tokens ** length_penalty; 0 ranks by
    log p, 1 by log p per token (the end token counts)."""
    no_repeat_ngram: int = 0
    """Length of n-grams that occur at most once in a caption; 1: no token twice; 0: off."""
    backward_weight: float = 0.0
    """Weight w, from 0 to 1, of the decoder that reads right to left: finished captions are ranked
    by (1 - w) log p forward + w log p backward. Beam search ranks all its beams, nucleus sampling
    the requested captions. Above 0 it takes a bidirectional model."""
    original: bool = False
    """Search as the released code: the decoder sees the start token in the first step only, and
    padding, start and mask may be generated."""

    def __post_init__(self) -> None:
        raise_all(ConfigError, "the decoding options have wrong types", self._type_problems())
        least = dict.fromkeys(("num_beams", "per_node_beams", "max_steps"), 1)
        least |= {"top_k": 0, "no_repeat_ngram": 0}
        problems = [
            f"{name} is {vars(self)[name]}, must be at least {least[name]}"
            for name in least
            if vars(self)[name] < least[name]
        ]
        if self.strategy not in ("beam", "nucleus", "greedy"):
            problems.append(f"strategy is {self.strategy!r}, must be beam, nucleus or greedy")
        if not 0 < self.top_p <= 1:
            problems.append(f"top_p is {self.top_p}, must be above 0 and at most 1")
        if not 0 < self.temperature < math.inf:
            problems.append(f"temperature is {self.temperature}, must be above 0 and finite")
        if not abs(self.length_penalty) <= MAX_PENALTY:
            problems.append(
                f"length_penalty is {self.length_penalty}, must be from {-MAX_PENALTY} to "
                f"{MAX_PENALTY}"
            )
        if not 0 <= self.backward_weight <= 1:
            problems.append(f"backward_weight is {self.backward_weight}, must be from 0 to 1")
        elif self.backward_weight and self.strategy == "greedy":
            problems.append(
                f"backward_weight is {self.backward_weight}, but strategy greedy writes a single "
                "caption, so there is nothing to rank: use beam or nucleus"
            )
        raise_all(ConfigError, "the decoding options cannot work", problems)

    def _type_problems(self) -> list[str]:
        values = vars(self)
        whole = ("num_beams", "per_node_beams", "max_steps", "top_k", "no_repeat_ngram")
        real = ("top_p", "temperature", "length_penalty", "backward_weight")
        problems = [
            f"{name} is {values[name]!r}, must be a {kind} number"
            for kind, names, test in (("whole", whole, is_integer), ("real", real, is_number))
            for name in names
            if not test(values[name])
        ]
        if not isinstance(self.original, bool):
            problems.append(f"original is {self.original!r}, must be True or False")
        return problems

    @property
    def forbidden(self) -> list[int]:
        """Ids of the tokens that are never generated."""
        return [] if self.original else [PAD_ID, SOS_ID, MASK_ID]

    def within(self, max_tokens: int) -> Self:
        """Return these options with `max_steps` limited to a model's maximum caption length."""
        return replace(self, max_steps=min(self.max_steps, max_tokens))

    def num_running(self, num_captions: int = 1) -> int:
        """Return how many captions of an image are searched at once to return `num_captions`.

        Raises:
            ConfigError: The search does not return that many captions.
        """
        most = {"beam": self.num_beams, "greedy": 1}.get(self.strategy, num_captions)
        if not is_integer(num_captions) or num_captions < 1:
            raise ConfigError(
                f"{num_captions!r} captions an image requested, must be a whole number of at "
                "least 1"
            )
        if num_captions > most:
            raise ConfigError(
                f"{num_captions} captions an image requested of strategy {self.strategy}, which "
                f"writes at most {most}: use strategy beam, raise num_beams (--beams), or use "
                "strategy nucleus (--nucleus)"
            )
        return most
