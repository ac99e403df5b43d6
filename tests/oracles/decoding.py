"""Decoding as one would do it by hand: every prefix computed anew, one list of tokens at a time."""

import itertools

import numpy as np

SOS, EOS = 1, 2
FORBIDDEN = {0, 1, 3}


class PrefixModel:
    """Unrelated random logits for each image and each prefix: any mix-up of histories shows."""

    def __init__(self, vocab_size, *, seed=0, end_bonus=0.0):
        self.vocab_size, self.seed, self.end_bonus = vocab_size, seed, end_bonus

    def logits(self, image, prefix):
        rng = np.random.default_rng([self.seed, image, *prefix])
        logits = 2 * rng.standard_normal(self.vocab_size).astype(np.float32)
        logits[EOS] += self.end_bonus
        return logits

    def log_probs(self, image, prefix):
        logits = self.logits(image, prefix).astype(np.float64)
        return logits - np.log(np.exp(logits).sum())


def decoder_input(tokens, original):
    """The released search showed the start token to the decoder at the first step only."""
    return list(tokens) if original and tokens else [SOS, *tokens]


def allowed_tokens(tokens, vocab_size, original):
    forbidden = set() if original else set(FORBIDDEN)
    if tokens:
        forbidden.add(tokens[-1])
    return [token for token in range(vocab_size) if token not in forbidden]


def slow_beam_search(log_probs, *, num_beams, per_node_beams, max_steps, original=False):
    """All final beams of one image as (tokens, log_prob), best first.

    `log_probs(prefix)` gives the log-probabilities of the next token.
    """
    beams = [([], 0.0)]
    for step in range(max_steps):
        candidates = []
        for tokens, total in beams:
            if tokens and tokens[-1] == EOS:
                candidates.append((tokens, total))
                continue
            row = log_probs(decoder_input(tokens, original))
            allowed = allowed_tokens(tokens, len(row), original)
            allowed.sort(key=lambda token: -row[token])
            count = num_beams if step == 0 else per_node_beams
            candidates += [([*tokens, token], total + row[token]) for token in allowed[:count]]
        beams = sorted(candidates, key=lambda beam: -beam[1])[:num_beams]
    return beams


def likeliest_caption(log_probs, *, vocab_size, max_steps):
    """The best of all captions that end or fill `max_steps`, found by scoring each of them."""
    best, best_total = None, -np.inf
    words = [token for token in range(vocab_size) if token not in FORBIDDEN | {EOS}]
    for length in range(max_steps + 1):
        for caption in itertools.product(words, repeat=length):
            if any(a == b for a, b in itertools.pairwise(caption)):
                continue
            tokens = [*caption, EOS] if length < max_steps else list(caption)
            total = sum(log_probs([SOS, *tokens[:i]])[token] for i, token in enumerate(tokens))
            if total > best_total:
                best, best_total = tokens, total
    return best, best_total


def nucleus_distribution(log_probs, *, top_p, temperature):
    """Probability of each token as a first token, the unlikely tail cut off."""
    weights = np.exp(np.asarray(log_probs) / temperature)
    weights[list(FORBIDDEN)] = 0
    probs = weights / weights.sum()
    kept, total = np.zeros_like(probs), 0.0
    for token in np.argsort(-probs):
        if total >= top_p:
            break
        kept[token] = probs[token]
        total += probs[token]
    return kept / kept.sum()
