"""Paths of options: `~`, variables, and names that hold a literal dollar sign."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from virtex import config
from virtex.options.paths import absolute, expand, with_paths


@dataclass(frozen=True)
class Data:
    root: Path | None = None
    name: str = "$SCRATCH"


@dataclass(frozen=True)
class Options:
    out: Path = Path("out")
    init: str = "random"
    images: tuple[str, ...] = ()
    data: Data = field(default_factory=Data)
    rows: tuple[Data, ...] = ()


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("SCRATCH", "/scratch/7")
    monkeypatch.setenv("NAME", "flickr")
    monkeypatch.delenv("ABSENT", raising=False)


def parse(*arguments: str) -> Options:
    return config.parse(Options, arguments, prog="do", positionals=("init", "*images"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("~/coco", "/home/me/coco"),
        ("$SCRATCH/coco", "/scratch/7/coco"),
        ("${SCRATCH}/coco", "/scratch/7/coco"),
        ("sets/$NAME/x$NAME.csv", "sets/flickr/xflickr.csv"),
        ("a/~/b", "a/~/b"),
        ("./a [1] (2) é'", "./a [1] (2) é'"),
        ("", ""),
        ("-", "-"),
        ("price 5$", "price 5$"),
        ("~no-such-user/x", "~no-such-user/x"),
    ],
)
def test_home_and_variables_are_replaced(text: str, expected: str) -> None:
    assert expand(text) == expected


@pytest.mark.parametrize("name", ["$NAME", "~", "my $NAME folder", "~me"])
def test_a_file_of_that_very_name_is_meant(name: str) -> None:
    Path(name).mkdir()
    assert expand(f"{name}/new") == f"{name}/new"
    assert expand(f"{Path.cwd()}/{name}/$NAME") == f"{Path.cwd()}/{name}/flickr"


def test_a_variable_that_is_not_set_stays_and_is_named(caplog: pytest.LogCaptureFixture) -> None:
    assert expand("$ABSENT/coco") == "$ABSENT/coco"
    assert "ABSENT is not set" in caplog.text


def test_every_command_expands_flags_files_and_positional_arguments() -> None:
    text = "data: {root: $SCRATCH/a}\nrows: [{root: ~/b}]\n"
    options = parse("--config", text, "--out", "~/run", "$SCRATCH/init", "~/a.jpg")
    assert options == Options(
        Path("/home/me/run"),
        "/scratch/7/init",
        ("/home/me/a.jpg",),
        Data(Path("/scratch/7/a")),
        (Data(Path("/home/me/b")),),
    )


def test_files_of_options_are_found_by_expanded_names(tmp_path: Path) -> None:
    os.environ["SCRATCH"] = str(tmp_path)  # the fixture restores it
    (tmp_path / "a.yaml").write_text("out: x\n")
    (tmp_path / "b.yaml").write_text("extends: $SCRATCH/a.yaml\n")
    for name in ("a", "b"):
        arguments = config.with_recipes([f"--config=$SCRATCH/{name}.yaml"], "pretrain")
        assert parse(*arguments).out == Path("x")
    assert parse("--config", "$SCRATCH/a.yaml").out == Path("x")


def test_absolute_paths_keep_links_and_texts(tmp_path: Path) -> None:
    options = Options(Path("../a"), "random", data=Data(Path("b")))
    changed = with_paths(options, absolute, change_text=str)
    assert changed == Options(tmp_path / "../a", "random", data=Data(tmp_path / "b"))
    assert with_paths(changed, absolute, change_text=str) is changed
