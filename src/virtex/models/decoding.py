"""Beam, greedy and nucleus search for captions, over a decoder's step(tokens, cache).

A token never follows itself. Log-probabilities are the model's own, without renormalization over
the tokens that are allowed; those of a prefix are included.

Departures from the released search (`original` undoes the first two):
- the start token stays in the decoder's input, so that positions are those of training;
- padding, start and mask are never generated;
- an image is done once no unfinished caption can overtake its best, which changes no result.

Until its captions differ, an image has one caption in the cache: start token and prefix are read
once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn.functional import pad

from virtex.errors import ConfigError, raise_all
from virtex.models.beam_search import BeamSearch
from virtex.models.decoding_config import DecodingConfig
from virtex.models.kv_cache import KeyValueCache
from virtex.models.running import NEVER, Running
from virtex.models.sampling import Sampling
from virtex.tokens import EOS_ID, MASK_ID, PAD_ID, SOS_ID, UNK_ID

__all__ = ["DecodingConfig", "Generated", "Rng", "Step", "check_prefix", "decode"]

STEPS_BETWEEN_CHECKS = 4
"""Steps between checks for finished images, each of which makes the host wait for the device."""


@dataclass(frozen=True)
class Generated:
    """Captions without start token, with end token if they have one, for (B,) or (B, n)."""

    tokens: Tensor
    """(..., T) int64, padded right with PAD_ID."""
    lengths: Tensor
    """(...,) int64, the end token included."""
    log_probs: Tensor
    """(...,) log-probability of the caption; -inf for captions that the search did not find."""
    backward_log_probs: Tensor | None = None
    """(...,) log-probability read right to left, if captions were ranked by it."""

    def best(self) -> Self:
        """Return the first of each image's n captions."""
        return self._map(lambda values: values[:, 0])

    def ranked(self, scores: Tensor, num_captions: int) -> Self:
        """Return each image's `num_captions` captions of highest scores (B, K), best first."""
        best = scores.argsort(dim=1, descending=True, stable=True)[:, :num_captions]  # (B, n)
        images = torch.arange(len(best), device=best.device)[:, None]
        chosen = self._map(lambda values: values[images, best])
        longest = int(chosen.lengths.max()) if best.numel() else 0
        return replace(chosen, tokens=chosen.tokens[..., :longest])

    def _map(self, function: Callable[[Tensor], Tensor]) -> Self:
        fields = ((name, value) for name, value in vars(self).items() if value is not None)
        mapped: dict[str, Any] = {name: function(value) for name, value in fields}
        return replace(self, **mapped)


Rng = torch.Generator | Sequence[torch.Generator] | Tensor
"""One random generator for all images, or one for each; or what these would draw, uniform in
[0, 1), of shape (B, num_captions, max_steps)."""
Step = Callable[[Tensor, KeyValueCache], Tensor]
"""Function from last tokens (B, K) and a cache, which it extends, to logits (B, K, V)."""


def check_prefix(prefix: Sequence[int], config: DecodingConfig) -> None:
    """Check that captions can begin with these tokens.

    Raises:
        ConfigError: They are too many, or some are no ordinary tokens.
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
    step: Step,
    cache: KeyValueCache,
    *,
    config: DecodingConfig,
    batch_size: int,
    device: torch.device | str = "cpu",
    num_captions: int = 1,
    prefix: Sequence[int] = (),
    rng: Rng | None = None,
) -> Generated:
    """Return `num_captions` captions of each of B images, (B, num_captions), best first.

    They are ranked forward only; `Captioner.generate` applies `config.backward_weight`.

    Args:
        cache: An empty cache with one caption of each image.
        prefix: Tokens, without the start token, that all captions begin with.
        rng: Randomness of nucleus sampling, the same on every device. With a generator for each
            image, its captions do not depend on the other images of the batch.

    Raises:
        ConfigError: More captions than beams, no `rng` for nucleus sampling, or an invalid prefix.
    """
    check_prefix(prefix, config)
    num_running = config.num_running(num_captions)
    search: BeamSearch | Sampling = BeamSearch(config, num_captions, num_running)
    if config.strategy == "nucleus":
        draws = _uniform(rng, (batch_size, num_captions, config.max_steps))
        search = Sampling(config, draws.to(device))
    check_every = 1 if torch.device(device).type == "cpu" else STEPS_BETWEEN_CHECKS
    finished: list[Running] = []

    images = torch.arange(batch_size, device=device)
    original = config.original
    running, logits = _begin(step, cache, images=images, prefix=prefix, original=original)
    running = search.extend(running, logits)
    for num_steps in range(len(prefix) + 1, config.max_steps):
        if num_steps % check_every == 0:
            decided = search.decided(running)
            if decided.any():
                finished.append(running.select(decided.nonzero()[:, 0]))
                remaining = (~decided).nonzero()[:, 0]
                running = running.select(remaining)
                cache.keep(remaining)
            if len(running.images) == 0:
                break
        if running.parents is not None:
            cache.reorder(running.parents)
        running = search.extend(running, step(running.last, cache))
    return _gathered([*finished, running], config=config, num_captions=num_captions)


def _begin(
    step: Step, cache: KeyValueCache, *, images: Tensor, prefix: Sequence[int], original: bool
) -> tuple[Running, Tensor]:
    """Return each image's only caption, the prefix, and the next token's logits (B, 1, V)."""
    tokens = torch.tensor([SOS_ID, *prefix], device=images.device).expand(len(images), 1, -1)
    log_probs = torch.zeros(len(images), 1, device=images.device)
    logits = step(tokens[..., 0], cache)
    if original:
        cache.drop_start()
    for position, token in enumerate(prefix, 1):
        log_probs = log_probs + logits.float().log_softmax(2)[..., token]
        logits = step(tokens[..., position], cache)
    return Running(images, tokens[..., 1:], log_probs), logits


def _gathered(parts: list[Running], *, config: DecodingConfig, num_captions: int) -> Generated:
    """Return the best captions of all images, in the order of the batch."""
    order = torch.cat([part.images for part in parts]).argsort()
    size = parts[-1].tokens.shape[2]
    padded = [pad(part.tokens, (0, size - part.tokens.shape[2]), value=EOS_ID) for part in parts]
    tokens = torch.cat(padded)[order]  # (B, K, T)
    log_probs = torch.cat([part.log_probs for part in parts])[order]  # (B, K)
    ended = tokens == EOS_ID
    after_end = ended.cumsum(2) > ended.long()
    lengths = (~after_end).sum(2)  # (B, K)
    generated = Generated(tokens.masked_fill(after_end, PAD_ID), lengths, log_probs)
    return generated.ranked(penalized(log_probs, lengths, config.length_penalty), num_captions)


def penalized(log_probs: Tensor, lengths: Tensor, penalty: float) -> Tensor:
    """Return log-probabilities over powers of lengths; missing captions, with NEVER, keep it."""
    scores = log_probs / lengths ** float(penalty)
    return scores.masked_fill(log_probs == NEVER, NEVER)


def _uniform(rng: Rng | None, size: tuple[int, ...]) -> Tensor:
    if rng is None:
        raise ConfigError("nucleus sampling draws at random: pass rng, a torch.Generator")
    if isinstance(rng, Tensor):
        assert rng.shape == size, f"random numbers {tuple(rng.shape)}, must be {size}"
        return rng
    if not isinstance(rng, torch.Generator):
        assert len(rng) == size[0]
        return torch.stack([_uniform(one, size[1:]) for one in rng])
    return torch.rand(size, generator=rng, device=rng.device)
