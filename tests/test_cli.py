"""The command line: quick help, and the user's mistakes without a traceback."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from virtex import cli
from virtex.cli import COMMANDS, main


def run_shell(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", script.replace("virtex ", f"{sys.executable} -m virtex.cli ")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("command", ["virtex --help", "virtex report --help"])
def test_a_closed_stdout_ends_a_command_quietly(command: str) -> None:
    finished = run_shell(f"{command} | true; echo ${{PIPESTATUS[0]}}")
    assert finished.stderr == ""
    assert finished.stdout.strip() in ("0", "141")  # 0: all was written before the reader closed


def test_a_full_stdout_is_named() -> None:
    finished = run_shell("virtex --help > /dev/full")
    assert finished.returncode == 1
    assert finished.stderr == "cannot write to stdout: No space left on device\n"


def test_an_error_holds_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", "\x1b[2Jfolder\r"]) == 2
    assert "\\x1b[2Jfolder\\r" in capsys.readouterr().err


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
        (["report"], "folders"),
        (["report", ""], "empty"),
        (["pretrain"], "needs options"),
        (["pretrain", ""], "unexpected argument"),
        (["pretrain", "--out", "", "--config", "cpu_small"], "empty"),
        (["pretrain", "--out={tmp}/run", "--config", ""], "--config needs a value"),
        (["pretrain", "--out={tmp}/run", "--init=", "--config", "quickstart"], "INIT is empty"),
        (["transfer"], "needs a protocol"),
        (["transfer", ""], "needs a protocol"),
        (["transfer", "voc07", "--init", "random", "--out", ""], "empty"),
        (["export"], "needs options"),
        (["export", ""], "required"),
        (["export", "random", "--format"], "--format needs a value"),
        (["export", "random", "--format", "timm", "--out", ""], "empty"),
        (["caption"], "needs options"),
        (["caption", "", "{tmp}/file"], "INIT is empty"),
        (["caption", "{tmp}", ""], "no file or folder"),
        (["embed"], "needs options"),
        (["embed", "random", "{tmp}/file", "--out", "{tmp}/x.txt"], "end the name in .npz"),
        (["embed", "random", "{tmp}/nothing", "--out", "{tmp}/x.npz"], "no file or folder"),
        (["tokenizer"], "needs options"),
        (["tokenizer", "--out", ""], "empty"),
        (["scenes"], "out"),
        (["data"], "needs a command"),
        (["data", "check"], "needs options"),
        (["data", "chekc"], "Allowed: check"),
        (["data", "check", "--bad", '["brokn"]'], "Did you mean broken"),
        (["data", "check", "--data.root", "{tmp}/nowhere"], "nowhere"),
        (["data", "check", "--write_bad", "{tmp}"], "is a folder"),
        (["demo"], "name a model"),
        (["study"], "needs options"),
        (["study", ""], "--config needs a value"),
        (["study", "tasks_small", "--out", "{tmp}/x", "--only", "[]"], "only is empty"),
        (["quickstart", "--out", ""], "empty"),
        ([""], "unknown command ''"),
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
