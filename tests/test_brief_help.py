"""The short help: its options exist, and it comes without torch."""

import subprocess
import sys

import pytest

from virtex import cli
from virtex.brief_help import (
    BRIEFS,
    DATA_COMMANDS,
    PROTOCOL_ROWS,
    Brief,
    brief_help,
    transfer_brief,
)
from virtex.config import recipe_paths
from virtex.data.shards.index_options import IndexConfig
from virtex.data_check.check_config import CheckConfig
from virtex.options.layers import Layers
from virtex.pack.pack_options import PackConfig
from virtex.predict.caption_files.options import CaptionFilesConfig
from virtex.predict.embed_options import EmbedFilesConfig
from virtex.pretrain import PretrainConfig
from virtex.study import StudyConfig
from virtex.tasks.registry import TASKS
from virtex.transfer.protocol_names import ABOUT
from virtex.transfer.protocols import PROTOCOLS
from virtex.vocabulary import TrainTokenizerConfig
from virtex.zoo.export.formats import ExportConfig

CONFIGS = {
    "pretrain": PretrainConfig,
    "pack": PackConfig,
    "tokenizer": TrainTokenizerConfig,
    "caption": CaptionFilesConfig,
    "embed": EmbedFilesConfig,
    "export": ExportConfig,
    "index": IndexConfig,
    "study": StudyConfig,
}
OF_THE_PARSER = {"config", "print_config", "list", "task.help", "processes"}
WITHOUT_TORCH = """
import contextlib, io, sys
from virtex.cli import COMMANDS, main
from virtex.transfer.protocol_names import ABOUT
calls = [[c, "--help"] for c in COMMANDS] + [["transfer", p, "-h"] for p in ABOUT]
calls += [[c] for c in COMMANDS if c not in ("quickstart", "zoo")]
calls += [["data", "check", "-h"], ["transfer", "voc08"]]
calls += [["study", "--only", "x"], ["study", "tasks_small", "--help"]]
calls += [["--version"]]
for call in calls:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            main(call)
        except SystemExit:
            pass
    assert "torch" not in sys.modules, call
assert "load_captioner" in dir(__import__("virtex"))
import virtex
virtex.__version__, virtex.DecodingConfig
assert "torch" not in sys.modules
"""


def flags(brief: Brief) -> set[str]:
    rows = [row for group in brief.groups.values() for row in group]
    return {row.split()[0].removeprefix("--") for row in rows} - OF_THE_PARSER


@pytest.mark.parametrize("command", BRIEFS)
def test_the_options_of_a_short_help_exist(command: str) -> None:
    assert flags(BRIEFS[command]) <= set(Layers(CONFIGS[command]).flags())
    assert len((brief_help(command, ["--help"]) or "").splitlines()) <= 45


def test_the_options_of_the_short_help_of_data_check_exist() -> None:
    assert flags(DATA_COMMANDS["check"]) <= set(Layers(CheckConfig).flags())


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_options_of_a_protocols_short_help_exist(protocol: str) -> None:
    assert flags(transfer_brief(protocol)) <= set(Layers(PROTOCOLS[protocol].config).flags())


def test_the_short_help_names_every_protocol_task_and_study() -> None:
    assert list(PROTOCOLS) == list(ABOUT) == list(PROTOCOL_ROWS)
    pretrain, study = brief_help("pretrain", ["-h"]) or "", brief_help("study", ["-h"]) or ""
    assert all(task in pretrain for task in TASKS)
    assert all(path.stem in study for path in recipe_paths("study"))


def test_help_and_usage_need_no_torch() -> None:
    finished = subprocess.run([sys.executable, "-c", WITHOUT_TORCH], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr


@pytest.mark.parametrize("more", [["--help", "all"], ["--help-all"], ["-h", "all"]])
@pytest.mark.parametrize("command", [["pretrain"], ["transfer", "voc07"], ["study"], ["caption"]])
def test_help_all_lists_every_option(
    command: list[str], more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        cli.main([*command, *more])
    shown = capsys.readouterr().out
    name = command[-1]
    config = PROTOCOLS[name].config if name in PROTOCOLS else CONFIGS[name]
    unseen = {flag for flag in Layers(config).flags() if f"--{flag}" not in shown}
    assert not {flag for flag in unseen if not flag.startswith(("task.", "backbone."))}


def test_help_after_the_end_of_options_is_an_argument() -> None:
    assert brief_help("caption", ["RUN", "--", "--help"]) is None
