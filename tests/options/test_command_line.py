"""One grammar for all commands: switches, positional arguments, unknown flags."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

import pytest

from virtex import config
from virtex.cli import QuickstartConfig, ReportConfig
from virtex.data.layouts import WriteScenesConfig
from virtex.demo.demo_config import DemoConfig
from virtex.errors import ConfigError
from virtex.options.choices import once_a_switch
from virtex.pretrain import PretrainConfig
from virtex.study import StudyConfig
from virtex.transfer.protocols import PROTOCOLS
from virtex.vocabulary import TrainTokenizerConfig
from virtex.zoo.export.formats import ExportConfig


@dataclass(frozen=True)
class Run:
    lr: float = 0.1
    fast: bool = False
    compile: Literal["none", "task", "step"] = field(
        default="none", metadata=once_a_switch(true="task", false="none")
    )


@dataclass(frozen=True)
class Options:
    init: str = "random"
    images: tuple[str, ...] = ()
    overwrite: bool = False
    sure: bool | None = None
    out: Path | None = None
    run: Run = field(default_factory=Run)
    sizes: dict[str, int | list[int]] = field(default_factory=dict)


def parse(*arguments: str) -> Options:
    return config.parse(Options, arguments, prog="do", positionals=("init", "*images"))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--overwrite"], True),
        (["--overwrite", "true"], True),
        (["--overwrite=true"], True),
        (["--overwrite", "false"], False),
        (["--overwrite=false"], False),
        ([], False),
    ],
)
def test_a_switch_stands_alone_or_with_true_or_false(arguments: list[str], expected: bool) -> None:
    assert parse(*arguments).overwrite is expected
    assert parse(*arguments, "RUN", "a.jpg") == Options("RUN", ("a.jpg",), expected)


def test_a_switch_takes_no_image_for_its_value() -> None:
    assert parse("RUN", "--overwrite", "a.jpg") == Options("RUN", ("a.jpg",), True)
    assert parse("--sure", "--run.fast", "RUN") == Options("RUN", sure=True, run=Run(fast=True))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "none"),
        (["--run.compile", "step"], "step"),
        (["--run.compile"], "task"),
        (["--run.compile", "--run.lr", "0.1"], "task"),
        (["--run.compile", "true"], "task"),
        (["--run.compile=false"], "none"),
        (["--config", "run: {compile: true}\n"], "task"),
        (["--config", "run: {compile: no}\n"], "none"),
        (["--config", "run: {compile: step}\n"], "step"),
        (["--run", "{compile: true}"], "task"),
    ],
)
def test_an_option_that_was_a_switch_takes_what_it_took(
    arguments: list[str], expected: str
) -> None:
    assert parse(*arguments).run.compile == expected


def test_stored_options_keep_the_meaning_of_a_switch() -> None:
    for stored, now in ((True, "task"), (False, "none"), ("step", "step")):
        assert config.from_dict(Options, {"run": {"compile": stored}}).run.compile == now


def test_a_word_that_an_option_does_not_take_is_answered_with_those_that_it_takes() -> None:
    message = r"unknown run\.compile 'banana'\. Allowed: none, task, step\."
    with pytest.raises(ConfigError, match=message):
        config.from_dict(Options, {"run": {"compile": "banana"}})
    with pytest.raises(ConfigError, match=message):
        parse("--run.compile", "banana")
    with pytest.raises(ConfigError, match=r"unknown run\.compile 'tsk'\. Did you mean task\?"):
        parse("--run.compile=tsk")


@pytest.mark.parametrize(
    "arguments",
    [
        ["RUN", "a.jpg", "b.jpg", "--out", "x"],
        ["--out", "x", "RUN", "a.jpg", "b.jpg"],
        ["RUN", "--out=x", "a.jpg", "b.jpg"],
        ["--init", "RUN", "a.jpg", "--out", "x", "b.jpg"],
        ["a.jpg", "b.jpg", "--init=RUN", "--out", "x"],
        ["--out", "x", "--", "RUN", "a.jpg", "b.jpg"],
        ["--init", "RUN", "--images", '["a.jpg", "b.jpg"]', "--out", "x"],
        ["--config", "init: RUN\nimages: [a.jpg, b.jpg]\n", "--out", "x"],
    ],
)
def test_positional_arguments_stand_anywhere(arguments: list[str]) -> None:
    assert parse(*arguments) == Options("RUN", ("a.jpg", "b.jpg"), out=Path("x"))


def test_images_are_taken_as_they_are_written() -> None:
    names = ("null", "1", "[a].jpg", 'say "hi".jpg', "é*.png", "{a: 1}", "-")
    assert parse("RUN", *names).images == names
    assert parse("RUN", "--", "--out").images == ("--out",)


def test_keys_of_a_mapping_are_given_by_flags_too() -> None:
    assert parse("--sizes.a", "3", "--sizes.b=[1, 2]").sizes == {"a": 3, "b": [1, 2]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lr", "3"], r"unknown option --lr\. Did you mean --run\.lr\?"),
        (["--model.lr=3"], r"Did you mean --run\.lr\?"),
        (["--overwrit"], r"Did you mean --overwrite\?"),
        (["-x"], "unknown option -x"),
        (["--out"], "--out needs a value"),
        (["--out", "--overwrite"], "--out needs a value"),
        (["--config", "/nowhere.yaml"], "cannot read /nowhere.yaml"),
        (["--run", "3"], "run takes a mapping"),
        (["--run.fast", "yes", "--run.lr", "high"], "run.lr"),
    ],
)
def test_a_mistake_names_what_was_meant(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        parse(*arguments)
    assert "`do --help` lists the options." in str(error.value)


@pytest.mark.parametrize("text", ["txt", "3", "{a: 1}", "{"])
def test_a_list_needs_brackets(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^--images takes a list, such as '\[a, b\]', not"):
        parse("--images", text)


@pytest.mark.parametrize("text", ["txt", "3", "[a, b]"])
def test_a_mapping_needs_braces(text: str) -> None:
    with pytest.raises(
        ConfigError, match=r"^--sizes takes a mapping, such as '\{a: 1, b: 2\}', not"
    ):
        parse("--sizes", text)


def test_an_argument_too_many_is_refused() -> None:
    with pytest.raises(ConfigError, match="unexpected argument 'b'"):
        config.parse(Options, ["a", "b"], prog="do", positionals=["init"])


def test_help_shows_positional_arguments_and_switches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("--help")
    shown = capsys.readouterr().out
    assert "do INIT IMAGES ..." in shown
    assert "--overwrite [true|false]" in shown


def test_printed_options_are_taken_back(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        config.parse(
            PretrainConfig,
            ["--out", "x", "--task", "siglip", "--task.embedding_size", "8", "--print_config"],
            prog="p",
        )
    printed = capsys.readouterr().out
    assert "name: siglip" in printed
    assert "class_path" not in printed
    again = config.parse(PretrainConfig, ["--config", printed], prog="p")
    assert vars(again.task)["embedding_size"] == 8
    assert vars(again.task)["loss"] == "sigmoid"


@pytest.mark.parametrize("flags", [["--task.help", "siglip"], ["--help"]])
def test_help_comes_before_printed_options(
    flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        config.parse(PretrainConfig, ["--print_config", *flags], prog="p")
    assert "Help for" in (shown := capsys.readouterr().out) or "usage: p" in shown


@pytest.mark.parametrize(
    ("group", "option"),
    [
        ("run", "num_steps"),
        ("data", "root"),
        ("optim", "backbone_lr"),
        ("image", "size"),
        ("backbone", "freeze_stages"),
        ("loader", "num_workers"),
        ("task.head", "hidden_size"),
    ],
)
def test_a_group_lists_its_options_with_their_meaning(
    group: str, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        config.parse(PretrainConfig, [f"--{group}.help"], prog="p")
    assert not ended.value.code
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: p [--{group}.OPTION value ...]")
    flags = [line.split()[0] for line in shown.splitlines() if line.startswith("  --")]
    assert f"--{group}.{option}" in flags
    assert all(flag.startswith(f"--{group}") for flag in flags)


NEEDED = {"init": "random", "out": "x", "folders": "[x]", "rows": "[]", "format": "timm"}
COMMANDS = {
    "quickstart": QuickstartConfig,
    "tokenizer": TrainTokenizerConfig,
    "pretrain": PretrainConfig,
    "demo": DemoConfig,
    "export": ExportConfig,
    "scenes": WriteScenesConfig,
    "study": StudyConfig,
    "report": ReportConfig,
    **{f"transfer {name}": command.config for name, command in PROTOCOLS.items()},
}


def switches(config_class: type) -> list[str]:
    return [option.name for option in fields(config_class) if option.type in (bool, "bool")]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_takes_its_switches_and_init_in_every_spelling(command: str) -> None:
    config_class = COMMANDS[command]
    known = {option.name for option in fields(config_class)}
    needed = {name: value for name, value in NEEDED.items() if name in known}
    if command == "export":
        needed |= {"format": "huggingface", "out": "x", "push": "someone/x"}  # of --private
    flags = [f"--{name}={value}" for name, value in needed.items()]
    for name in switches(config_class):
        for spelling, value in [
            ([f"--{name}"], True),
            ([f"--{name}", "true"], True),
            ([f"--{name}=false"], False),
            ([f"--{name}", "false"], False),
        ]:
            parsed = config.parse(config_class, [*flags, *spelling], prog="x")
            assert getattr(parsed, name) is value
    if "init" in known:
        rest = [flag for flag in flags if not flag.startswith("--init")]
        for spelling in (["--init", "random"], ["--init=random"]):
            assert (
                vars(config.parse(config_class, [*rest, *spelling], prog="x"))["init"] == "random"
            )
