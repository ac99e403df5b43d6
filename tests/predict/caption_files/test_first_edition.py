"""Files of captions that the first edition left half-written: resumed, or refused in words.

It appended to .jsonl and .csv, and wrote .json from JSON lines in FILE.json.partial, which held
only the rows that the list had not yet.
"""

import json
from pathlib import Path

import pytest

from tests.predict.photo_run import write_images
from virtex.cli import main

OPTIONS = ["--batch_size", "3", "--nucleus", "0.9", "--num_captions", "2"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("first") / "photos", 8)


def caption(run: Path, photos: Path, out: Path) -> int:
    return main(["caption", str(run), str(photos), "--out", str(out), *OPTIONS])


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_a_file_that_was_cut_after_a_row_goes_on(
    suffix: str, run: Path, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / f"c.{suffix}"
    assert caption(run, photos, out) == 0
    expected = out.read_bytes()
    lines = expected.splitlines(keepends=True)
    out.write_bytes(b"".join(lines[: 6 if suffix == "jsonl" else 7]))
    assert caption(run, photos, out) == 0
    assert out.read_bytes() == expected


def test_a_table_that_was_cut_within_a_row_is_refused_with_the_way_out(
    run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "c.csv"
    assert caption(run, photos, out) == 0
    whole = out.read_bytes()
    for cut in (len(whole) - 1, whole.rindex(b",") - 3, 4):
        out.write_bytes(whole[:cut])
        capsys.readouterr()
        assert caption(run, photos, out) == 2
        shown = capsys.readouterr().err
        assert "may have been cut" in shown
        assert "--overwrite" in shown
        assert out.read_bytes() == whole[:cut]


def test_a_list_and_the_rows_that_it_has_not_yet_become_one(
    run: Path, photos: Path, tmp_path: Path
) -> None:
    lines, out = tmp_path / "whole.jsonl", tmp_path / "c.json"
    assert caption(run, photos, lines) == 0
    assert caption(run, photos, out) == 0
    expected = out.read_bytes()
    out.write_text(json.dumps(json.loads(expected)[:3], indent=1) + "\n")
    rows = lines.read_bytes().splitlines(keepends=True)
    out.with_name("c.json.partial").write_bytes(b"".join(rows[6:12]) + rows[12][:20])
    assert caption(run, photos, out) == 0
    assert out.read_bytes() == expected
