import re
from types import SimpleNamespace

import pytest

from virtex.data.images import BadImageError
from virtex.errors import (
    ConfigError,
    did_you_mean,
    limit_of_system,
    listing,
    out_of_range,
    raise_all,
)


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        raise_all(ConfigError, "the options cannot work", ["a is 0, must be 1", "b is missing"])
    assert str(caught.value) == "the options cannot work:\n- a is 0, must be 1\n- b is missing"


@pytest.mark.parametrize(
    "error", [ConfigError("a\x1b[2J\r\nb\u202e"), BadImageError("a\x1b", "\x9b")], ids=repr
)
def test_a_message_holds_no_control_characters_but_line_breaks(error: Exception) -> None:
    text = str(error)
    assert all(letter.isprintable() or letter == "\n" for letter in text)
    assert "\\x1b" in text


def test_nothing_is_raised_where_there_is_no_problem() -> None:
    raise_all(ConfigError, "the options cannot work", [])


def test_a_hint_names_what_is_close_or_else_all() -> None:
    names = ["resnet50", "resnet101", "vit_base"]
    assert did_you_mean("resnet5", names) == "Did you mean resnet50 or resnet101?"
    assert did_you_mean("xyz", names) == "Allowed: resnet50, resnet101, vit_base."
    few = did_you_mean("xyz", (f"name{number}" for number in range(9)), few=True)
    assert few == "Allowed: name0, name1, name2 and 6 more."


def test_a_listing_names_the_first_few() -> None:
    assert listing("abc") == "a, b, c"
    assert listing(range(20)) == "0, 1, 2 and 17 more"


def test_a_number_out_of_its_range_is_told_the_end_that_it_passed() -> None:
    values = SimpleNamespace(low=0, high=5000, right=3, absent=None)
    ranges = dict.fromkeys(("low", "high", "right", "absent"), (1, 4096))
    assert out_of_range(values, ranges) == [
        "low 0 must be at least 1",
        "high 5000 must be at most 4,096",
    ]


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (MemoryError(), "more memory"),
        (OSError(28, "No space left on device"), "free some space"),
        (OSError(24, "Too many open files", "x.jpg"), "x.jpg.*ulimit -n"),
        (BlockingIOError(11, "Resource temporarily unavailable"), "ulimit -u"),
        (RuntimeError("can't start new thread"), "ulimit -u"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "more memory"),
        (ImportError("libtorch.so: failed to map segment from shared object"), "more memory"),
    ],
)
def test_an_error_of_the_system_is_told_with_its_remedy(error: Exception, remedy: str) -> None:
    assert re.search(remedy, limit_of_system(error) or "")


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes differ"), FileNotFoundError(2, "No such file"), KeyError("x")]
)
def test_another_error_is_none_of_the_system(error: Exception) -> None:
    assert limit_of_system(error) is None
