"""The report of a realistic run: complete, self-contained, with errors that name broken files."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.report.conftest import CAPTIONS, make_result, write_log
from tests.small_disk import files_of_at_most
from virtex import files
from virtex.errors import DataError
from virtex.report.findings import find
from virtex.report.report import write_report


class Links(HTMLParser):
    """Parser that collects the links and tags of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.fetched += [value or "" for name, value in attributes if name in ("src", "href")]


def read_page(path: Path) -> tuple[str, Links]:
    text, links = path.read_text(encoding="utf-8"), Links()
    links.feed(text)
    return text, links


def test_the_page_holds_everything_and_fetches_nothing(run_folder: Path) -> None:
    page = write_report([run_folder], run_folder, title="Scenes & words")
    text, links = read_page(page)
    assert page == run_folder / "report.html"
    assert links.fetched
    assert all(link.startswith("data:image/jpeg;base64,") for link in links.fetched)
    assert not re.search(r"url\(|@import|https?://", text)
    assert "script" not in links.tags
    assert links.tags.count("img") == len(CAPTIONS)
    for expected in ("Scenes &amp; words", "Captioning forward", "48.9", "+27.6", "3 min 34 s"):
        assert expected in text


def test_text_from_data_cannot_become_markup(run_folder: Path) -> None:
    text, _ = read_page(write_report([run_folder], run_folder))
    assert "&lt;b&gt;three&lt;/b&gt;" in text
    assert "<b>three" not in text
    markdown = (run_folder / "report.md").read_text(encoding="utf-8")
    assert "<b>" not in markdown.replace("\\<", "")
    assert "a triangle \\| and some circles" in markdown


def test_markdown_has_the_scores_with_the_best_in_bold(run_folder: Path) -> None:
    write_report([run_folder], run_folder)
    markdown = (run_folder / "report.md").read_text(encoding="utf-8")
    assert "| pretrain | **48.9** | +27.6 |" in markdown
    assert "| random | 21.4 |  |" in markdown
    assert "voc · train → val · 2500 and 2508 images · 64 px" in markdown


def test_given_next_steps_replace_the_default_ones(run_folder: Path) -> None:
    steps = [("Try depth", "virtex pretrain --task.head.num_layers 2")]
    text, _ = read_page(write_report([run_folder], run_folder, next_steps=steps))
    assert "virtex pretrain --task.head.num_layers 2" in text
    assert "Caption your own images" not in text


def test_a_log_alone_and_results_alone_are_enough(tmp_path: Path) -> None:
    write_log(tmp_path / "run")
    assert write_report([tmp_path / "run"], tmp_path / "a").exists()
    make_result("random", 20.0).write(tmp_path / "scores")
    text, _ = read_page(write_report([tmp_path / "scores"], tmp_path / "b"))
    assert "20.0" in text


def test_a_truncated_last_record_is_ignored(tmp_path: Path) -> None:
    write_log(tmp_path)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 2010, "train/lo')
    assert write_report([tmp_path], tmp_path).exists()


def test_files_that_are_being_written_are_ignored(run_folder: Path) -> None:
    before = find([run_folder])
    with files.replacing(run_folder / "results" / "voc07-mine-01234567.json") as temporary:
        temporary.write_text('{"protocol": ')
        assert find([run_folder]) == before
        temporary.write_bytes(next((run_folder / "results").glob("*.json")).read_bytes())


def test_a_page_that_cannot_be_written_is_a_data_error(run_folder: Path) -> None:
    with files_of_at_most(1000), pytest.raises(DataError, match=r"cannot write .*report\.md"):
        write_report([run_folder], run_folder)


def test_a_folder_given_twice_is_read_once(run_folder: Path) -> None:
    once, _ = read_page(write_report([run_folder], run_folder))
    twice, _ = read_page(write_report([run_folder, run_folder / "pretrain"], run_folder))
    assert twice == once


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("pretrain/log.jsonl", '{"step": 1}\nnonsense\n{"step": 2}\n'),
        ("pretrain/log.jsonl", '{"train/loss": 1}\n'),
        ("pretrain/log.jsonl", "[1, 2]\n"),
        ("pretrain/log.jsonl", ""),
        ("pretrain/config.yaml", "a: [1"),
        ("pretrain/config.yaml", "words"),
        ("pretrain/samples.json", '{"step": 3, "samples": [{"image": "x.jpg"}]}'),
        ("results/mine.json", '{"protocol": "voc07"}'),
        ("results/mine.json", "{"),
        ("results/mine.json", "[]"),
        ("timings.json", "[1]"),
        ("timings.json", '{"pretrain": "long"}'),
    ],
)
def test_a_broken_file_is_named(run_folder: Path, path: str, content: str) -> None:
    (run_folder / path).write_text(content)
    with pytest.raises(DataError, match=re.escape(path)):
        write_report([run_folder], run_folder)


def test_a_missing_sample_image_is_named(run_folder: Path) -> None:
    (run_folder / "pretrain/samples/1.jpg").unlink()
    with pytest.raises(DataError, match=r"1\.jpg"):
        write_report([run_folder], run_folder)


def test_missing_and_empty_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        write_report([tmp_path / "nowhere"], tmp_path)
    with pytest.raises(DataError, match="nothing to report"):
        write_report([tmp_path], tmp_path)


def test_a_report_needs_no_torch() -> None:
    code = "import sys, virtex.report.report; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_training_and_captions_within_a_protocol_are_not_runs_or_results(run_folder: Path) -> None:
    before = find([run_folder])
    results = run_folder / "results"
    write_log(results / "training" / "0123456789abcdef", num_steps=20)
    (results / "captions").mkdir()
    (results / "captions" / "0123456789abcdef.json").write_text("[]")
    assert find([run_folder]) == before
    assert find([results / "training" / "0123456789abcdef"]).runs


def test_a_run_in_a_folder_called_training_is_a_run(tmp_path: Path) -> None:
    write_log(tmp_path / "training" / "mine", num_steps=20)
    write_log(tmp_path / "training" / "mine" / "training" / "0123456789abcdef", num_steps=20)
    assert [run.name for run in find([tmp_path]).runs] == ["training/mine"]


def test_markdown_shows_the_other_scores_beside_the_headline(tmp_path: Path) -> None:
    for init, box in (("a", 41.23), ("b", None)):
        numbers = {"AP/cat": 1.0, "num_test": 9.0, "mask_AP": 35.0}
        numbers |= {} if box is None else {"box_AP": box}
        numbers["mask_AP50"] = 50.0
        make_result(init, 0.0, headline="mask_AP", numbers=numbers).write(tmp_path)
    write_report([tmp_path], tmp_path)
    lines = (tmp_path / "report.md").read_text(encoding="utf-8").splitlines()
    assert "| init | mask\\_AP, % | seeds | mask\\_AP50 | box\\_AP |" in lines
    assert "| a | **35.0** | 1 | 50.0 | 41.2 |" in lines
    assert "| b | **35.0** | 1 | 50.0 |  |" in lines
