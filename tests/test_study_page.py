"""The page of a study, from results and logs that are written by hand."""

import errno
import html
import json
import re
from pathlib import Path

import pytest

from tests.test_study import parsed
from virtex.errors import DataError
from virtex.run_data import RunData
from virtex.study import StudyConfig
from virtex.study.plan import Run, planned_runs
from virtex.study.study import write
from virtex.study.summary import Column, ScoredRow, Summary, summarize
from virtex.transfer.directions import Direction
from virtex.transfer.protocol import Result

NUMBERS = {"mAP": 40.0, "knn_mAP": 20.0}
RANDOM = {"name": "random", "pretrain": None}
SHARES = [
    {"name": "half", "pretrain": {"data": {"share": 0.5}}},
    {"name": "all", "pretrain": {}},
]


def score(run: Run, value: float, *, sha256: str | None = None, path: Path | None = None) -> None:
    """Write the result that the default column of a study reads, or that of another one."""
    Result(
        protocol="voc07",
        headline="mAP",
        numbers={**NUMBERS, "mAP": value},
        settings={"image_size": 32},
        initialisation={"init": str(run.folder), "sha256": sha256},
        data={"train": {"source": "scenes", "images": 60}, "test": {"split": "val"}},
        seed=run.seed,
        versions={"torch": "2.11"},
        device="cpu",
        seconds=1.5,
    ).write(path or run.folder / "result.json")


def log(run: Run, *, key: str, num_images: int) -> None:
    """Write the records of a run of three steps, and the number of its images."""
    records = [{"step": step, key: 3.0 - step / 2} for step in (1, 2, 3)]
    (run.folder / "log.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
    RunData({"images": num_images}).write(run.folder)


def page_of(config: StudyConfig) -> str:
    """Write table and page, and return the page."""
    write(config, planned_runs(config))
    return (config.out / "report.html").read_text()


def cells_of(config: StudyConfig) -> list[str]:
    """Return the cells of the table, as text."""
    lines = (config.out / "table.md").read_text().splitlines()
    rows = [line.strip("| ").split(" | ") for line in [lines[0], *lines[2:]]]
    return [cell.replace("**", "").replace("\\|", "|") for row in rows for cell in row]


def test_the_page_holds_the_table_the_charts_and_the_origins(tmp_path: Path) -> None:
    config = parsed(tmp_path, rows=[RANDOM, *SHARES], seeds=[0, 1])
    for index, run in enumerate(planned_runs(config)):
        score(run, 30.0 + index**2, sha256=f"{index:064x}")
        if run.is_pretrained:
            log(run, key="val/loss", num_images=12 if run.row.name == "half" else 24)
    page = page_of(config)
    assert len(cells_of(config)) == 16
    assert all(f">{html.escape(cell)}<" in page for cell in cells_of(config))
    assert "50.50 ± 6.36" in page  # of 46 and 55
    assert page.count('class="dot"') == 3
    assert page.count('class="deviation"') == 3
    assert 'aria-label="mAP on scenes over training images' in page
    assert page.count('class="whisker"') == 2
    assert "bicaptioning, validation loss over images seen: half ends at 1.50; all" in page
    assert all(f"{index:064x}" in page for index in range(6))
    assert "train: source scenes, images 60; test: split val" in page
    assert "torch 2.11" in page
    assert "What is missing" not in page
    assert not re.search(r"(?:src|href)\s*=|<script", page)  # self-contained


def test_rows_from_other_weights_of_the_same_file_name_are_drawn_apart(tmp_path: Path) -> None:
    rows = [
        {"name": f"{share} {run}", "init": f"{run}/weights.safetensors",
         "pretrain": {"data": {"share": share}}}
        for run in ("first", "second")
        for share in (0.5, 1.0)
    ]  # fmt: skip
    config = parsed(tmp_path, rows=rows)
    for run in planned_runs(config):
        score(run, 30.0)
        log(run, key="val/loss", num_images=12 if "0.5" in run.row.name else 24)
    page = page_of(config)
    assert "bicaptioning, from first" in page
    assert "bicaptioning, from second" in page


def test_losses_of_different_tasks_are_drawn_apart(tmp_path: Path) -> None:
    rows = [*SHARES, {"name": "words", "pretrain": {"task": "token_classification"}}]
    config = parsed(tmp_path, rows=rows)
    for run in planned_runs(config):
        key = "train/loss" if run.row.name == "all" else "val/loss"
        score(run, 30.0)
        log(run, key=key, num_images=24)
    page = page_of(config)
    titles = re.findall(r"<h4>([^<]*loss)</h4>", page)
    assert titles == [
        "bicaptioning, validation loss",
        "bicaptioning, training loss",
        "token_classification, validation loss",
    ]
    assert "over training images" not in page  # all rows have as many


def test_names_of_rows_are_escaped(tmp_path: Path) -> None:
    name = "<script>alert('x')</script> | \"&"
    config = parsed(tmp_path, rows=[{"name": name, "pretrain": None}])
    score(planned_runs(config)[0], 30.0)
    page = page_of(config)
    assert "<script" not in page
    assert page.count("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; | &#34;&amp;") == 3
    assert name in cells_of(config)[4].replace("  ", " ") or name in " | ".join(cells_of(config))


def test_the_page_of_an_unfinished_study_says_what_is_missing(tmp_path: Path) -> None:
    scores = [{"name": "all", "numbers": ["mAP", "knn_mAP"]}, {"name": "few", "draws": 2}]
    config = parsed(tmp_path, rows=[RANDOM, *SHARES], scores=scores)
    assert "There are no scores yet." in page_of(config)
    run = planned_runs(config)[1]
    score(run, 30.0)
    for name, draw in (("all", 0), ("few", 1)):
        path = run.folder / "scores" / name / f"draw_{draw}.json"
        Result.read(run.folder / "result.json").write(path)
    page = page_of(config)
    assert "<li>random, seed 0: all, few</li>" in page
    assert "<li>half, seed 0: few</li>" in page
    assert "<h3>all, mAP</h3>" in page
    assert "Further numbers" in page
    assert page.count("<h3>few") == 0  # none of its means is known
    (run.folder / "log.jsonl").write_text("no record\n")
    assert "no complete record of a run" in page_of(config)


def test_the_page_is_replaced_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = parsed(tmp_path, rows=[RANDOM])
    score(planned_runs(config)[0], 30.0)
    before = page_of(config)
    write_bytes = Path.write_bytes

    def fill_disk(path: Path, content: bytes) -> int:
        write_bytes(path, content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fill_disk)
    with pytest.raises(DataError, match="No space left"):
        write(config, planned_runs(config))
    assert (config.out / "report.html").read_text() == before


def bold_rows(direction: Direction, means: dict[str, list[float]]) -> set[str]:
    """Return the rows that are bold in a column of these scores."""
    rows = [ScoredRow(name, {}, {"x": values}, len(values)) for name, values in means.items()]
    column = Column("x", True, direction)
    return Summary([], [column], rows, [], []).best(column)


def test_the_best_is_bold_with_what_lies_within_its_deviation() -> None:
    means = {"a": [50.0, 54.0], "b": [51.0], "c": [20.0, 80.0], "d": [40.0, 40.0], "e": []}
    assert bold_rows("higher", means) == {"a", "b", "c"}  # 52 with a deviation of 2.83
    assert bold_rows("lower", means) == {"d"}
    assert bold_rows("neither", means) == set()
    assert bold_rows("higher", {"a": [50.0, 54.0], "b": [51.0]}) == set()  # not told apart
    assert bold_rows("higher", {"a": [50.0], "b": [49.99]}) == {"a"}


def test_a_number_of_which_a_lower_one_is_better_has_an_arrow(tmp_path: Path) -> None:
    scores = [{"name": "captions", "numbers": ["mAP", "loss", "blind_loss"]}]
    config = parsed(tmp_path, rows=[RANDOM], scores=scores)
    columns = summarize(config, planned_runs(config)).columns
    assert [column.heading for column in columns] == [
        "captions, mAP", "captions, loss ↓", "captions, blind_loss",
    ]  # fmt: skip
    assert [column.in_nats for column in columns] == [False, True, True]
    row = ScoredRow("random", {}, {column.name: [0.0312] for column in columns})
    assert [row.measured(column).text for column in columns] == ["0.03", "0.0312", "0.0312"]
