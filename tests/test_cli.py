"""The command line: quick help, and the user's mistakes without a traceback."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from virtex.cli import COMMANDS, main


def test_help_does_not_import_torch() -> None:
    code = "import sys, virtex.cli; virtex.cli.main(['--help']); sys.exit('torch' in sys.modules)"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert finished.returncode == 0
    assert "pretrain" in finished.stdout


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {command} " in shown for command in COMMANDS)


def test_an_unknown_command_exits_2_and_names_the_known_ones(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["pretrian"]) == 2
    message = capsys.readouterr().err
    assert "pretrian" in message
    assert "pretrain" in message
    assert "Traceback" not in message


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["pretrain"], "--out RUN"),
        (["pretrain", "--out", ""], "--out is empty"),
        (["pretrain", "--out"], "--out needs a value"),
        (["pretrain", "--out", "{tmp}/run"], "holds no run"),
        (["pretrain", "--config"], "--config needs a value"),
        (["pretrain", "--config="], "--config needs a value"),
        (["pretrain", "--config", "--out", "{tmp}/run"], "--config needs a value"),
        (["pretrain", "--config", "cpu_small"], "required: out"),
        (["pretrain", "cpu_small", "--out", "{tmp}/run"], "unexpected argument 'cpu_small'"),
        (["pretrain", "--out", "{tmp}/run", "--config", "no_such_recipe"], "no_such_recipe"),
        (["pretrain", "--out", "{tmp}/run", "--data.source", "coco"], "root"),
        (["pretrain", "--out", "{tmp}/run", "--backbone.name", "resnet5"], "resnet50"),
        (["pretrain", "--out", "{tmp}/run", "--nonsense", "3"], "nonsense"),
        (["pretrain", "--out", "{tmp}/file", "--backbone.name", "resnet18"], "is no folder"),
        (["transfer", "voc07", "--init", "random", "--out", "{tmp}/file"], "is no folder"),
        (["transfer", "voc08"], "voc07"),
        (["caption", "{tmp}/no_run", "{tmp}/file"], "no_run"),
        (["caption", "imagenet", "{tmp}/file"], "writes no captions"),
        (
            ["export", "--format", "foo", "random", "--out", "{tmp}/x"],
            "unknown format 'foo'; it is",
        ),
        (["report", "{tmp}/nowhere"], "nowhere"),
    ],
)
def test_a_mistake_exits_2_without_a_traceback(
    arguments: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    assert main([argument.format(tmp=tmp_path) for argument in arguments]) == 2
    message = capsys.readouterr().err
    assert told in message
    assert "Error: " in message
    assert "Traceback" not in message


def test_log_messages_reach_the_terminal_without_control_characters(
    capsys: pytest.CaptureFixture[str],
) -> None:
    main(["unknown"])  # sets up the log
    capsys.readouterr()
    logging.getLogger("virtex").warning("left out %s", "a\x1b]0;title\x07.jpg")
    assert capsys.readouterr().err == "left out a\\x1b]0;title\\x07.jpg\n"


@pytest.mark.parametrize(
    "command",
    ["quickstart", "tokenizer", "pretrain", "transfer voc07 --init random", "caption random x",
     "export --format timm random", "scenes", "study data_efficiency", "report ."],
)  # fmt: skip
@pytest.mark.parametrize("out", ["", "{tmp}/file/below", "{tmp}/loop/out", "{tmp}/" + 300 * "x"])
def test_an_out_that_cannot_be_written_is_refused_before_any_work(
    command: str, out: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert main([*command.split(), "--out", out.format(tmp=tmp_path)]) == 2
    message = capsys.readouterr().err
    assert "ConfigError: " in message
    assert "out" in message or "cannot write" in message
    assert "Traceback" not in message
