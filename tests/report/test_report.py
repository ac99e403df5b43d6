"""The report of a realistic run: complete, self-contained, with errors that name broken files."""

import json
import os
import random
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

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


DAMAGED = [
    ("pretrain/log.jsonl", '{"step": 1}\nnonsense\n{"step": 2}\n'),
    ("pretrain/log.jsonl", '{"train/loss": 1}\n'),
    ("pretrain/log.jsonl", '{"step": 1, "train/loss": NaN}\n{"step": 2}\n'),
    ("pretrain/log.jsonl", f'{{"step": {"9" * 400}}}\n'),
    ("pretrain/log.jsonl", f'{{"step": {"9" * 5000}}}\n'),
    ("pretrain/log.jsonl", f'{{"step": 1, "a": {"[" * 3000}\n'),
    ("pretrain/log.jsonl", '{"step": 1, "train/loss": 1e300}\n'),
    ("pretrain/log.jsonl", "[1, 2]\n"),
    ("pretrain/log.jsonl", "\0\n"),
    ("pretrain/log.jsonl", ""),
    ("pretrain/config.yaml", "a: [1"),
    ("pretrain/config.yaml", "words"),
    ("pretrain/config.yaml", "1: 2"),
    ("pretrain/config.yaml", "[" * 2000),
    ("pretrain/config.yaml", "run: {num_steps: .nan}"),
    ("pretrain/samples.json", '{"step": 3, "samples": [{"image": "x.jpg"}]}'),
    ("pretrain/samples.json", '{"step": 1e400, "samples": []}'),
    ("pretrain/samples.json", '{"step": "3", "samples": {}}'),
    ("results/mine.json", '{"protocol": "voc07"}'),
    ("results/mine.json", "{"),
    ("results/mine.json", "[]"),
    ("results/mine.json", "[" * 100_000),
    ("timings.json", "[1]"),
    ("timings.json", '{"pretrain": "long"}'),
    ("timings.json", '{"pretrain": Infinity}'),
]


@pytest.mark.parametrize(("path", "content"), DAMAGED, ids=[content[:30] for _, content in DAMAGED])
def test_a_damaged_file_is_named_and_left_out(
    run_folder: Path, path: str, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    (run_folder / path).write_text(content)
    text, _ = read_page(write_report([run_folder], run_folder))
    assert path in text
    assert path in caplog.text
    assert path in (run_folder / "report.md").read_text().replace("\\", "")
    assert "48.9" in text


@pytest.mark.parametrize("key", ["numbers", "settings", "initialisation", "data", "seed", "device"])
@pytest.mark.parametrize("value", [None, [], 1e400, "text", {"init": 3}, -(10**30)], ids=str)
def test_a_result_of_other_types_is_left_out(run_folder: Path, key: str, value: object) -> None:
    path = next((run_folder / "results").glob("*.json"))
    original = json.loads(path.read_text())
    if type(original[key]) is type(value) and not isinstance(value, int | dict):
        return
    path.write_text(json.dumps({**original, key: value}))
    assert any(path.name in problem for problem in find([run_folder]).problems) == (
        (key, value) not in [("settings", {"init": 3})]
    )


def test_files_that_alone_are_damaged_are_all_in_the_error(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "log.jsonl").write_text("nonsense\n")
    with pytest.raises(DataError, match=r"(?s)nothing to report.*a/log.*b/log"):
        write_report([tmp_path], tmp_path)


def write_sample(run: Path, name: str) -> None:
    values = json.loads((run / "samples.json").read_text())
    values["samples"][0]["image"] = name
    (run / "samples.json").write_text(json.dumps(values))


def test_only_images_inside_the_run_folder_are_embedded(
    run_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = run_folder / "pretrain"
    secret = run_folder / "secret.jpg"
    secret.write_bytes((run / "samples" / "0.jpg").read_bytes())
    (run / "link.jpg").symlink_to(secret)
    (run / "loop.jpg").symlink_to(run / "loop.jpg")
    (run / "folder.jpg").mkdir()
    os.mkfifo(run / "pipe.jpg")
    (run / "words.jpg").write_text("root:x:0:0:root:/root:/bin/bash")
    (run / "cut.jpg").write_bytes(secret.read_bytes()[:500])
    Image.new("1", (5000, 5000)).save(run / "huge.png")
    names = ["../secret.jpg", str(secret), "/etc/passwd", "link.jpg", "loop.jpg", "folder.jpg",
             "pipe.jpg", "words.jpg", "cut.jpg", "huge.png", "none.jpg", "a\0b", ""]  # fmt: skip
    for name in names:
        write_sample(run, name)
        caplog.clear()
        text, links = read_page(write_report([run_folder], run_folder))
        assert links.tags.count("img") == len(CAPTIONS) - 1, name
        assert "samples.json" in caplog.text
        assert "cm9vdDp4" not in text  # "root:x" in base64


def test_an_image_inside_the_run_may_be_reached_by_a_link_to_the_run(run_folder: Path) -> None:
    (run_folder / "other").symlink_to(run_folder / "pretrain")
    _, links = read_page(write_report([run_folder / "other"], run_folder / "out"))
    assert links.tags.count("img") == len(CAPTIONS)


def test_text_that_is_no_utf8_or_controls_a_terminal_is_escaped(run_folder: Path) -> None:
    path = run_folder / "pretrain" / "samples.json"
    values = json.loads(path.read_text())
    values["samples"][0]["generated"] = "a \ud800 dog\x1b[2J\0"
    values["samples"][0]["captions"] = ["</li><script>alert(1)</script>", "| a | b |\n# title"]
    path.write_text(json.dumps(values))
    text, links = read_page(write_report([run_folder], run_folder))
    assert "a \\ud800 dog\\x1b[2J\\x00" in text
    assert "script" not in links.tags
    lines = (run_folder / "report.md").read_text(encoding="utf-8").splitlines()
    assert not any(line.startswith("# title") for line in lines)


def mutated(content: bytes, rng: random.Random) -> bytes:
    """The content with one of a dozen kinds of damage."""
    start = rng.randrange(len(content))
    end = min(len(content), start + rng.randrange(1, 40))
    values = (b"NaN", b"-1e999", b"9" * 5000, b"null", b'""', b"[" * 5000, b"{}", b"\0", b"\xff",
              b"<b>", b"1e308", b"-7", b'"\\ud800"', b"", content[:200])  # fmt: skip
    return content[:start] + rng.choice(values) + content[end:]


def replaced(content: bytes, rng: random.Random) -> bytes:
    """JSON with one value replaced by another, so that it stays JSON."""
    lines = content.splitlines(keepends=True) if b"\n{" in content[:-1] else [content]
    index = rng.randrange(len(lines))
    values = json.loads(lines[index])
    at = values
    while at:
        key = rng.choice(list(at) if isinstance(at, dict) else range(len(at)))
        if not isinstance(at[key], dict | list) or not at[key] or rng.random() < 0.3:
            others = [
                None,
                True,
                -1,
                1e308,
                5e-324,
                10**25,
                "",
                "x" * 20_000,
                [],
                {},
                [[]],
                {"": 0},
            ]
            at[key] = rng.choice(others)
            break
        at = at[key]
    lines[index] = json.dumps(values).encode() + b"\n"
    return b"".join(lines)


def test_no_mutated_file_ends_in_a_traceback(run_folder: Path) -> None:
    rng = random.Random(0)
    write_log(run_folder / "pretrain", num_steps=200)
    paths = [*(run_folder / "results").glob("*.json"), run_folder / "timings.json"]
    paths += [
        run_folder / "pretrain" / name for name in ("log.jsonl", "samples.json", "config.yaml")
    ]
    for _ in range(60):
        path = rng.choice(paths)
        original = path.read_bytes()
        change = mutated if path.suffix == ".yaml" or rng.random() < 0.5 else replaced
        path.write_bytes(change(original, rng))
        page = write_report([run_folder], run_folder / "out")
        assert page.stat().st_size < 2_000_000
        path.write_bytes(original)


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


def test_markdown_writes_losses_with_three_digits(tmp_path: Path) -> None:
    numbers = {"CIDEr-D": 71.25, "blind_CIDEr-D": 19.04, "loss": 2.314, "image_gain": 0.0312}
    make_result("a", 0.0, headline="CIDEr-D", numbers=numbers).write(tmp_path)
    write_report([tmp_path], tmp_path)
    lines = (tmp_path / "report.md").read_text(encoding="utf-8").splitlines()
    assert "| a | 71.2 | 1 | 19.0 | 2.31 | 0.0312 |" in lines


def test_results_of_two_projects_are_all_on_the_page(tmp_path: Path) -> None:
    for name, score, data in (("a", 50.0, "fog"), ("b", 70.0, "snow")):
        origin = {"init": "run", "step": 1000, "sha256": name * 64}
        identity = {"source": "classes", "root": f"/d/{data}", "names_sha256": "1"}
        result = make_result("run", score, initialisation=origin, data={"test": identity})
        result.write(tmp_path / name / "results")
    write_report([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    markdown = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    fog, snow = markdown.split("### ")[1:]
    assert "d/fog" in fog
    assert "| run, step 1000 | 50.0 | 1 |" in fog
    assert "d/snow" in snow
    assert "| run, step 1000 | 70.0 | 1 |" in snow


def test_superseded_checkpoints_are_named_in_both_formats(tmp_path: Path) -> None:
    for step, score in ((1000, 50.0), (2000, 51.0)):
        origin = {"init": "run", "step": step, "sha256": str(step)}
        make_result("run", score, initialisation=origin).write(tmp_path)
    text, _ = read_page(write_report([tmp_path], tmp_path))
    for page in (text, (tmp_path / "report.md").read_text(encoding="utf-8")):
        assert "run, step 1000: 50.0 (seed 0)." in page


def test_alarms_are_shown_in_both_formats_and_bounded(run_folder: Path) -> None:
    with (run_folder / "log.jsonl").open("a") as log:
        log.write('{"step": 40, "alarm/loss_rises": "the loss rose <b>. Try: a lower optim.lr."}\n')
        log.write('{"step": 41, "alarm/other": 3, "alarm/third": ["no text"]}\n')
        log.write(60 * '{"step": 42, "alarm/again": "again"}\n')
    text, _ = read_page(write_report([run_folder], run_folder))
    assert "the loss rose &lt;b&gt;. Try: a lower optim.lr." in text
    markdown = (run_folder / "report.md").read_text(encoding="utf-8")
    assert "- step 40: the loss rose" in markdown
    assert "no text" not in markdown
    assert markdown.count("- step 42: again") == 49
