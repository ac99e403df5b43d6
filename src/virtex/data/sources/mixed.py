"""Several sources in shards as one, whose training examples are mixed by weight."""

import json
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from virtex.data.checks import sha256_of_strings
from virtex.data.example import Example, ShardCounts, Source
from virtex.data.packed import starts_of
from virtex.data.sidecars import TEXT_KEY


class MixedSource(Source):
    """The examples of all parts, one part after the other; image ids are PART/ID, from 0.

    Args:
        parts: Sources in shards.
        weights: Proportion of the training examples from each part, in any unit.
    """

    def __init__(self, parts: Sequence[Source], weights: Sequence[float]) -> None:
        self.parts = tuple(parts)
        self.weights = tuple(weight / sum(weights) for weight in weights)
        self.caption_keys = _caption_keys(parts)
        self._starts = starts_of([len(part) for part in parts]).tolist()
        counts = [part.shard_counts.counts[0] for part in parts if part.shard_counts is not None]
        assert len(counts) == len(parts) == len(weights)
        self.shard_counts = ShardCounts(tuple(counts), self.weights)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> Example:
        number, inner = self._place(index)
        example = self.parts[number][inner]
        return replace(example, image_id=f"{number}/{example.image_id}")

    def image_id(self, index: int) -> str:
        number, inner = self._place(index)
        return f"{number}/{self.parts[number].image_id(inner)}"

    def captions(self, index: int) -> tuple[str, ...]:
        number, inner = self._place(index)
        return self.parts[number].captions(inner)

    def sample_captions(self, limit: int, *, seed: int) -> Iterator[str]:
        """Yield captions of each part, in number as the weights say."""
        for part, weight in zip(self.parts, self.weights, strict=True):
            yield from part.sample_captions(max(1, round(limit * weight)), seed=seed)

    def replacements(self, index: int, rng: np.random.Generator, *, number: int) -> Iterable[int]:
        """Return the replacements in the same part."""
        part, inner = self._place(index)
        others = self.parts[part].replacements(inner, rng, number=number)
        return [self._starts[part] + other for other in others]

    def identity(self) -> dict[str, str | int]:
        identities = [part.identity() for part in self.parts]
        mixed = [
            [one["sha256"], weight] for one, weight in zip(identities, self.weights, strict=True)
        ]
        return {
            "source": "webdataset",
            "root": ", ".join(str(one["root"]) for one in identities),
            "shards": sum(int(one["shards"]) for one in identities),
            "images": len(self),
            **_keys_of(identities),
            "sha256": sha256_of_strings([json.dumps(mixed)]),
        }

    def _place(self, index: int) -> tuple[int, int]:
        """Return the part of an example, and its index there."""
        index = range(len(self))[index]
        number = bisect_right(self._starts, index) - 1
        return number, index - self._starts[number]


def _caption_keys(parts: Sequence[Source]) -> tuple[str, ...]:
    """Return the keys of all parts, if any has keys; TEXT_KEY stands for a part without."""
    if not any(part.caption_keys for part in parts):
        return ()
    return tuple(dict.fromkeys(key for part in parts for key in part.caption_keys or (TEXT_KEY,)))


def _keys_of(identities: Sequence[Mapping[str, str | int]]) -> dict[str, str]:
    """Return the caption keys of all parts, if manifests state those of some."""
    if not any("caption_keys_from" in one for one in identities):
        return {}
    keys = "; ".join(str(one.get("caption_keys", "")) for one in identities)
    return {"caption_keys": keys, "caption_keys_from": "manifest"}
