"""Which files under the folders of a report are results."""

import json
from pathlib import Path

import pytest

from tests.report.conftest import make_result
from virtex.errors import DataError
from virtex.report.findings import find
from virtex.transfer.protocol import MAX_BYTES


def test_a_result_is_found_under_any_name(tmp_path: Path) -> None:
    first, second = make_result("a", 20.0), make_result("b", 30.0)
    first.write(tmp_path / "mine.json")
    second.write(tmp_path / "below" / "draw_0.json")
    assert [one.score for one in find([tmp_path]).results] == [30.0, 20.0]


def test_a_damaged_result_of_any_name_is_named(tmp_path: Path) -> None:
    make_result("a", 20.0).write(tmp_path / "results")
    path = make_result("b", 30.0).write(tmp_path / "mine.json")
    path.write_text(path.read_text()[:-3])
    found = find([tmp_path])
    assert len(found.results) == 1
    (problem,) = found.problems
    assert "mine.json is not a transfer result" in problem


def test_other_json_is_no_result(tmp_path: Path) -> None:
    path = make_result("a", 20.0).write(tmp_path / "a.json")
    text = path.read_text()
    (tmp_path / "several.json").write_text(json.dumps([json.loads(text)]))
    (tmp_path / "words.json").write_text('{"note": "protocol, headline, settings_hash"}')
    (tmp_path / "large.json").write_text(text + " " * MAX_BYTES)
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe")
    (tmp_path / "folder.json").mkdir()
    found = find([tmp_path])
    assert (len(found.results), found.problems) == (1, ())


@pytest.mark.parametrize(
    ("name", "beside"),
    [
        ("row/seed_0/result.json", "table.md"),
        ("row/seed_0/scores/few/draw_1.json", "table.md"),
        ("row/seed_0/result.json", "row/seed_0/result.options.json"),  # before the table is written
        ("row/tuning/factor_0.5/result.json", "row/tuning/options.json"),
    ],
)
def test_scores_of_a_study_are_left_to_its_own_page(name: str, beside: str, tmp_path: Path) -> None:
    path = make_result("a", 20.0).write(tmp_path / name)
    (tmp_path / beside).write_text("{}")
    for folder in (tmp_path, path.parent):
        with pytest.raises(DataError, match="nothing to report"):
            find([folder])
    make_result("b", 30.0).write(tmp_path / "row" / "mine.json")
    assert [one.score for one in find([tmp_path]).results] == [30.0]
