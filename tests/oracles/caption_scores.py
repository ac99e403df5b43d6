"""CIDEr-D, BLEU and ROUGE-L of tokenised captions, written out slowly from their formulas."""

import math
from collections import Counter

import numpy as np


def grams(words, n):
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


def slow_cider_d(candidates, references):
    """Vectors over every n-gram there is; one entry an image."""
    num_images = len(references)
    totals = np.zeros(num_images)
    for n in (1, 2, 3, 4):
        everything = [*candidates, *(truth for truths in references for truth in truths)]
        axis = {
            gram: i for i, gram in enumerate({g for words in everything for g in grams(words, n)})
        }
        frequency = np.ones(len(axis))
        for gram, place in axis.items():
            frequency[place] = max(
                1, sum(any(gram in grams(truth, n) for truth in truths) for truths in references)
            )

        def vector(words, n=n, axis=axis, frequency=frequency):
            counts = np.zeros(len(axis))
            for gram, count in grams(words, n).items():
                counts[axis[gram]] = count
            return counts * np.log(num_images / frequency)

        for image, (words, truths) in enumerate(zip(candidates, references, strict=True)):
            own = vector(words)
            for truth in truths:
                other = vector(truth)
                lengths = np.linalg.norm(own) * np.linalg.norm(other)
                cosine = (np.minimum(own, other) * other).sum() / lengths if lengths else 0
                gap = len(grams_in_order(words)) - len(grams_in_order(truth))
                totals[image] += cosine * math.exp(-(gap**2) / 72) / 4 / len(truths) * 10
    return totals


def grams_in_order(words):
    """The word pairs, by which CIDEr-D measures lengths."""
    return [tuple(words[i : i + 2]) for i in range(len(words) - 1)]


def slow_bleu(candidates, references):
    """BLEU-1 to 4 of the corpus, with the constants by which pycocoevalcap avoids 0 / 0."""
    precisions = []
    for n in (1, 2, 3, 4):
        hits = guesses = 0
        for words, truths in zip(candidates, references, strict=True):
            for gram, count in grams(words, n).items():
                hits += min(count, max(grams(truth, n)[gram] for truth in truths))
                guesses += count
        precisions.append((hits + 1e-15) / (guesses + 1e-9))
    length = sum(map(len, candidates))
    nearest = 0
    for words, truths in zip(candidates, references, strict=True):
        nearest += sorted((abs(len(truth) - len(words)), len(truth)) for truth in truths)[0][1]
    brevity = min(1, math.exp(1 - nearest / length)) if length else 0
    return [brevity * math.prod(precisions[:n]) ** (1 / n) for n in (1, 2, 3, 4)]


def slow_common_length(words, others):
    """The longest common subsequence by its table."""
    table = np.zeros((len(words) + 1, len(others) + 1), int)
    for i, word in enumerate(words, 1):
        for j, other in enumerate(others, 1):
            table[i, j] = (
                table[i - 1, j - 1] + 1 if word == other else max(table[i - 1, j], table[i, j - 1])
            )
    return int(table[-1, -1])
