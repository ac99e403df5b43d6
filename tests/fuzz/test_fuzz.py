"""A few damaged inputs of each kind (`python -m tests.fuzz` tries thousands), and the verdicts."""

from pathlib import Path

import pytest

from tests.fuzz.kinds import KINDS, Kind
from tests.fuzz.trial import Trials
from virtex.errors import DataError

NUM_EACH = 2


@pytest.mark.parametrize("name", KINDS)
def test_damaged_inputs_are_read_or_refused(name: str) -> None:
    with Trials(KINDS[name]) as trials:
        outcomes = [trials.run(seed) for seed in range(NUM_EACH)]
    assert [outcome for outcome in outcomes if outcome.is_failure] == []


class RawError(DataError):
    """An error whose text is not escaped, unlike that of others."""

    def __str__(self) -> str:
        return str(self.args[0])


def write_good(folder: Path) -> None:
    (folder / "file").write_text("good")


def read_or_raise(folder: Path, error: Exception | None) -> str:
    content = (folder / "file").read_bytes()
    if content != b"good" and error is not None:
        raise error
    return content.decode(errors="replace")


@pytest.mark.parametrize(
    ("error", "verdict", "is_failure"),
    [
        (DataError("cannot be used"), "refused", False),
        (RawError("cannot be \x1b[31mused"), "RAW CHARACTERS", True),
        (ValueError("reader"), "TRACEBACK", True),
        (None, "OTHER VALUES", True),
    ],
)
def test_the_verdict_is_on_what_the_reader_does(
    error: Exception | None, verdict: str, is_failure: bool
) -> None:
    kind = Kind(write_good, "file", lambda folder: read_or_raise(folder, error), is_checked=True)
    with Trials(kind) as trials:
        outcomes = [trials.run(seed) for seed in range(3)]
    assert {one.verdict for one in outcomes} <= {verdict, "read"}
    assert verdict in {one.verdict for one in outcomes}
    assert all(one.is_failure == (is_failure and one.verdict == verdict) for one in outcomes)


def test_a_reader_that_hangs_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.fuzz.trial.MAX_SECONDS", 0.2)

    def hang(folder: Path) -> None:
        while (folder / "file").read_bytes() != b"good":
            pass

    with Trials(Kind(write_good, "file", hang)) as trials:
        outcomes = [trials.run(seed) for seed in range(2)]
    assert [one.is_failure for one in outcomes] == [True, True]
