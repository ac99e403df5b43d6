import gc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.sources.layouts import ANY_TEXT, message_of, write
from virtex.data.checks import (
    Problems,
    absent_files,
    is_caption,
    lines_of,
    path_inside,
    paused_collection,
    quoted,
    sha256_of_captions,
)

CAPTIONED = st.dictionaries(st.sampled_from("abc"), st.lists(st.sampled_from(["a", "b", "x y"])))


@given(CAPTIONED, CAPTIONED)
def test_a_sha256_of_captions_tells_which_image_each_belongs_to(
    one: dict[str, list[str]], other: dict[str, list[str]]
) -> None:
    first, second = (sha256_of_captions(data.keys(), data.values()) for data in (one, other))
    assert (first == second) == (list(one.items()) == list(other.items()))


def test_all_problems_are_reported_at_once_with_count_examples_and_remedy() -> None:
    problems = Problems("the data")
    problems.add("First.")
    problems.add_all("images absent", [f"{n}.jpg" for n in range(1005)], "Copy them.")
    problems.add_all("nothing", [], "Never said.")
    assert message_of(problems.check) == (
        "the data cannot be used:\n- First.\n"
        "- images absent: 1,005 (0.jpg, 1.jpg, 2.jpg and 1002 more). Copy them."
    )


def test_no_problems_raise_nothing() -> None:
    Problems("the data").check()


@given(ANY_TEXT)
def test_quoted_data_cannot_move_the_cursor(text: str) -> None:
    assert quoted(text).isprintable()
    assert len(quoted(text)) <= 103


@pytest.mark.parametrize(
    ("name", "inside"),
    [
        ("a.jpg", "a.jpg"),
        ("b/./../a.jpg", "a.jpg"),
        ("/data/set/x/a.jpg", "x/a.jpg"),
        ("../set/a.jpg", "a.jpg"),
        ("../a.jpg", None),
        ("b/../../a.jpg", None),
        ("/etc/passwd", None),
        ("/data/settings/a.jpg", None),
        ("..", None),
        (".", None),
        ("", None),
        ("a\0.jpg", None),
    ],
)
def test_a_path_is_inside_only_if_it_stays_there(name: str, inside: str | None) -> None:
    assert path_inside("/data/set", name) == inside


@given(st.lists(st.sampled_from(["..", ".", "a", "", "data", "set", "/"])).map("/".join))
def test_no_path_leaves_the_root(name: str) -> None:
    inside = path_inside("/data/set", name)
    assert inside is None or not inside.startswith(("/", "..", "./"))


@pytest.mark.parametrize(
    "letter", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e"]
)
def test_lines_end_at_line_breaks_alone(letter: str) -> None:
    assert lines_of(f"a{letter}b\n\nc\r\nd\re") == [f"a{letter}b", "", "c", "d", "e"]
    assert lines_of("a\n") == ["a"]
    assert lines_of("") == []


def test_absent_files_are_found_in_any_folder(tmp_path: Path) -> None:
    write(tmp_path / "a" / "1.jpg", b"")
    write(tmp_path / "2.jpg", b"")
    (tmp_path / "folder.jpg").mkdir()
    names = ["a/1.jpg", "2.jpg", "a/3.jpg", "b/4.jpg", "folder.jpg", "a/\ud800.jpg", "x" * 999]
    assert absent_files(tmp_path, names) == names[2:]


@pytest.mark.parametrize("value", ["", " \n", None, 3, ["a"], "\ud800"])
def test_what_is_not_text_is_no_caption(value: object) -> None:
    assert not is_caption(value)
    assert is_caption("ein Äffchen")


def test_collection_goes_on_after_an_error() -> None:
    @paused_collection()
    def fail() -> None:
        assert not gc.isenabled()
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        fail()
    assert gc.isenabled()
