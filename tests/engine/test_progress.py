import io

import pytest

from virtex.engine.progress import Progress

RECORD = {
    "step": 20,
    "train/loss": 3.14159,
    "train/lr": 0.1,
    "speed/images_per_second": 81.23,
    "speed/data_wait": 0.25,
}


def test_without_a_terminal_each_record_is_one_plain_line() -> None:
    stream = io.StringIO()
    with Progress(start=0, num_steps=100, stream=stream) as progress:
        progress.advance(20)
        progress.record(RECORD)
        progress.record({"step": 20, "val/loss": 2.5})
    assert stream.getvalue().splitlines() == [
        "step 20/100  loss 3.142  81.23 images/s  waiting for data 25%",
        "step 20/100  val/loss 2.5",
    ]


def test_a_resumed_run_says_so() -> None:
    stream = io.StringIO()
    with Progress(start=40, num_steps=100, stream=stream):
        pass
    assert stream.getvalue() == "resuming after step 40\n"


def test_on_a_terminal_the_loss_stands_in_the_live_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    stream = Terminal()
    with Progress(start=0, num_steps=100, stream=stream) as progress:
        progress.record(RECORD)
        progress.advance(20)
    assert "loss 3.142  81.23 images/s" in stream.getvalue()
    assert "step 20/100" not in stream.getvalue()
