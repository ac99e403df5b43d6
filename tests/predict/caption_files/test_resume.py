"""A file of captions goes on where it was cut, and ends as if it never had been."""

import csv
import io
import json
import multiprocessing
import os
import re
import shutil
import signal
from pathlib import Path

import pytest

from tests.predict.photo_run import save_run, write_images
from tests.small_disk import files_of_at_most
from virtex.cli import main
from virtex.data.tokenizer import Tokenizer
from virtex.errors import ConfigError, VirTexError
from virtex.predict.caption_files import captions_file
from virtex.predict.caption_files.captions_file import CaptionsFile
from virtex.predict.caption_files.job import batches_to_do, caption_files
from virtex.predict.caption_files.options import CaptionFilesConfig, parse_caption
from virtex.tasks.base import Task

FORK = multiprocessing.get_context("fork")
SETTINGS = ".settings.json"
OPTIONS = ["--batch_size", "3"]
SAMPLED = ["--nucleus", "0.9", "--num_captions", "2", *OPTIONS]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight images, of which one is bad, so that batches of three have a border inside."""
    folder = write_images(tmp_path_factory.mktemp("resume") / "photos", 8)
    (folder / "photo1.png").write_bytes(b"not an image")
    return folder


def caption(run: Path, photos: Path, out: Path, *flags: str) -> int:
    return main(["caption", str(run), str(photos), "--out", str(out), *flags])


def caption_and_tear(suffix: str, run: Path, photos: Path, out: Path) -> None:
    """Die while the file is converted, which is left torn."""
    write = captions_file.WRITERS[suffix]

    def torn(path: Path, *arguments: object) -> None:
        write(path, *arguments)
        os.truncate(path, 100)
        os.kill(os.getpid(), signal.SIGKILL)

    captions_file.WRITERS[suffix] = torn
    caption(run, photos, out, *SAMPLED)


def caption_and_halt(command: list[str]) -> None:
    """Stop after the first batch is written."""
    append = CaptionsFile.append

    def append_and_halt(file: CaptionsFile, *captioned: object) -> None:
        append(file, *captioned)
        os.kill(os.getpid(), signal.SIGSTOP)

    CaptionsFile.append = append_and_halt
    main(command)


def growing(out: Path) -> Path:
    """Return the path of the JSON lines that a run appends to."""
    return out if out.suffix == ".jsonl" else out.with_name(f"{out.name}.partial")


@pytest.mark.parametrize("flags", [OPTIONS, SAMPLED], ids=["beam", "sampled"])
@pytest.mark.parametrize("suffix", ["jsonl", "csv", "json"])
def test_a_file_cut_anywhere_ends_as_one_that_was_not(
    suffix: str, flags: list[str], run: Path, photos: Path, tmp_path: Path
) -> None:
    lines, out = tmp_path / "whole.jsonl", tmp_path / f"c.{suffix}"
    assert caption(run, photos, lines, *flags) == 0
    assert caption(run, photos, out, *flags) == 0
    content, expected = lines.read_bytes(), out.read_bytes()
    line_ends = [place + 1 for place, byte in enumerate(content) if byte == ord("\n")]
    assert len(line_ends) >= 7
    for cut in (0, 5, line_ends[0] + 9, line_ends[1], line_ends[3] - 1, line_ends[4], len(content)):
        out.unlink()
        growing(out).write_bytes(content[:cut])
        assert caption(run, photos, out, *flags) == 0
        assert out.read_bytes() == expected
        assert growing(out) == out or not growing(out).exists()


@pytest.mark.parametrize("suffix", ["csv", "json"])
def test_a_kill_around_the_conversion_is_resumed_to_the_same_file(
    suffix: str, run: Path, photos: Path, tmp_path: Path
) -> None:
    lines, out = tmp_path / "whole.jsonl", tmp_path / f"c.{suffix}"
    assert caption(run, photos, lines, *SAMPLED) == 0
    assert caption(run, photos, out, *SAMPLED) == 0
    expected = out.read_bytes()
    assert caption(run, photos, out, *SAMPLED) == 0  # as after the lines were removed
    assert out.read_bytes() == expected
    shutil.copy(lines, growing(out))  # as before they were removed
    assert caption(run, photos, out, *SAMPLED) == 0
    assert out.read_bytes() == expected
    shutil.copy(lines, growing(out))
    process = FORK.Process(target=caption_and_tear, args=(suffix, run, photos, out))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert out.read_bytes() == expected
    assert growing(out).read_bytes() == lines.read_bytes()
    assert caption(run, photos, out, *SAMPLED) == 0
    assert out.read_bytes() == expected
    assert not growing(out).exists()


def test_a_killed_run_is_resumed(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = write_images(tmp_path / "photos", 12)
    whole, out, list_path = tmp_path / "whole.jsonl", tmp_path / "c.jsonl", tmp_path / "list"
    paths = sorted(map(str, photos.iterdir()))
    list_path.write_text("\n".join(paths))
    flags = ["--list", str(list_path), "--num_workers", "0", *SAMPLED]
    assert main(["caption", str(run), *flags, "--out", str(whole)]) == 0
    command = ["caption", str(run), *flags, "--out", str(out)]
    process = FORK.Process(target=caption_and_halt, args=(command,))
    process.start()
    assert process.pid is not None
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    with pytest.raises(ConfigError, match=f"is in use by process {process.pid} on"):
        caption_files(parse_caption([*command[1:], "--overwrite"]))
    process.kill()
    process.join()
    assert 0 < out.stat().st_size < whole.stat().st_size
    assert whole.read_bytes().startswith(out.read_bytes())
    capsys.readouterr()
    assert main(command) == 0
    assert re.search(r"captioned 12 of 12 images, 3 of them before", capsys.readouterr().err)
    assert out.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "json"])
def test_a_full_disk_is_reported_and_nothing_is_half_written(
    suffix: str, run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, out = tmp_path / f"whole.{suffix}", tmp_path / f"c.{suffix}"
    assert caption(run, photos, whole, *SAMPLED) == 0
    with files_of_at_most(min(whole.stat().st_size - 300, 1200)):
        assert caption(run, photos, out, *SAMPLED) == 2
    assert re.search("cannot write .*Free some space", capsys.readouterr().err)
    assert growing(out).read_bytes().endswith(b"\n")
    assert caption(run, photos, out, *SAMPLED) == 0
    assert out.read_bytes() == whole.read_bytes()
    names = {path.name for path in tmp_path.iterdir() if not path.name.startswith(".")}
    assert names == {f"{name}.{suffix}{end}" for name in ("c", "whole") for end in ("", SETTINGS)}


def test_a_second_call_captions_what_is_new_and_tries_what_was_bad(
    run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = shutil.copytree(photos, tmp_path / "photos")
    for suffix in ("jsonl", "json", "csv"):
        out = tmp_path / f"c.{suffix}"
        assert caption(run, mine, out) == 0
        (mine / "photo1.png").write_bytes((photos / "photo2.png").read_bytes())
        (mine / "photo9.png").write_bytes((photos / "photo3.png").read_bytes())
        capsys.readouterr()
        assert caption(run, mine, out) == 0
        shown = capsys.readouterr()
        names = [Path(line.split("\t")[0]).name for line in shown.out.splitlines()]
        assert names == ["photo1.png", "photo9.png"]
        assert shown.err == "captioned 9 of 9 images, 7 of them before\n"
        text = out.read_text()
        if suffix == "csv":
            rows = list(csv.DictReader(io.StringIO(text)))
        else:
            rows = json.loads(text if suffix == "json" else f"[{text.strip()}]".replace("\n", ","))
        assert len(rows) == len({row["image"] for row in rows}) == 9
        (mine / "photo1.png").write_bytes(b"not an image")
        (mine / "photo9.png").unlink()


def test_images_that_stay_bad_are_no_error_where_others_are_done(
    run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "c.csv"
    assert caption(run, photos, out) == 0
    before = out.read_bytes()
    assert caption(run, photos, out) == 0
    assert out.read_bytes() == before
    assert "captioned 7 of 8 images, 7 of them before; 1 could not be" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--beams", "3"], "decoding.num_beams 5, now 3"),
        (["--prefix", "two"], "prefix '', now 'two'"),
        (["--num_captions", "2"], "num_captions 1, now 2"),
        (["--precision", "bf16"], "precision 'fp32', now 'bf16'"),
        (["--nucleus", "0.9", "--seed", "3"], "seed None, now 3"),
    ],
)
@pytest.mark.parametrize("suffix", ["jsonl", "json"])
def test_captions_of_other_options_are_not_mixed(
    suffix: str, flags: list[str], told: str, run: Path, photos: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    out = tmp_path / f"c.{suffix}"
    assert caption(run, photos, out) == 0
    before = out.read_bytes()
    assert caption(run, photos, out, *flags) == 2
    message = capsys.readouterr().err
    assert told in message
    assert "--overwrite" in message
    assert out.read_bytes() == before
    assert caption(run, photos, out, *flags, "--overwrite") == 0
    assert out.read_bytes() != before
    assert caption(run, photos, out, *flags) == 0


def test_captions_of_another_model_are_not_mixed(
    run: Path, photos: Path, tmp_path: Path, task: Task, tokenizer: Tokenizer
) -> None:
    out = tmp_path / "c.jsonl"
    assert caption(run, photos, out) == 0
    again = shutil.copytree(run, tmp_path / "moved")
    assert caption(again, photos, out) == 0
    bias = task.captioner.head.output_bias
    bias.data[5] += 1
    other = save_run(tmp_path / "other", task, tokenizer)
    bias.data[5] -= 1
    with pytest.raises(ConfigError, match=r"other settings \(model '"):
        caption_files(CaptionFilesConfig(str(other), (str(photos),), out=out))


def test_a_file_without_settings_is_not_changed(
    run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "c.csv"
    out.write_text("somebody's work\n")
    assert caption(run, photos, out) == 2
    assert "is not empty, and" in capsys.readouterr().err
    assert out.read_text() == "somebody's work\n"


@pytest.mark.parametrize("content", ["[" * 100_000, "[]", "{", "3", f'{{"a": {"9" * 5000}}}'])
def test_damaged_settings_are_refused(
    content: str, run: Path, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "c.jsonl"
    out.write_text("a row\n")
    (tmp_path / f"c.jsonl{SETTINGS}").write_text(content)
    with pytest.raises(ConfigError, match="does not say which model"):
        caption_files(CaptionFilesConfig(str(run), (str(photos),), out=out))
    assert out.read_text() == "a row\n"


@pytest.mark.parametrize(
    "row",
    [
        b'half a row"\n',
        b"[" * 100_000 + b"\n",
        b'{"image": ["x"], "caption": "a", "log_likelihood": -1.0}\n',
    ],
)
@pytest.mark.parametrize("suffix", ["jsonl", "csv", "json"])
def test_a_file_that_is_damaged_elsewhere_than_at_its_end_is_refused(
    row: bytes, suffix: str, run: Path, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / f"c.{suffix}"
    assert caption(run, photos, out) == 0
    lines = out.read_bytes().splitlines(keepends=True)
    lines[2] = row
    out.write_bytes(b"".join(lines))
    with pytest.raises(VirTexError, match=r"(is damaged|is no whole file).*overwrite"):
        caption_files(CaptionFilesConfig(str(run), (str(photos),), out=out))
    assert out.read_bytes() == b"".join(lines)


def test_images_that_have_captions_are_said_to_get_no_figures(run: Path, tmp_path: Path) -> None:
    photos, out, drawn = write_images(tmp_path / "photos", 3), tmp_path / "c.jsonl", tmp_path / "a"
    assert caption(run, photos, out) == 0
    config = CaptionFilesConfig(str(run), (str(photos),), out=out, attention=drawn)
    assert str(caption_files(config)) == (
        "captioned 3 of 3 images, 3 of them before; no figures of the 3 captioned before: give "
        "--overwrite, or another --out, to draw them"
    )
    assert not list(drawn.iterdir())


def test_an_image_that_has_captions_may_be_deleted(run: Path, tmp_path: Path) -> None:
    photos, out = write_images(tmp_path / "photos", 3), tmp_path / "c.jsonl"
    assert caption(run, photos, out) == 0
    out.write_bytes(b"".join(out.read_bytes().splitlines(keepends=True)[:2]))
    (photos / "photo0.png").write_bytes(b"not an image")
    count = caption_files(CaptionFilesConfig(str(run), (str(photos),), out=out))
    assert str(count) == "captioned 3 of 3 images, 2 of them before"
    assert len(out.read_text().splitlines()) == 3


def test_the_batch_that_was_cut_is_computed_again_as_a_whole() -> None:
    names = list("abcdefgh")

    def batches(kept: str) -> list[str]:
        found = batches_to_do(names, frozenset(kept), 3)
        return ["".join(names[index] for index in batch) for batch in found]

    assert batches("") == ["abc", "def", "gh"]
    assert batches("abc") == ["def", "gh"]
    assert batches("abcd") == ["def", "gh"]
    assert batches("bde") == ["ac", "def", "gh"]
    assert batches("bdef") == ["ac", "gh"]
    assert batches("abcdefgh") == []
    assert batches("bdefgh") == ["ac"]
    assert batches("xyz") == ["abc", "def", "gh"]
