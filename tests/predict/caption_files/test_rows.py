"""Captions as JSON lines, JSON lists and CSV: what is written is read again."""

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtex.errors import ConfigError, DataError
from virtex.predict.caption_files.rows import (
    columns_of,
    encode_lines,
    read_converted,
    read_lines,
    rows_of,
    write_csv,
    write_json,
)
from virtex.predict.results import Caption

COLUMNS = columns_of(2, is_reranked=True)
TEXTS = st.text(st.sampled_from("a'=+-@\t\r\n,\"\\ é🐕\udcff"))
"""Paths and captions, of what is hard to write; such as a path that is not UTF-8."""


def rows(names: list[str]) -> list[dict]:
    """Two captions of each image."""
    captions = [Caption(f"={name}", -1 / 3, (), -2.0) for name in ("dog", "cat")]
    return [row for name in names for row in rows_of(name, captions, COLUMNS)]


@given(st.lists(TEXTS, unique=True, min_size=1))
@pytest.mark.parametrize("write", [write_csv, write_json])
def test_what_is_written_is_read_again(
    write: object, tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    path = tmp_path_factory.mktemp("rows") / "c"
    write(path, rows(names), COLUMNS)  # type: ignore[operator]
    assert read_converted(path, COLUMNS) == rows(names)


@pytest.mark.parametrize("start", "=+-@\t\r")
def test_no_text_of_a_table_is_a_formula(start: str, tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    caption = Caption(f"{start}1+1", -1.5, (), -2.0)
    write_csv(path, rows_of(f"{start}cmd.png", [caption], COLUMNS), COLUMNS)
    with path.open(newline="") as file:
        _, cells = csv.reader(file)
    assert cells == [f"'{start}cmd.png", "0", f"'{start}1+1", "-1.5", "-2.0"]


def test_lines_that_are_cut_anywhere_are_read_up_to_the_cut(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    whole = encode_lines(rows(["a\n🐕", "b"]))
    ends = [place + 1 for place, byte in enumerate(whole) if byte == ord("\n")]
    assert len(ends) == 4
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        found = [end for _, end in read_lines(path, COLUMNS)]
        assert found == [end for end in ends if end <= cut]
    path.write_bytes(whole[: ends[1]] + b"}\n" + whole[ends[1] :])
    with pytest.raises(DataError, match=f"what follows byte {ends[1]} is no row"):
        list(read_lines(path, COLUMNS))


@pytest.mark.parametrize("write", [write_csv, write_json])
def test_a_converted_file_that_was_cut_is_refused(write: object, tmp_path: Path) -> None:
    path = tmp_path / "c"
    write(path, rows(["a", "b"]), COLUMNS)  # type: ignore[operator]
    whole = path.read_bytes()
    for cut in range(1, len(whole)):
        path.write_bytes(whole[:cut])
        if write is write_csv and whole[:cut].count(b"\n") and whole[cut - 1 : cut] == b"\n":
            continue  # after a whole row
        with pytest.raises(ConfigError, match="may have been cut or changed"):
            read_converted(path, COLUMNS)


VALUES = {
    "image": (3, None, ["a"], True),
    "rank": (-0.5, "x", None, True),
    "caption": (5, None, ["a dog"]),
    "log_likelihood": ("b", None, True, float("nan"), float("inf"), float("-inf")),
    "backward_log_likelihood": ({}, float("-inf")),
}
"""Values of other types than the columns have."""
WRONG = [(name, value) for name, values in VALUES.items() for value in values]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_values_of_other_types_are_no_row(name: str, value: object, tmp_path: Path) -> None:
    path, (first, second) = tmp_path / "c", rows(["a"])
    path.write_bytes(encode_lines([first, {**second, name: value}]))
    start = len(encode_lines([first]))
    with pytest.raises(DataError, match=f"is damaged: what follows byte {start} is no row of"):
        list(read_lines(path, COLUMNS))
    if name != "rank":  # which a list has by its order
        write_json(path, [first, {**second, "image": "b", name: value}], COLUMNS)
        with pytest.raises(ConfigError, match="cut or changed"):
            read_converted(path, COLUMNS)


@pytest.mark.parametrize("cell", ["nan", "inf", "x", ""])
def test_cells_that_are_no_finite_numbers_are_no_row(cell: str, tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    write_csv(path, rows(["a"]), COLUMNS)
    path.write_text(path.read_text().replace("-2.0", cell))
    with pytest.raises(ConfigError, match="cut or changed"):
        read_converted(path, COLUMNS)


def test_whole_numbers_are_likelihoods(tmp_path: Path) -> None:
    path = tmp_path / "c"
    changed = [{**row, "log_likelihood": -1} for row in rows(["a"])]
    path.write_bytes(encode_lines(changed))
    assert [row for row, _ in read_lines(path, COLUMNS)] == changed
