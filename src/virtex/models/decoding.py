"""Captions from a decoder: beam, greedy and nucleus search over step(tokens, cache).

Beam search is the one that the released VirTex code took from AllenNLP: each running caption
proposes its `per_node_beams` best next tokens, the `num_beams` best of all proposals survive, and
a caption that has ended goes on with nothing but the end token, at no cost. A token never follows
itself. Log-probabilities are the model's own: what is forbidden is left out, not shared out anew.
Nucleus sampling: Holtzman et al., "The Curious Case of Neural Text Degeneration", ICLR 2020,
section 3.1.

Departures from the released search (`original` brings back the first two):
- the start token stays in the decoder's input, so that positions are those of training;
- padding, start and mask are never generated;
- an image is done as soon as no running caption can overtake its answer, which changes no answer.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, Protocol, Self, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from virtex.errors import ConfigError
from virtex.tokens import EOS_ID, MASK_ID, PAD_ID, SOS_ID

NEVER = float("-inf")
STEPS_BETWEEN_CHECKS = 4
"""On an accelerator, asking which images are done makes the host wait; on the CPU it is free."""


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
    """Most tokens of a caption, its end token included."""
    top_p: float = 0.9
    """Nucleus: draw from the fewest tokens whose probabilities sum to at least this."""
    temperature: float = 1.0
    """Nucleus: divides the logits; below 1 makes likely tokens likelier."""
    length_penalty: float = 0.0
    """Beam search: captions still there at the end are ranked by log p / tokens ** this; 0 ranks
    them by log p, 1 by log p per token (the end token counts)."""
    original: bool = False
    """Search as the released code did: the decoder sees the start token at the first step only,
    and padding, start and mask may be generated."""

    def __post_init__(self) -> None:
        problems = [
            f"{name} is {getattr(self, name)}, must be at least 1"
            for name in ("num_beams", "per_node_beams", "max_steps")
            if getattr(self, name) < 1
        ]
        if self.strategy not in ("beam", "nucleus", "greedy"):
            problems.append(f"strategy is {self.strategy!r}, must be beam, nucleus or greedy")
        if not 0 < self.top_p <= 1:
            problems.append(f"top_p is {self.top_p}, must be above 0 and at most 1")
        if not self.temperature > 0:
            problems.append(f"temperature is {self.temperature}, must be above 0")
        if problems:
            raise ConfigError("decoding: " + "; ".join(problems))

    @property
    def forbidden(self) -> list[int]:
        """Tokens that are never generated."""
        return [] if self.original else [PAD_ID, SOS_ID, MASK_ID]

    def num_running(self, num_captions: int = 1) -> int:
        """How many captions of an image are followed at once to return `num_captions`.

        Raises:
            ConfigError: A beam search for more captions than it has beams.
        """
        if self.strategy == "nucleus":
            return num_captions
        num_beams = 1 if self.strategy == "greedy" else self.num_beams
        if num_captions > num_beams:
            raise ConfigError(
                f"{num_captions} captions an image asked of {num_beams} beams: raise num_beams, "
                "or use strategy nucleus"
            )
        return num_beams


@dataclass(frozen=True)
class Generated:
    """Captions without start token, with end token where they ended; lead dims (B,) or (B, n)."""

    tokens: Tensor
    """(..., T) int64, padded right with PAD_ID."""
    lengths: Tensor
    """(...,) int64, the end token included."""
    log_probs: Tensor
    """(...,) sum of the tokens' log-probabilities; -inf where a search found too few captions."""

    def best(self) -> Self:
        """The first of each image's n captions."""
        return replace(
            self,
            tokens=self.tokens[:, 0],
            lengths=self.lengths[:, 0],
            log_probs=self.log_probs[:, 0],
        )


class Cache(Protocol):
    """What a decoder remembers of B images with K running captions each."""

    def reorder(self, parents: Tensor) -> None:
        """Let caption k of image b continue what was caption `parents[b, k]` (B, K)."""

    def keep(self, images: Tensor) -> None:
        """Go on with `images` (B',) alone."""

    def drop_start(self) -> None:
        """Forget the first token of all captions."""


AnyCache = TypeVar("AnyCache", bound=Cache)
Step = Callable[[Tensor, AnyCache], Tensor]
"""Last tokens (B, K) and a cache, which grows by them, to logits (B, K, V)."""


@torch.no_grad()
def decode(
    step: Step[AnyCache],
    cache: AnyCache,
    *,
    config: DecodingConfig,
    batch_size: int,
    device: torch.device | str = "cpu",
    num_captions: int = 1,
    rng: torch.Generator | None = None,
) -> Generated:
    """Write `num_captions` captions for each of B images, best first.

    Args:
        cache: Empty, with room for `config.num_running(num_captions)` captions of each image.
        rng: Randomness for nucleus sampling, from which every device draws the same.

    Returns:
        Captions with lead dims (B, num_captions).

    Raises:
        ConfigError: More captions than beams, or nucleus sampling without `rng`.
    """
    num_running = config.num_running(num_captions)
    search: _BeamSearch | _Sampling = _BeamSearch(config, num_captions)
    if config.strategy == "nucleus":
        draws = _uniform(rng, (batch_size, num_captions, config.max_steps))
        search = _Sampling(config, draws.to(device))
    check_every = 1 if torch.device(device).type == "cpu" else STEPS_BETWEEN_CHECKS
    written = _Written(batch_size, num_captions, config=config, device=device)

    start = torch.full((batch_size, num_running), SOS_ID, device=device)
    running = search.first(step(start, cache))
    if config.original:
        cache.drop_start()
    for num_steps in range(1, config.max_steps):
        if num_steps % check_every == 0:
            running = _set_decided_aside(search.decided(running), running, cache, written)
            if len(running.images) == 0:
                break
        if num_running > 1:
            cache.reorder(running.parents)
        running = search.extend(running, step(running.last, cache))
    written.add(running)
    return written.trimmed()


@dataclass(frozen=True)
class _Running:
    """Captions being written: K of each of the B images that are not done yet."""

    images: Tensor  # (B,) their numbers in the batch
    tokens: Tensor  # (B, K, t)
    log_probs: Tensor  # (B, K)
    parents: Tensor  # (B, K) which caption of the step before each one continues

    @property
    def last(self) -> Tensor:
        return self.tokens[..., -1]  # (B, K)

    @property
    def ended(self) -> Tensor:
        return self.last == EOS_ID  # (B, K)

    def select(self, rows: Tensor) -> "_Running":
        return _Running(
            self.images[rows], self.tokens[rows], self.log_probs[rows], self.parents[rows]
        )


@dataclass(frozen=True)
class _BeamSearch:
    """Follows the likeliest captions, sorted by likelihood; greedy search is one beam."""

    config: DecodingConfig
    num_captions: int

    def first(self, logits: Tensor) -> _Running:
        """The likeliest first tokens of each image, whose beams all have the same logits."""
        batch_size, num_beams, vocab_size = logits.shape
        allowed = _allowed_log_probs(logits[:, 0], self.config.forbidden)
        log_probs, tokens = _proposals(allowed, min(num_beams, vocab_size))
        if num_beams > vocab_size:
            missing = (0, num_beams - vocab_size)
            log_probs, tokens = (
                pad(log_probs, missing, value=NEVER),
                pad(tokens, missing, value=EOS_ID),
            )
        images = torch.arange(batch_size, device=logits.device)
        return _Running(images, tokens[..., None], log_probs, torch.zeros_like(tokens))

    def extend(self, running: _Running, logits: Tensor) -> _Running:
        """The likeliest continuations by one token."""
        _, num_beams, vocab_size = logits.shape
        allowed = _allowed_log_probs(logits, self.config.forbidden, last=running.last)
        num_proposals = min(self.config.per_node_beams, vocab_size)
        log_probs, tokens = _proposals(allowed, num_proposals)  # (B, K, P)
        ended = running.ended[..., None]
        tokens = tokens.masked_fill(ended, EOS_ID)
        log_probs = torch.where(ended, _stay_ended(log_probs), log_probs)

        log_probs = (running.log_probs[..., None] + log_probs).flatten(1)  # (B, K * P)
        log_probs, winners = log_probs.topk(num_beams)  # (B, K)
        parents = winners // num_proposals
        history = running.tokens.gather(1, parents[..., None].expand_as(running.tokens))
        tokens = tokens.flatten(1).gather(1, winners)[..., None]
        return _Running(running.images, torch.cat([history, tokens], 2), log_probs, parents)

    def decided(self, running: _Running) -> Tensor:
        """Images whose answer stands, (B,): a caption that goes on can only lose likelihood."""
        if self.config.length_penalty:
            return running.ended.all(1)
        return running.ended[:, : self.num_captions].all(1)


@dataclass(frozen=True)
class _Sampling:
    """Draws each caption by itself from the nucleus of the model's distribution."""

    config: DecodingConfig
    draws: Tensor  # (B, K, max_steps) in [0, 1), all drawn ahead: no caption disturbs another's

    def first(self, logits: Tensor) -> _Running:
        """A first token for each caption."""
        log_probs, tokens = self._draw(logits, self.draws[..., 0])
        images = torch.arange(len(logits), device=logits.device)
        parents = torch.arange(tokens.shape[1], device=logits.device).expand_as(tokens)
        return _Running(images, tokens[..., None], log_probs, parents)

    def extend(self, running: _Running, logits: Tensor) -> _Running:
        """One more token for each caption."""
        draws = self.draws[running.images, :, running.tokens.shape[2]]
        log_probs, tokens = self._draw(logits, draws, last=running.last)
        tokens = tokens.masked_fill(running.ended, EOS_ID)
        tokens = torch.cat([running.tokens, tokens[..., None]], dim=2)
        log_probs = running.log_probs + log_probs.masked_fill(running.ended, 0)
        return replace(running, tokens=tokens, log_probs=log_probs)

    def decided(self, running: _Running) -> Tensor:
        """Images all of whose captions have ended, (B,)."""
        return running.ended.all(1)

    def _draw(
        self, logits: Tensor, draws: Tensor, *, last: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Tokens (B, K) by inverting the nucleus's cumulative distribution at `draws` (B, K)."""
        allowed = _allowed_log_probs(logits, self.config.forbidden, last=last)  # (B, K, V)
        probs, order = (allowed / self.config.temperature).softmax(-1).sort(-1, descending=True)
        cumulative = probs.cumsum(-1)
        in_nucleus = cumulative - probs < self.config.top_p
        mass = (probs * in_nucleus).sum(-1)  # (B, K)
        ranks = torch.searchsorted(cumulative, (draws * mass)[..., None], right=True)
        ranks = torch.minimum(ranks, in_nucleus.sum(-1, keepdim=True) - 1)
        tokens = order.gather(2, ranks)  # (B, K, 1)
        return allowed.gather(2, tokens)[..., 0], tokens[..., 0]


class _Written:
    """Room for the captions of a whole batch, filled as images are done."""

    def __init__(
        self,
        batch_size: int,
        num_captions: int,
        *,
        config: DecodingConfig,
        device: torch.device | str,
    ) -> None:
        size = (batch_size, num_captions)
        self.tokens = torch.full((*size, config.max_steps), PAD_ID, device=device)
        self.lengths = torch.zeros(size, dtype=torch.int64, device=device)
        self.log_probs = torch.zeros(size, device=device)
        self.length_penalty = config.length_penalty

    def add(self, running: _Running) -> None:
        """Keep the best captions of these images."""
        ended = running.tokens == EOS_ID
        after_end = ended.cumsum(2) > ended.long()
        tokens = running.tokens.masked_fill(after_end, PAD_ID)
        lengths = (~after_end).sum(2)  # (B, K)
        scores = running.log_probs / lengths**self.length_penalty
        best = scores.argsort(dim=1, descending=True, stable=True)
        best = best[:, : self.lengths.shape[1]]  # (B, n)
        rows = torch.arange(len(best), device=best.device)[:, None]
        self.tokens[running.images, :, : tokens.shape[2]] = tokens[rows, best]
        self.lengths[running.images] = lengths[rows, best]
        self.log_probs[running.images] = running.log_probs[rows, best]

    def trimmed(self) -> Generated:
        """All captions, padded to the longest."""
        longest = int(self.lengths.max()) if self.lengths.numel() else 0
        return Generated(self.tokens[:, :, :longest], self.lengths, self.log_probs)


def _set_decided_aside(
    decided: Tensor, running: _Running, cache: Cache, written: _Written
) -> _Running:
    """The images that are not done, in `cache` too; the others' captions go to `written`."""
    if not decided.any():
        return running
    written.add(running.select(decided.nonzero()[:, 0]))
    remaining = (~decided).nonzero()[:, 0]
    cache.keep(remaining)
    return running.select(remaining)


def _allowed_log_probs(
    logits: Tensor, forbidden: list[int], *, last: Tensor | None = None
) -> Tensor:
    """Log-probabilities (..., V) in float32, -inf for `forbidden` tokens and for the `last` one."""
    log_probs = logits.float().log_softmax(-1)
    log_probs[..., forbidden] = NEVER
    return log_probs if last is None else log_probs.scatter_(-1, last[..., None], NEVER)


def _proposals(log_probs: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` likeliest tokens, with their log-probabilities first; impossible ones end."""
    log_probs, tokens = log_probs.topk(count)
    return log_probs, tokens.masked_fill(log_probs == NEVER, EOS_ID)


def _stay_ended(log_probs: Tensor) -> Tensor:
    """What the P proposals (B, K, P) of an ended caption cost: the first nothing, no others."""
    first_is_free = torch.full_like(log_probs, NEVER)
    first_is_free[..., 0] = 0
    return first_is_free


def _uniform(rng: torch.Generator | None, size: tuple[int, ...]) -> Tensor:
    if rng is None:
        raise ConfigError("nucleus sampling draws at random: pass rng, a torch.Generator")
    return torch.rand(size, generator=rng, device=rng.device)
