"""Captions from a decoder: beam, greedy and nucleus search over step(tokens, cache).

A token never follows itself. Log-probabilities are the model's own: what is forbidden is left out,
not shared out anew; a prefix that the captions were told to begin with counts as the rest does.

Departures from the released search (`original` brings back the first two):
- the start token stays in the decoder's input, so that positions are those of training;
- padding, start and mask are never generated;
- an image is done as soon as no running caption can overtake its answer, which changes no answer.

Until captions differ, an image has one of them in the cache: start token and prefix are read once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, Self, TypeVar

import torch
from torch import Tensor

from virtex.errors import ConfigError, raise_all
from virtex.models.beam_search import BeamSearch
from virtex.models.decoding_config import DecodingConfig
from virtex.models.running import Running
from virtex.models.sampling import Sampling
from virtex.tokens import EOS_ID, MASK_ID, PAD_ID, SOS_ID, UNK_ID

__all__ = ["Cache", "DecodingConfig", "Generated", "Rng", "Step", "check_prefix", "decode"]

STEPS_BETWEEN_CHECKS = 4
"""On an accelerator, asking which images are done makes the host wait; on the CPU it is free."""


@dataclass(frozen=True)
class Generated:
    """Captions without start token, with end token where they ended; lead dims (B,) or (B, n)."""

    tokens: Tensor
    """(..., T) int64, padded right with PAD_ID."""
    lengths: Tensor
    """(...,) int64, the end token included."""
    log_probs: Tensor
    """(...,) sum of the tokens' log-probabilities; -inf where a search found too few captions."""
    backward_log_probs: Tensor | None = None
    """(...,) the same read right to left, where captions were ranked by it."""

    def best(self) -> Self:
        """The first of each image's n captions."""
        backward = self.backward_log_probs
        return replace(
            self,
            tokens=self.tokens[:, 0],
            lengths=self.lengths[:, 0],
            log_probs=self.log_probs[:, 0],
            backward_log_probs=None if backward is None else backward[:, 0],
        )


class Cache(Protocol):
    """What a decoder remembers of B images with K running captions each."""

    def reorder(self, parents: Tensor) -> None:
        """Let caption k of image b continue what was caption `parents[b, k]` (B, K').

        K' is K, or at first any number of captions that all continue the only one.
        """

    def keep(self, images: Tensor) -> None:
        """Go on with `images` (B',) alone."""

    def drop_start(self) -> None:
        """Forget the first token of all captions."""


AnyCache = TypeVar("AnyCache", bound=Cache)
Rng = torch.Generator | Sequence[torch.Generator]
"""For all images, or one for each."""
Step = Callable[[Tensor, AnyCache], Tensor]
"""Last tokens (B, K) and a cache, which grows by them, to logits (B, K, V)."""


def check_prefix(prefix: Sequence[int], config: DecodingConfig) -> None:
    """Find out whether captions can begin with these tokens.

    Raises:
        ConfigError: They are too many, or are not all words.
    """
    problems = []
    if len(prefix) >= config.max_steps:
        problems.append(
            f"its {len(prefix)} tokens leave no room in captions of at most {config.max_steps}: "
            f"shorten it to {config.max_steps - 1} tokens or raise max_steps"
        )
    if UNK_ID in prefix:
        problems.append(
            f"{list(prefix).count(UNK_ID)} of its {len(prefix)} tokens stand for characters that "
            "the vocabulary lacks: spell it with others"
        )
    if set(prefix) & {SOS_ID, EOS_ID, MASK_ID}:
        problems.append("it holds start, end or mask tokens: give the words alone")
    raise_all(ConfigError, "captions cannot begin with this prefix", problems)


@torch.no_grad()
def decode(
    step: Step[AnyCache],
    cache: AnyCache,
    *,
    config: DecodingConfig,
    batch_size: int,
    device: torch.device | str = "cpu",
    num_captions: int = 1,
    prefix: Sequence[int] = (),
    rng: Rng | None = None,
) -> Generated:
    """Write `num_captions` captions for each of B images, best first.

    They are ranked by the step's own log-probabilities; see `Captioner.generate` for
    `config.backward_weight`.

    Args:
        cache: Empty, with one caption of each image.
        prefix: Tokens without start that all captions begin with.
        rng: Randomness for nucleus sampling, from which every device draws the same; where each
            image has a generator, its captions do not depend on which others it is with.

    Returns:
        Captions with lead dims (B, num_captions).

    Raises:
        ConfigError: More captions than beams, nucleus sampling without `rng`, or a prefix that
            cannot be.
    """
    check_prefix(prefix, config)
    num_running = config.num_running(num_captions)
    search: BeamSearch | Sampling = BeamSearch(config, num_captions, num_running)
    if config.strategy == "nucleus":
        draws = _uniform(rng, (batch_size, num_captions, config.max_steps))
        search = Sampling(config, draws.to(device))
    check_every = 1 if torch.device(device).type == "cpu" else STEPS_BETWEEN_CHECKS
    written = _Written(batch_size, num_captions, config=config, device=device)

    images = torch.arange(batch_size, device=device)
    running, logits = _begin(step, cache, prefix=prefix, config=config, images=images)
    running = search.extend(running, logits)
    for num_steps in range(len(prefix) + 1, config.max_steps):
        if num_steps % check_every == 0:
            running = _set_decided_aside(search.decided(running), running, cache, written)
            if len(running.images) == 0:
                break
        if running.parents is not None:
            cache.reorder(running.parents)
        running = search.extend(running, step(running.last, cache))
    written.add(running)
    return written.trimmed()


def _begin(
    step: Step[AnyCache],
    cache: AnyCache,
    *,
    prefix: Sequence[int],
    config: DecodingConfig,
    images: Tensor,
) -> tuple[Running, Tensor]:
    """One caption of each image, which holds the prefix, and the next token's logits (B, 1, V)."""
    tokens = torch.tensor([SOS_ID, *prefix], device=images.device).expand(len(images), 1, -1)
    log_probs = torch.zeros(len(images), 1, device=images.device)
    logits = step(tokens[..., 0], cache)
    if config.original:
        cache.drop_start()
    for position, token in enumerate(prefix, 1):
        log_probs = log_probs + logits.float().log_softmax(2)[..., token]
        logits = step(tokens[..., position], cache)
    return Running(images, tokens[..., 1:], log_probs), logits


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

    def add(self, running: Running) -> None:
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
    decided: Tensor, running: Running, cache: Cache, written: _Written
) -> Running:
    """The images that are not done, in `cache` too; the others' captions go to `written`."""
    if not decided.any():
        return running
    written.add(running.select(decided.nonzero()[:, 0]))
    remaining = (~decided).nonzero()[:, 0]
    cache.keep(remaining)
    return running.select(remaining)


def _uniform(rng: Rng | None, size: tuple[int, ...]) -> Tensor:
    if rng is None:
        raise ConfigError("nucleus sampling draws at random: pass rng, a torch.Generator")
    if not isinstance(rng, torch.Generator):
        assert len(rng) == size[0]
        return torch.stack([_uniform(one, size[1:]) for one in rng])
    return torch.rand(size, generator=rng, device=rng.device)
