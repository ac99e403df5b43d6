"""Sizes in bytes as users write them."""

import pytest

from virtex.options.sizes import bytes_of


@pytest.mark.parametrize(
    ("text", "expected"),
    [("500MB", 500_000_000), ("1GiB", 2**30), ("1.5 kb", 1500), ("77", 77), ("200GB", 200 * 10**9),
     ("1.5 TB", 1.5e12), ("512MiB", 2**29), ("2k", 2000)],
)  # fmt: skip
def test_sizes_are_read_in_the_usual_units(text: str, expected: float) -> None:
    assert bytes_of(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "0", "MB", "5 parsec", "-5MB", "1e9", "٣MB", "many", "1PB", "9" * 30, "999999999TB"],
)
def test_what_is_no_size_is_0(text: str) -> None:
    assert bytes_of(text) == 0
