"""Time of decoding: beam search with and without a cache.

Without a cache the decoder computes all states of all prefixes at each step, as the released search
does; either all states are scored against the vocabulary, as in the release, or only each beam's
last. Reranked: the cached search, whose beams are then scored by the backward decoder. All use the
same grids and layers. Times are medians over rounds in which the methods alternate, compared with
the bare backbone's forward pass on the same images.

    python benchmarks/decode.py [--batch_size 8] [--threads 2] [--rounds 3] [--precision fp32]
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from virtex.models.backbone import Backbone, BackboneConfig
from virtex.models.captioner import Captioner
from virtex.models.decoding import DecodingConfig, Generated, decode
from virtex.models.kv_cache import KeyValueCache
from virtex.models.packing import Packing
from virtex.models.reranking import rerank
from virtex.models.textual_head import HeadConfig
from virtex.tokens import EOS_ID

VOCAB_SIZE = 10_000
LENGTHS = (10, 11, 11, 12, 12, 13, 14, 17)
"""Octiles of the number of tokens in COCO captions, including the end token."""
CERTAIN = 1e4
BACKBONE = "backbone's forward"
CACHED, ALL_SCORED, LAST_SCORED = "cached", "no cache, all scored", "no cache, last scored"
RERANKED = "cached, reranked"


class PrefixCache:
    """A cache of the tokens only; the decoder computes all their states at each step.

    Args:
        scored: Positions that are scored against the vocabulary; only the last is used.
    """

    def __init__(self, captioner: Captioner, grid: Tensor, *, scored: slice) -> None:
        self.head, self.scored = captioner.head, scored
        self.projected = self.head.project(grid)  # (B * K, N, D), where K is 1 at first
        self.tokens = torch.zeros(len(grid), 1, 0, dtype=torch.int64)

    def step(self, tokens: Tensor, cache: KeyValueCache) -> Tensor:
        """Return the next logits: see `Captioner.step`."""
        self.tokens = torch.cat([self.tokens, tokens[..., None]], dim=2)  # (B, K, t)
        rows = self.tokens.flatten(0, 1)
        lengths = torch.full((len(rows),), rows.shape[1])
        packing = Packing.of(lengths, device=rows.device)
        num_real = rows.numel()
        tokens = torch.cat([rows.flatten(), rows.new_zeros(len(packing.rows) - num_real)])
        hidden = self.head.embedding(tokens, packing.positions)
        hidden = self.head.decoder("forward")(hidden, packing, self.projected)[:num_real]
        states = hidden.unflatten(0, self.tokens.shape)[:, :, self.scored]  # (B, K, t or 1, D)
        return self.head.logits(states)[:, :, -1]

    def reorder(self, parents: Tensor) -> None:
        """Implement `KeyValueCache`."""
        num_beams, num_tokens = parents.shape[1], self.tokens.shape[2]
        if num_beams != self.tokens.shape[1]:
            self.projected = self.projected.repeat_interleave(num_beams, 0)
        self.tokens = self.tokens.gather(1, parents[..., None].expand(-1, -1, num_tokens))

    def keep(self, images: Tensor) -> None:
        """Implement `KeyValueCache`."""
        num_beams = self.tokens.shape[1]
        self.tokens = self.tokens[images]
        self.projected = self.projected.unflatten(0, (-1, num_beams))[images].flatten(0, 1)

    def drop_start(self) -> None:
        """Implement `KeyValueCache`."""
        self.tokens = self.tokens[..., 1:]


class Ending:
    """A cache whose captions end at given lengths, so that random weights give real lengths."""

    def __init__(
        self, cache: KeyValueCache, step: Callable[[Tensor, KeyValueCache], Tensor], lengths: Tensor
    ) -> None:
        self.cache, self.inner_step = cache, step
        self.lengths, self.num_steps = lengths, 0
        self.drop_start = cache.drop_start
        self.reorder = cache.reorder

    def step(self, tokens: Tensor, cache: KeyValueCache) -> Tensor:
        """Return logits that end each caption at its length and not earlier."""
        self.num_steps += 1
        logits = self.inner_step(tokens, self.cache)
        ends = self.lengths == self.num_steps
        logits[..., EOS_ID] = torch.where(ends, CERTAIN, -CERTAIN).to(logits.dtype)[:, None]
        return logits

    def keep(self, images: Tensor) -> None:
        """Implement `KeyValueCache`."""
        self.lengths = self.lengths[images]
        self.cache.keep(images)


def cached(
    captioner: Captioner, grid: Tensor, config: DecodingConfig, lengths: Tensor
) -> Generated:
    """Run the package's beam search on grids."""
    cache: KeyValueCache = captioner.head.start(
        grid, num_beams=1, num_steps=config.max_steps, direction="forward"
    )
    return search(Ending(cache, captioner.step, lengths), grid, config)


def reranked(
    captioner: Captioner, grid: Tensor, config: DecodingConfig, lengths: Tensor
) -> Generated:
    """Run the cached search, and rank all beams by both decoders."""
    config = replace(config, backward_weight=0.5)
    cache: KeyValueCache = captioner.head.start(
        grid, num_beams=1, num_steps=config.max_steps, direction="forward"
    )
    ending = Ending(cache, captioner.step, lengths)
    num_beams = config.num_running()
    every = decode(
        ending.step,
        ending,
        config=config,
        batch_size=len(grid),
        device=grid.device,
        num_captions=num_beams,
    )
    backward = captioner.backward_log_probs(grid, every)
    return rerank(every, backward, config=config, num_captions=1).best()


def recomputed(
    captioner: Captioner, grid: Tensor, config: DecodingConfig, lengths: Tensor, *, scored: slice
) -> Generated:
    """Run the same search without cached keys and values."""
    cache = PrefixCache(captioner, grid, scored=scored)
    return search(Ending(cache, cache.step, lengths), grid, config)


def search(ending: Ending, grid: Tensor, config: DecodingConfig) -> Generated:
    return decode(
        ending.step, ending, config=config, batch_size=len(grid), device=grid.device
    ).best()


def medians(contestants: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the median seconds of each method over alternating rounds, after a warm-up round."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds + 1):
        for name, contestant in contestants.items():
            start = time.perf_counter()
            contestant()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values[1:]) for name, values in times.items()}


@torch.no_grad()
def main() -> None:
    """Measure and print."""
    options = parse_options()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[options.precision]
    captioner = Captioner(
        Backbone(BackboneConfig("resnet50")),
        HeadConfig(),
        VOCAB_SIZE,
        bidirectional=True,
    )
    captioner = captioner.eval().to(dtype)
    images = torch.randn(options.batch_size, 3, 224, 224, dtype=dtype)
    grid = captioner.backbone(images)
    config = DecodingConfig()
    never = torch.full((options.batch_size,), config.max_steps + 1)
    real = torch.tensor(LENGTHS).repeat(options.batch_size)[: options.batch_size]
    contestants: dict[str, Callable[[], object]] = {BACKBONE: partial(captioner.backbone, images)}
    for kind, lengths in {f"{config.max_steps} steps": never, "real lengths": real}.items():
        arguments = (captioner, grid, config, lengths)
        contestants |= {
            f"{kind}, {CACHED}": partial(cached, *arguments),
            f"{kind}, {RERANKED}": partial(reranked, *arguments),
            f"{kind}, {ALL_SCORED}": partial(recomputed, *arguments, scored=slice(None)),
            f"{kind}, {LAST_SCORED}": partial(recomputed, *arguments, scored=slice(-1, None)),
        }
    if options.precision == "fp32":
        check_that_all_agree(contestants)
    print(f"{options}\nR-50 224 px, L1 H1024, V {VOCAB_SIZE}, beam 5")
    report(medians(contestants, options.rounds), options.batch_size)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    return parser.parse_args()


def check_that_all_agree(contestants: dict[str, Callable[[], object]]) -> None:
    """Check that all searches find the same captions."""
    written = [contestants[f"real lengths, {way}"]() for way in (CACHED, ALL_SCORED, LAST_SCORED)]
    first, *others = [generated.tokens for generated in written if isinstance(generated, Generated)]
    assert all(torch.equal(first, other) for other in others), "the searches disagree"


def report(seconds: dict[str, float], batch_size: int) -> None:
    """Print each method's time, and its ratios to the backbone and to the cached search."""
    print(f"{'':42}{'ms/image':>11}{'images/s':>10}{'backbones':>11}{'cached':>9}")
    for name, value in seconds.items():
        kind, _, way = name.partition(", ")
        beside = f"{value / seconds[f'{kind}, {CACHED}']:9.1f}" if way else ""
        per_image = value / batch_size
        backbones = value / seconds[BACKBONE]
        print(f"{name:42}{1000 * per_image:11.1f}{1 / per_image:10.1f}{backbones:11.2f}{beside}")


if __name__ == "__main__":
    main()
