"""Searches over made-up models, whose cache is the plain history."""

import numpy as np
import torch

from virtex.models.decoding import decode

VOCAB_SIZE = 12


class HistoryCache:
    """Remembers whole histories (B, K, t), and which images they belong to."""

    def __init__(self, batch_size, first_image=0):
        self.images = torch.arange(first_image, first_image + batch_size)
        self.histories = torch.zeros(batch_size, 1, 0, dtype=torch.int64)
        self.batch_sizes = []

    def reorder(self, parents):
        index = parents[..., None].expand(-1, -1, self.histories.shape[2])
        self.histories = self.histories.gather(1, index)

    def keep(self, images):
        self.images, self.histories = self.images[images], self.histories[images]

    def drop_start(self):
        self.histories = self.histories[..., 1:]

    def step(self, model):
        def step(last_tokens, cache):
            assert cache is self
            self.batch_sizes.append(len(last_tokens))
            self.histories = torch.cat([self.histories, last_tokens[..., None]], dim=2)
            rows = [
                [model.logits(image, history) for history in beams]
                for image, beams in zip(self.images.tolist(), self.histories.tolist(), strict=True)
            ]
            return torch.from_numpy(np.array(rows))

        return step


def run(model, config, *, batch_size=1, first_image=0, num_captions=1, prefix=(), rng=None):
    cache = HistoryCache(batch_size, first_image)
    generated = decode(
        cache.step(model),
        cache,
        config=config,
        batch_size=batch_size,
        num_captions=num_captions,
        prefix=prefix,
        rng=rng,
    )
    return generated, cache


def captions_of(generated):
    """[image][caption] -> list of tokens without padding."""
    pairs = zip(generated.tokens.tolist(), generated.lengths.tolist(), strict=True)
    return [[row[:n] for row, n in zip(rows, lengths, strict=True)] for rows, lengths in pairs]
