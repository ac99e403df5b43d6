"""METEOR as pycocoevalcap's wrapper gives it; whatever is missing or fails says so."""

import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest

from virtex.errors import ConfigError
from virtex.transfer.metrics import java as java_metrics
from virtex.transfer.metrics.java import check_java_metrics, mean_spice, meteor, spice

CANDIDATES = [["a", "dog", "runs"], [], ["two", "cats", "sleeping", "on", "a", "sofa"]]
REFERENCES = [
    [["the", "dog", "is", "running"], ["a", "dog", "in", "grass"], ["dogs"]],
    [["a", "red", "bus"]],
    [["two", "cats", "sleep", "on", "the", "couch"], ["cats"]],
]


@pytest.fixture
def package() -> Path:
    found = find_spec("pycocoevalcap")
    if shutil.which("java") is None or found is None:
        pytest.skip("needs java and pycocoevalcap")
    assert found.submodule_search_locations
    return Path(found.submodule_search_locations[0])


def fake_java(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program `java` that does what the script says."""
    program = folder / "java"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


@pytest.mark.slow  # each start of the program reads 60 MB of paraphrases
def test_meteor_is_the_wrappers(package: Path) -> None:
    from pycocoevalcap.meteor.meteor import Meteor

    truths = {index: [" ".join(words) for words in own] for index, own in enumerate(REFERENCES)}
    answers = {index: [" ".join(words)] for index, words in enumerate(CANDIDATES)}
    wrapper = Meteor()
    expected = wrapper.compute_score(truths, answers)[0]
    wrapper.meteor_p.stdout.close()
    wrapper.meteor_p.stderr.close()
    assert 0.1 < expected < 0.9
    assert meteor(CANDIDATES, REFERENCES) == pytest.approx(expected, abs=1e-6)


def test_nothing_is_needed_where_neither_is_requested(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    check_java_metrics(["cider", "bleu", "rouge"])


def test_all_that_is_missing_is_named_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(java_metrics, "find_spec", lambda name: None)
    with pytest.raises(ConfigError) as raised:
        check_java_metrics(["meteor", "cider"])
    reported = str(raised.value)
    assert "install a Java runtime" in reported
    assert "pip install pycocoevalcap" in reported
    assert "cider" not in reported


def test_spice_without_corenlp_says_what_to_fetch_and_where_to_put_it(package: Path) -> None:
    if (package / "spice" / "lib" / "stanford-corenlp-3.6.0.jar").is_file():
        pytest.skip("CoreNLP is here")
    with pytest.raises(ConfigError) as raised:
        spice(CANDIDATES, REFERENCES)
    reported = str(raised.value)
    assert "https://nlp.stanford.edu/software/stanford-corenlp-full-2015-12-09.zip" in reported
    assert str(package / "spice" / "lib") in reported


def test_the_error_of_a_failed_program_shows_its_first_lines(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = "echo 'OutOfMemoryError: heap' >&2; echo '   at some.Class' >&2; exit 3"
    fake_java(tmp_path, script, monkeypatch)
    with pytest.raises(ConfigError, match=r"code 3: OutOfMemoryError: heap\."):
        meteor(CANDIDATES, REFERENCES)


def test_a_program_that_hangs_is_stopped(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_java(tmp_path, "exec sleep 100", monkeypatch)
    monkeypatch.setattr(java_metrics, "TIMEOUT", 0.2)
    with pytest.raises(ConfigError, match="did not end"):
        meteor(CANDIDATES, REFERENCES)


def test_a_program_that_prints_no_score_is_no_silent_zero(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_java(tmp_path, "echo hello", monkeypatch)
    with pytest.raises(ConfigError, match=r"no final score.*hello"):
        meteor(CANDIDATES, REFERENCES)


def test_meteor_gets_equally_many_references_of_each_caption(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = "cat references >&2; wc -l < candidates >&2; exit 1"
    fake_java(tmp_path, script, monkeypatch)
    monkeypatch.setattr(java_metrics, "MAX_LINES", 20)
    with pytest.raises(ConfigError) as raised:
        meteor(CANDIDATES, REFERENCES)
    lines = str(raised.value).partition("code 1: ")[2].split(". It may")[0].split(" / ")
    assert lines == [
        "the dog is running", "a dog in grass", "dogs", *["a red bus"] * 3,
        "two cats sleep on the couch", "cats", "two cats sleep on the couch", "3",
    ]  # fmt: skip


def test_the_mean_of_spice_leaves_out_what_has_no_score() -> None:
    rows = [{"scores": {"All": {"f": value}}} for value in (0.25, None, 0.75)]
    assert mean_spice(rows) == pytest.approx(0.5)
    with pytest.raises(ConfigError, match="none of 1"):
        mean_spice(rows[1:2])
