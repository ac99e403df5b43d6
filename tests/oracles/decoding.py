"""Decoding by hand: every prefix computed from scratch, one list of tokens at a time."""

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


def repeats_an_ngram(tokens, size):
    """Whether the last `size` tokens, said in a row, were said before."""
    ngrams = [tuple(tokens[i : i + size]) for i in range(len(tokens) - size + 1)]
    return size > 0 and ngrams[-1:] != [] and ngrams[-1] in ngrams[:-1]


def allowed_tokens(tokens, vocab_size, original, no_repeat_ngram=0):
    forbidden = set() if original else set(FORBIDDEN)
    if tokens:
        forbidden.add(tokens[-1])
    return [
        token
        for token in range(vocab_size)
        if token not in forbidden and not repeats_an_ngram([*tokens, token], no_repeat_ngram)
    ]


def forced_log_prob(log_probs, tokens, original=False):
    """Log-probability of all tokens of a caption, one after the other."""
    return sum(
        log_probs(decoder_input(tokens[:i], original))[token] for i, token in enumerate(tokens)
    )


def slow_beam_search(
    log_probs,
    *,
    num_beams,
    per_node_beams,
    max_steps,
    original=False,
    prefix=(),
    no_repeat_ngram=0,
):
    """All final beams of one image as (tokens, log_prob), best first.

    `log_probs(prefix)` gives the log-probabilities of the next token.
    """
    beams = [(list(prefix), forced_log_prob(log_probs, list(prefix), original))]
    for step in range(max_steps - len(prefix)):
        candidates = []
        for tokens, total in beams:
            if tokens and tokens[-1] == EOS:
                candidates.append((tokens, total))
                continue
            row = log_probs(decoder_input(tokens, original))
            allowed = allowed_tokens(tokens, len(row), original, no_repeat_ngram)
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


def slow_ranking(captions, forward, backward, *, weight, length_penalty):
    """Captions of one image, the best first by both log-probabilities."""
    scores = [
        ((1 - weight) * ahead + weight * back) / len(tokens) ** length_penalty
        for tokens, ahead, back in zip(captions, forward, backward, strict=True)
    ]
    return [captions[number] for number in np.argsort(-np.array(scores), kind="stable")]


def nucleus_distribution(log_probs, *, top_p, temperature, top_k=0):
    """Probability of each token as a first token, the unlikely tail cut off."""
    weights = np.exp(np.asarray(log_probs) / temperature)
    weights[list(FORBIDDEN)] = 0
    weights[np.argsort(-weights)[top_k or len(weights) :]] = 0
    probs = weights / weights.sum()
    kept, total = np.zeros_like(probs), 0.0
    for token in np.argsort(-probs):
        if total >= top_p:
            break
        kept[token] = probs[token]
        total += probs[token]
    return kept / kept.sum()
