"""Commands whose output is closed, full or without a reader."""

import subprocess
import sys

import pytest

RUN = "import sys; from virtex.cli import main; sys.exit(main(sys.argv[1:]))"


def run(redirection: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = f"{sys.executable} -c '{RUN}' {' '.join(arguments)} {redirection}"
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("redirection", [">&-", "2>&-", "<&- >&- 2>&-", "2> /dev/full"])
def test_a_stream_that_is_closed_or_has_no_use_changes_nothing(redirection: str) -> None:
    done = run(redirection, "--help")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("redirection", "codes", "message"),
    [
        ("> /dev/full", (1, 2), "No space left on device"),
        ("| exit 0; exit ${PIPESTATUS[0]}", (0, 141), ""),
    ],
)
def test_output_that_cannot_be_written_gives_no_traceback(
    redirection: str, codes: tuple[int, int], message: str
) -> None:
    done = run(redirection, "--help")
    assert done.returncode in codes
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_an_error_that_cannot_be_told_keeps_its_exit_code() -> None:
    assert run("2> /dev/full", "pretrian").returncode == 2
    assert run("2>&-", "pretrian").returncode == 2
