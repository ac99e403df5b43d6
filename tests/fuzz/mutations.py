"""Damage to files, as disks, editors, networks and attackers do it: a function of a seed."""

import copy
import json
import random
import re
from collections.abc import Callable
from typing import Any

ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 2**31, 2**63, 10**400, 0.5, 1e8, 1e308, float("nan"), float("inf"),
    "", " ", "\0", "a\x1b[31mb", "../../etc/passwd", "/dev/zero", "é" * 300, "\ud800", "-1",
    "1e999",
    [], [[]], [None], [-1], [1e8] * 6, {}, {"": None}, {"size": [1, 1], "counts": [9]},
)  # fmt: skip
"""Values where another one is expected."""
ODD_NUMBERS = (
    "-1",
    "0",
    "1e999",
    "nan",
    "99999999999999999999",
    "2147483648",
    "0x10",
    "9" * 5000,
    "",
)
NUMBER = re.compile(rb"-?\d+(?:\.\d+)?")
MAX_SPAN = 64
"""Longest piece of a file that is removed, repeated or zeroed, in bytes."""


def mutate(content: bytes, rng: random.Random) -> bytes:
    """Return damaged bytes: by structure where they are JSON, or as plain bytes or text."""
    try:
        document = json.loads(content)
    except (ValueError, UnicodeDecodeError):
        document = None
    if isinstance(document, dict | list) and rng.random() < 0.7:
        for _ in range(rng.choice((1, 1, 2, 5))):
            document = _replace_a_node(document, rng)
        return json.dumps(document).encode("utf-8", "surrogatepass")
    damaged = content
    for _ in range(rng.choice((1, 1, 1, 3))):
        damaged = rng.choice(BYTE_MUTATIONS)(damaged, rng)
    return damaged


def _replace_a_node(document: Any, rng: random.Random) -> Any:
    """Replace, remove or repeat one node of a JSON document, each level as likely."""
    if not isinstance(document, dict | list) or not document or rng.random() < 0.15:
        return copy.deepcopy(rng.choice(ODD_VALUES))
    keys = list(document) if isinstance(document, dict) else range(len(document))
    key = rng.choice(keys)
    chance = rng.random()
    if chance < 0.1:
        del document[key]
    elif chance < 0.15 and isinstance(document, list):
        document.append(copy.deepcopy(document[key]))
    else:
        document[key] = _replace_a_node(document[key], rng)
    return document


def _flip(content: bytes, rng: random.Random) -> bytes:
    damaged = bytearray(content)
    if damaged:
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def _cut_short(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def _insert(content: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(content) + 1)
    return content[:start] + rng.randbytes(rng.randrange(1, 9)) + content[start:]


def _remove_span(content: bytes, rng: random.Random) -> bytes:
    start, end = _span(content, rng)
    return content[:start] + content[end:]


def _repeat_span(content: bytes, rng: random.Random) -> bytes:
    start, end = _span(content, rng)
    return content[:end] + content[start:end] * rng.choice((1, 2, 1000)) + content[end:]


def _zero_span(content: bytes, rng: random.Random) -> bytes:
    start, end = _span(content, rng)
    return content[:start] + bytes(end - start) + content[end:]


def _replace_a_number(content: bytes, rng: random.Random) -> bytes:
    numbers = list(NUMBER.finditer(content[:200_000]))
    if not numbers:
        return _flip(content, rng)
    found = rng.choice(numbers)
    return content[: found.start()] + rng.choice(ODD_NUMBERS).encode() + content[found.end() :]


def _swap_lines(content: bytes, rng: random.Random) -> bytes:
    lines = content.splitlines(keepends=True)
    rng.shuffle(lines)
    return b"".join(lines)


def _span(content: bytes, rng: random.Random) -> tuple[int, int]:
    start = rng.randrange(len(content) + 1)
    return start, min(len(content), start + rng.randrange(1, MAX_SPAN))


BYTE_MUTATIONS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    _flip, _flip, _cut_short, _insert, _remove_span, _repeat_span, _zero_span, _replace_a_number,
    _replace_a_number, _swap_lines,
)  # fmt: skip
