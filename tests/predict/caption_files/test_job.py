"""`virtex caption` on files and folders: what it prints, writes, leaves out and refuses."""

import csv
import io
import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.predict.photo_run import save_run, write_images
from virtex.cli import main
from virtex.data.tokenizer import Tokenizer
from virtex.errors import ConfigError, DataError
from virtex.models.decoding import DecodingConfig
from virtex.predict.attention_figures import strip_name
from virtex.predict.caption_files.image_batches import image_batches
from virtex.predict.caption_files.image_lists import find_images
from virtex.predict.caption_files.job import caption_batch, caption_files, load_writer
from virtex.predict.caption_files.options import CaptionFilesConfig
from virtex.predict.loading import load_captioner
from virtex.predict.predictor import Caption
from virtex.tasks.base import Task
from virtex.tokens import SOS_ID


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_images(tmp_path / "photos", 5)


def rows_of(path: Path) -> list[dict]:
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            return list(csv.DictReader(file))
    if path.suffix == ".json":
        return json.loads(path.read_text())
    return [json.loads(line) for line in path.read_text().splitlines()]


def printed(capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    return [line.split("\t") for line in capsys.readouterr().out.splitlines()]


def captions_of_folder(run: Path, photos: Path) -> list[tuple[str, Caption]]:
    """Paths and captions by the same arithmetic, so that beams that nearly tie do not differ."""
    predictor, writing = load_writer(CaptionFilesConfig(str(run)))
    paths = find_images([photos])
    (batch,) = image_batches(paths, [range(len(paths))], predictor.image)
    return [(name, captions[0]) for name, captions in caption_batch(batch, predictor, writing)]


def test_each_image_is_a_line_of_path_and_caption(
    run: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["caption", str(run), str(photos)]) == 0
    expected = [[path, caption.text] for path, caption in captions_of_folder(run, photos)]
    assert len({text for _, text in expected}) > 1
    assert printed(capsys) == expected


def test_captions_are_those_of_the_predictor(run: Path, photos: Path) -> None:
    found = [caption.log_likelihood for _, caption in captions_of_folder(run, photos)]
    expected = load_captioner(run).caption(find_images([photos]))
    assert found == pytest.approx([one.log_likelihood for one in expected], abs=1e-4)


def test_a_line_stays_a_line_whatever_the_file_is_called(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_images(tmp_path / "p", 1) / "photo0.png"
    path.rename(path.with_name("a\tb\nc\x1b[31m\udcff.png"))
    assert main(["caption", str(run), str(tmp_path / "p"), "--out", str(tmp_path / "c.jsonl")]) == 0
    ((shown, caption),) = printed(capsys)
    assert shown.endswith(r"a\tb\nc\x1b[31m\udcff.png")
    (row,) = rows_of(tmp_path / "c.jsonl")
    assert Path(row["image"]).is_file()
    assert row["caption"] == caption


@pytest.mark.parametrize("suffix", ["json", "jsonl", "csv"])
def test_every_format_holds_image_caption_and_likelihood(
    suffix: str, run: Path, photos: Path, tmp_path: Path
) -> None:
    (photos / "photo0.png").rename(photos / 'a, "b"\r\nc.png')
    out = tmp_path / "deep" / f"c.{suffix}"
    assert main(["caption", str(run), str(photos), "--out", str(out)]) == 0
    rows = rows_of(out)
    assert [list(row) for row in rows] == [["image", "caption", "log_likelihood"]] * 5
    expected = captions_of_folder(run, photos)
    assert [(row["image"], row["caption"], float(row["log_likelihood"])) for row in rows] == [
        (path, caption.text, caption.log_likelihood) for path, caption in expected
    ]
    beside = {path.name for path in out.parent.iterdir()}
    assert beside == {out.name, f"{out.name}.settings.json", f".{out.name}.lock"}


def test_json_writes_the_same_file_as_out(run: Path, photos: Path, tmp_path: Path) -> None:
    assert main(["caption", str(run), str(photos), "--json", str(tmp_path / "captions")]) == 0
    assert len(json.loads((tmp_path / "captions").read_text())) == 5


def test_several_captions_are_ranked_rows_or_a_list(
    run: Path, photos: Path, tmp_path: Path
) -> None:
    for suffix in ("json", "jsonl", "csv"):
        out = tmp_path / f"c.{suffix}"
        assert (
            main(["caption", str(run), str(photos), "--num_captions", "3", "--out", str(out)]) == 0
        )
    rows = rows_of(tmp_path / "c.jsonl")
    assert [row["rank"] for row in rows] == [0, 1, 2] * 5
    assert len({row["image"] for row in rows}) == 5
    assert [row["caption"] for row in rows_of(tmp_path / "c.csv")] == [r["caption"] for r in rows]
    entries = rows_of(tmp_path / "c.json")
    assert [one for entry in entries for one in entry["captions"]] == [
        {"caption": row["caption"], "log_likelihood": row["log_likelihood"]} for row in rows
    ]


def test_reranked_captions_have_the_backward_likelihood(
    run: Path, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "c.jsonl"
    flags = ["--backward_weight", "0.5", "--num_captions", "2", "--out", str(out)]
    assert main(["caption", str(run), str(photos), *flags]) == 0
    rows = rows_of(out)
    backward = [row["backward_log_likelihood"] for row in rows]
    assert all(value < 0 for value in backward)
    assert len(set(backward)) > 5
    sums = [row["log_likelihood"] + row["backward_log_likelihood"] for row in rows]
    assert all(first >= second for first, second in zip(sums[::2], sums[1::2], strict=True))


def test_a_corrupt_file_is_named_and_the_others_are_captioned(
    run: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "photo1.png").write_bytes(b"not an image")
    whole = (photos / "photo3.png").read_bytes()
    (photos / "photo3.png").write_bytes(whole[: len(whole) // 2])
    assert main(["caption", str(run), str(photos), "--batch_size", "2"]) == 0
    shown = capsys.readouterr()
    assert shown.out.count("\n") == 3
    assert re.search(r"left out: bad image \S*photo1\.png: not an image in a known", shown.err)
    assert "photo3.png" in shown.err
    assert shown.err.endswith("captioned 3 of 5 images; 2 could not be read\n")


def test_it_is_an_error_when_no_image_can_be_read(
    run: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in photos.iterdir():
        path.write_bytes(b"not an image")
    assert main(["caption", str(run), str(photos)]) == 2
    assert "none of 5 images can be read" in capsys.readouterr().err


def test_too_many_bad_images_end_the_run_and_what_is_written_stays(
    run: Path, photos: Path, tmp_path: Path
) -> None:
    for number in (2, 3):
        (photos / f"photo{number}.png").write_bytes(b"not an image")
    out = tmp_path / "c.jsonl"
    config = CaptionFilesConfig(
        str(run), (str(photos),), out=out, batch_size=2, bad_image_limit=0.3
    )
    with pytest.raises(DataError, match=r"2 of 5 images cannot be read, more than the 30.00%"):
        caption_files(config)
    assert [Path(row["image"]).name for row in rows_of(out)] == ["photo0.png", "photo1.png"]


def test_workers_change_nothing(run: Path, photos: Path, tmp_path: Path) -> None:
    (photos / "photo1.png").write_bytes(b"not an image")
    for workers in ("0", "2"):
        flags = ["--num_workers", workers, "--batch_size", "2"]
        out = tmp_path / f"{workers}.jsonl"
        assert main(["caption", str(run), str(photos), *flags, "--out", str(out)]) == 0
    assert (tmp_path / "0.jsonl").read_bytes() == (tmp_path / "2.jsonl").read_bytes()


def test_sampled_captions_depend_on_seed_and_name_alone(
    run: Path, photos: Path, tmp_path: Path
) -> None:
    def sampled(*arguments: str) -> dict[str, str]:
        out = tmp_path / "c.jsonl"
        flags = ["--nucleus", "0.9", "--out", str(out), "--overwrite"]
        assert main(["caption", str(run), *flags, *arguments]) == 0
        return {row["image"]: row["caption"] for row in rows_of(out)}

    together = sampled(str(photos))
    assert len(set(together.values())) > 1
    assert sampled(str(photos), "--batch_size", "2") == together
    last = str(photos / "photo4.png")
    assert sampled(last) == {last: together[last]}
    assert sampled(str(photos), "--seed", "1") != together
    copy = photos / "copy.png"
    copy.write_bytes((photos / "photo4.png").read_bytes())
    assert len({sampled(str(copy), "--num_captions", "4")[str(copy)] for _ in "12"}) == 1
    twins = sampled(str(photos), "--num_captions", "4", "--temperature", "2")
    assert twins[str(copy)] != twins[last]


def test_captions_begin_with_the_prefix(
    run: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["caption", str(run), str(photos), "--prefix", "two dogs"]) == 0
    assert all(caption.startswith("two dogs") for _, caption in printed(capsys))


def test_original_searches_as_the_released_code_did(
    run: Path, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "c.json"
    assert main(["caption", str(run), str(photos), "--original", "--json", str(out)]) == 0
    found = [line["log_likelihood"] for line in rows_of(out)]
    captioner = load_captioner(run)
    for original in (True, False):
        decoding = DecodingConfig(original=original, max_steps=12)
        captions = captioner.caption(find_images([photos]), decoding)
        same = found == pytest.approx([caption.log_likelihood for caption in captions], abs=1e-4)
        assert same == original


def test_bf16_captions_are_nearly_the_same(run: Path, photos: Path, tmp_path: Path) -> None:
    found = {}
    for precision in ("fp32", "bf16"):
        out = tmp_path / f"{precision}.jsonl"
        flags = ["--precision", precision, "--out", str(out)]
        assert main(["caption", str(run), str(photos), *flags]) == 0
        found[precision] = [row["log_likelihood"] for row in rows_of(out)]
    assert found["bf16"] != pytest.approx(found["fp32"], abs=1e-4)
    assert found["bf16"] == pytest.approx(found["fp32"], rel=0.1)


@pytest.mark.parametrize("flag", ["--attention", "--relevance"])
def test_each_captioned_image_gets_a_figure_of_its_own(
    run: Path, photos: Path, tmp_path: Path, flag: str
) -> None:
    (photos / "photo1.png").write_bytes(b"not an image")
    write_images(photos / "more", 1)  # a second photo0.png
    drawn = tmp_path / "drawn"
    assert main(["caption", str(run), str(photos), flag, str(drawn)]) == 0
    paths = [path for path in find_images([photos]) if "photo1" not in path]
    assert {path.name for path in drawn.iterdir()} == {strip_name(path) for path in paths}
    assert len(list(drawn.iterdir())) == 5
    assert len(list(drawn.glob("photo0-*.png"))) == 2
    for path in drawn.iterdir():
        Image.open(path).verify()


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--nucleus", "0.9", "--beams", "3"], "--nucleus cannot be combined with --beams"),
        (["--greedy", "--top_k", "3"], "--greedy cannot be combined with --top_k"),
        (["--greedy", "--backward_weight", "0.5"], "--greedy cannot be combined"),
        (["--num_captions", "6"], "6 captions an image requested of strategy beam"),
        (
            ["--num_captions", "0", "--batch_size", "0"],
            r"batch_size 0 must[^$]*num_captions 0 must",
        ),
        (["--nucleus", "1.5"], "top_p is 1.5"),
        (["--out", "{tmp}/captions.txt"], r"ends in \.txt.*\.json, \.jsonl, \.csv"),
        (["--out", "{tmp}/captions"], "ends in no suffix"),
        (["--out", "{tmp}/folder.json"], "is a folder"),
        (["--out", "{tmp}/photos/photo0.png/c.csv"], "cannot write .*photo0.png is no folder"),
        (["--attention", "{tmp}/photos/photo0.png/a"], "cannot write .*photo0.png is no folder"),
        (["--relevance", "{tmp}/photos/photo0.png/a"], "cannot write .*photo0.png is no folder"),
        (["--out", "{tmp}/c.csv", "--json", "{tmp}/c.json"], "give one of them"),
        (["--overwrite"], "add --out"),
        (["--bad_image_limit", "2"], "bad_image_limit 2.0 must be at most 1"),
        (["https://example.com/a.jpg"], "a web address, and none is fetched: fetch images first"),
    ],
)
def test_mistakes_are_reported_before_the_model_is_loaded(
    flags: list[str], told: str, tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder.json").mkdir()
    arguments = [str(photos), *(flag.format(tmp=tmp_path) for flag in flags)]
    assert main(["caption", str(tmp_path / "no_model"), *arguments]) == 2
    shown = capsys.readouterr().err
    assert re.search(told, shown)
    assert "no_model" not in shown


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--max_steps", "99"], "set the decoding's max_steps to at most 12"),
        (["--prefix", "two dogs on the table and a red ball on it"], "leave no room"),
        (["--tokenizer", "x.model"], "has its own tokenizer"),
    ],
)
def test_options_that_the_model_does_not_support_are_reported_before_writing(
    flags: list[str], told: str, run: Path, photos: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    out = tmp_path / "c.jsonl"
    out.write_text("what was there\n")
    arguments = [str(run), str(photos), "--out", str(out), "--overwrite", *flags]
    assert main(["caption", *arguments]) == 2
    assert told in capsys.readouterr().err
    assert out.read_text() == "what was there\n"


def test_images_may_stand_after_flags(run: Path, photos: Path) -> None:
    first, second = str(photos / "photo0.png"), str(photos / "photo1.png")
    arguments = ["caption", str(run), "--greedy", first, "--max_steps", "5", second]
    assert main(arguments) == 0


def test_a_bar_on_stderr_leaves_stdout_to_the_captions(
    run: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    (photos / "photo1.png").write_bytes(b"not an image")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    caption_files(CaptionFilesConfig(str(run), (str(photos),), batch_size=2))
    assert len(printed(capsys)) == 4
    assert "captions" in terminal.getvalue()


def test_a_closed_pipe_ends_it_quietly(run: Path, photos: Path) -> None:
    command = [sys.executable, "-m", "virtex.cli", "caption", str(run), str(photos)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        _, errors = process.communicate(timeout=60)
    assert b"Traceback" not in errors
    assert process.returncode == 141


def test_it_is_quiet_where_there_is_no_terminal(
    run: Path, photos: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "virtex"):
        count = caption_files(CaptionFilesConfig(str(run), (str(photos),)))
    assert str(count) == "captioned 5 of 5 images"
    assert capsys.readouterr().err == ""


def test_several_processes_are_refused(
    run: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torchrun = {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "first", "MASTER_PORT": "29500"}
    for name, value in torchrun.items():
        monkeypatch.setenv(name, value)
    assert main(["caption", str(run), str(photos)]) == 2
    assert "2 processes were started" in capsys.readouterr().err


def test_an_image_without_a_caption_is_left_out(
    photos: Path, tmp_path: Path, task: Task, tokenizer: Tokenizer,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    bias = task.captioner.head.output_bias
    before = bias.detach().clone()
    with torch.no_grad():
        bias[SOS_ID + 1 :] = float("-inf")
    run = save_run(tmp_path / "mute", task, tokenizer)
    with torch.no_grad():
        bias.copy_(before)
    out = tmp_path / "c.jsonl"
    flags = ["--out", str(out), "--attention", str(tmp_path / "drawn")]
    assert main(["caption", str(run), str(photos), *flags]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert not out.exists()
    assert shown.err.count("left out: no caption was found for") == 5
    assert "no caption was found for any of 5 images" in shown.err


def test_a_path_that_is_no_ordinary_file_is_not_replaced(run: Path, photos: Path) -> None:
    pipe = photos.parent / "pipe.json"
    os.mkfifo(pipe)
    with pytest.raises(ConfigError, match=r"pipe\.json is no ordinary file"):
        caption_files(CaptionFilesConfig(str(run), (str(photos),), out=pipe))
    assert pipe.is_fifo()


def test_a_link_stays_a_link_to_the_file_that_is_written(run: Path, photos: Path) -> None:
    target, link = photos.parent / "elsewhere.json", photos.parent / "link.json"
    link.symlink_to(target)
    for overwrite in (False, True):
        config = CaptionFilesConfig(str(run), (str(photos),), out=link, overwrite=overwrite)
        caption_files(config)
        assert link.is_symlink()
        assert len(rows_of(target)) == 5
