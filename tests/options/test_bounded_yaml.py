"""YAML within bounds."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from virtex import cli
from virtex.errors import ConfigError
from virtex.options.bounded_yaml import MAX_CHARACTERS, MAX_DEPTH, load_text
from virtex.options.command_line import load


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


DAMAGED = {
    "null bytes": "\0\0",
    "a tag that runs code": '!!python/object/apply:os.system ["touch CODE_RAN"]',
    "an infinite number": "width: .inf",
    "no number": "width: .nan",
    "a negative number of 5,000 digits": f"width: -{'9' * 5000}",
    "a number of 80 bits": "width: 0xffffffffffffffffffff",
    "a deep list": f"width: {'[' * 1000}",
    "a date": "width: 2001-01-01",
    "a list as a key": "? [a, b]\n: 3",
    "bytes": "width: !!binary aGVsbG8=",
    "a set": "!!set {a, b}",
    "a list": "[1]",
    "nothing": "null",
    "a long text": f"width: '{'x' * 500_000}'",
    "itself": "extends: file.yaml",
    "no file": "extends: [1]",
    "two files": 'extends: "a\\nb: 1"',
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
@pytest.mark.parametrize(
    "command",
    [
        "pretrain --out out --config {file}",
        "transfer voc07 --init random --out out --config {file}",
        "study {file} --out out",
        "caption RUN a.jpg --config {file}",
        "tokenizer --out x.model --config {file}",
        "scenes --out out --config {file}",
    ],
)
def test_every_command_refuses_a_damaged_file_of_options(
    command: str, content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file.yaml").write_text(content)
    start = time.monotonic()
    assert cli.main([word.format(file="file.yaml") for word in command.split()]) == 2
    assert time.monotonic() - start < 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file.yaml"]


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("nowhere")])
def test_a_file_of_options_must_be_a_regular_one(
    make: Callable[[Path], None], tmp_path: Path
) -> None:
    make(tmp_path / "file.yaml")
    with pytest.raises(
        ConfigError, match=r"yaml: (a folder, not a file|a named pipe, not a file|No such file)"
    ):
        load(tmp_path / "file.yaml")
