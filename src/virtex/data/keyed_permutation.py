"""Pseudo-random permutations that are computed position by position, in no memory.

A position below `size` is written as two digits (left, right) below a = ceil(sqrt(size)) and b, the
smallest with a * b >= size. In each round of a Feistel network one digit moves by a hash of the
other, cyclically. A result of size or more is permuted again until it is below (cycle-walking:
Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002), which about one position
in sqrt(size) needs. The hash is the last step of splitmix64 (Steele et al., OOPSLA 2014).
"""

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.uint64]
NUM_ROUNDS = 6
"""Half rounds; four make a Luby-Rackoff permutation of ideal hashes, two more are a margin."""
GOLDEN = np.uint64(0x9E37_79B9_7F4A_7C15)
HALF = np.uint64(32)


def hashed(keys: Numbers | np.uint64, values: Numbers) -> Numbers:
    """Return 64 pseudo-random bits of each pair of a key and a value."""
    bits = keys ^ (values + np.uint64(1)) * GOLDEN
    bits = (bits ^ bits >> np.uint64(30)) * np.uint64(0xBF58_476D_1CE4_E5B9)
    bits = (bits ^ bits >> np.uint64(27)) * np.uint64(0x94D0_49BB_1331_11EB)
    return bits ^ bits >> np.uint64(31)


def permuted(positions: Numbers, sizes: Numbers, keys: Numbers) -> Numbers:
    """Return where the permutation of range(size) that a key gives sends each position.

    Args:
        positions: (M,) each below its size.
        sizes: (M,) at least 1 and below 2**62.
        keys: (M,)
    """
    a = np.ceil(np.sqrt(sizes.astype(np.float64))).astype(np.uint64)
    b = (sizes + a - np.uint64(1)) // a
    result = _shuffled(positions, a, b, keys)
    while len(out := np.flatnonzero(result >= sizes)):
        result[out] = _shuffled(result[out], a[out], b[out], keys[out])
    return result


def _shuffled(numbers: Numbers, a: Numbers, b: Numbers, keys: Numbers) -> Numbers:
    """Return the Feistel network's permutation of range(a * b)."""
    left = numbers // b
    right = numbers - left * b
    for round_ in range(0, NUM_ROUNDS, 2):
        left = _moved(left, a, hashed(keys + np.uint64(round_), right))
        right = _moved(right, b, hashed(keys + np.uint64(round_ + 1), left))
    return left * b + right


def _moved(digits: Numbers, bases: Numbers, bits: Numbers) -> Numbers:
    """Return each digit moved cyclically below its base, by a number that bits choose."""
    digits = digits + ((bits >> HALF) * bases >> HALF)
    return digits - bases * (digits >= bases)
