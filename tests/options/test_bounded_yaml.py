"""YAML within bounds."""

import time

import pytest

from virtex.errors import ConfigError
from virtex.options.bounded_yaml import MAX_CHARACTERS, MAX_DEPTH, load_text


def test_numbers_are_read_as_on_the_command_line() -> None:
    text = "a: 1e-3\nb: 2.5E+2\nc: 3\nd: 2020-01-01\ne: 1_000\nf: x\ng: '1e-3'\n"
    assert load_text(text) == {
        "a": 0.001, "b": 250.0, "c": 3, "d": "2020-01-01", "e": 1000, "f": "x", "g": "1e-3",
    }  # fmt: skip


def test_anchors_that_share_a_few_values_are_allowed() -> None:
    text = "base: &base {size: 3}\na: {<<: *base}\nb: *base\n"
    assert load_text(text) == {"base": {"size": 3}, "a": {"size": 3}, "b": {"size": 3}}


MERGES = "m0: &m0 {k: 1}\n" + "".join(
    f"m{level}: &m{level}\n  <<: [{', '.join([f'*m{level - 1}'] * 10)}]\n" for level in range(1, 9)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\n" * (MAX_CHARACTERS // 5 + 1), "too long"),
        ("{a: " * (MAX_DEPTH + 1) + "1" + "}" * (MAX_DEPTH + 1), "nested more than"),
        ("[" * 20_000, "nested more than"),
        ("- 1\n" * 10_001, "too many"),
        (MERGES, "too many"),
        ("a: &a\n  b: *a\n", "contains the alias"),
        ("a: &a [*a]\n", "contains the alias"),
    ],
)
def test_text_beyond_a_bound_is_refused_at_once(text: str, message: str) -> None:
    start = time.perf_counter()
    with pytest.raises(ConfigError, match=message):
        load_text(text)
    assert time.perf_counter() - start < 5


def test_the_deepest_and_the_longest_that_is_allowed_is_read() -> None:
    assert load_text("[" * MAX_DEPTH + "]" * MAX_DEPTH) is not None
    assert load_text("#" * MAX_CHARACTERS) is None
