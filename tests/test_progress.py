"""The progress bar on a terminal that records its output, and without a terminal."""

import io
import re
import sys

import pytest

from virtex.progress import ProgressBar, tracked


class Terminal(io.StringIO):
    """A stream that reports to be a terminal."""

    def isatty(self) -> bool:
        return True

    def shown(self) -> str:
        """Return the output without control sequences."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.getvalue())


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    return Terminal()


def test_the_bar_shows_title_counts_and_note(terminal: Terminal) -> None:
    with ProgressBar("captions", 20, start=5, stream=terminal) as bar:
        bar.advance(2)
        bar.note("3 [left] out")
    assert re.search(r"captions .* 7/20 .*3 \[left\] out", terminal.shown())


def test_colors_that_are_forced_make_no_file_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    file = io.StringIO()
    with ProgressBar("captions", 20, stream=file) as bar:
        bar.advance(2)
    assert file.getvalue() == ""


def test_the_bar_shows_the_number_it_is_set_to(terminal: Terminal) -> None:
    with ProgressBar("step", 20, unit="steps", stream=terminal) as bar:
        bar.reach(13)
    assert "13/20" in terminal.shown()


def test_bytes_are_shown_as_megabytes(terminal: Terminal) -> None:
    with ProgressBar("weights", 20_000_000, unit="bytes", stream=terminal) as bar:
        bar.reach(5_000_000)
    assert "5.0/20.0 MB" in terminal.shown()


def test_an_unknown_total_is_a_question_mark(terminal: Terminal) -> None:
    with ProgressBar("words", None, unit="words", stream=terminal) as bar:
        bar.advance(3)
    assert "3/?" in terminal.shown()


def test_the_speed_is_shown_in_its_unit(terminal: Terminal) -> None:
    with ProgressBar("captions", 20, stream=terminal) as bar:
        for _ in range(3):
            bar.advance()
    assert re.search(r"\d images/s", terminal.shown())


@pytest.mark.parametrize("kind", ["no terminal", "a dumb one", "another process"])
def test_without_a_terminal_nothing_is_drawn(
    kind: str, monkeypatch: pytest.MonkeyPatch, terminal: Terminal
) -> None:
    if kind == "another process":
        monkeypatch.setattr("virtex.distributed.is_main", lambda: False)
    monkeypatch.setenv("TERM", "dumb" if kind == "a dumb one" else "xterm")
    stream = io.StringIO() if kind == "no terminal" else terminal
    with ProgressBar("captions", 20, stream=stream) as bar:
        bar.advance()
        with bar.paused():
            bar.note("text")
    assert not bar.is_live
    assert stream.getvalue() == ""


def test_nothing_is_drawn_while_the_bar_is_paused(terminal: Terminal) -> None:
    with ProgressBar("captions", 20, stream=terminal) as bar:
        with bar.paused():
            before = terminal.tell()
            bar.advance()
            assert terminal.tell() == before
        assert terminal.tell() > before


def test_a_line_is_written_also_without_a_terminal() -> None:
    stream = io.StringIO()
    with ProgressBar("step", 20, stream=stream) as bar:
        bar.say("step 3 [of] 20")
    assert stream.getvalue() == "step 3 [of] 20\n"


def test_a_bar_within_another_one_replaces_it_until_it_ends(terminal: Terminal) -> None:
    other = Terminal()
    with ProgressBar("outer", 20, stream=terminal) as outer:
        with ProgressBar("inner", 5, stream=other):
            before = terminal.tell()
            outer.advance()
            assert terminal.tell() == before
        outer.advance()
    assert "inner" in other.shown()
    assert "2/20" in terminal.shown()


def test_items_are_tracked_and_the_last_may_hold_fewer(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", terminal)
    reached: list[int] = []
    monkeypatch.setattr(ProgressBar, "reach", lambda self, completed: reached.append(completed))
    assert list(tracked("abc", "batches", 5, each=2)) == ["a", "b", "c"]
    assert reached == [2, 4, 5]
    assert "batches" in terminal.shown()


def test_lines_meant_for_a_file_do_not_go_to_the_terminal(
    terminal: Terminal, capsys: pytest.CaptureFixture[str]
) -> None:
    with ProgressBar("captions", 20, stream=terminal):
        print("a caption")
    assert capsys.readouterr().out == "a caption\n"
    assert "a caption" not in terminal.shown()


class Broken(Terminal):
    """A stream on a full disk, or one whose reader has gone."""

    error: Exception = OSError(28, "No space left on device")

    def __init__(self, *, is_terminal: bool) -> None:
        super().__init__()
        self.is_terminal = is_terminal

    def isatty(self) -> bool:
        return self.is_terminal

    def write(self, text: str) -> int:
        raise self.error

    def flush(self) -> None:
        raise self.error


@pytest.mark.parametrize("is_terminal", [True, False])
@pytest.mark.parametrize("error", [OSError(28, "full"), BrokenPipeError(), ValueError("closed")])
def test_output_that_cannot_be_written_does_not_end_the_run(
    is_terminal: bool, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Broken(is_terminal=is_terminal)
    stream.error = error
    with ProgressBar("work", 2, stream=stream) as bar:
        bar.say("step 1/2")
        bar.note("note")
        bar.advance()
        with bar.paused():
            bar.reach(2)


def test_closed_standard_streams_do_not_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    with ProgressBar("work", 2) as bar:
        bar.say("step 1/2")
