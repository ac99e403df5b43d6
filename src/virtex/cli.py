"""The `virtex` command: finds the room that does the work, and prints the user's mistakes.

Nothing heavy is imported before a command is known, so that `virtex --help` answers at once.
"""

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from virtex.brief_help import (
    ALL,
    BRIEFS,
    DATA_COMMANDS,
    brief_help,
    data_brief,
    text_of,
    transfer_brief,
    with_one_help,
)
from virtex.errors import ConfigError, VirTexError, did_you_mean, limit_of_system
from virtex.launcher import report_to_torchrun
from virtex.processes import HELP, Requested, choose, split_option
from virtex.streams import flushed, is_fine, log_to_stderr, open_missing_streams, say
from virtex.transfer.protocol_names import ABOUT, TRAINED
from virtex.version import VERSION

USAGE = """usage: virtex COMMAND [options]

Pretrain vision backbones from image captions.

commands:
  quickstart   draw scenes, pretrain on their captions, transfer, write report.html
  tokenizer    train a SentencePiece vocabulary on captions
  pack         write any data as tar shards, which training reads faster
  pretrain     train a backbone from captions; resumes by itself
  transfer     score a run: classification, detection, segmentation, captions, retrieval
  caption      caption images with a trained run
  embed        write a pooled embedding of each image
  demo         a page to try a trained captioner in the browser
  export       write a model in the layout that another library reads
  index        write the manifest of tar shards in a folder or object store
  scenes       write drawn scenes to disk in a benchmark's layout
  data         check: what is in a data set, on a page, and what to leave out
  zoo          list the published models
  study        a table of experiments: runs what is missing, then writes it
  report       gather results and logs into report.md and report.html

`virtex COMMAND --help` lists the main options of a command, `--help all` every option.
`virtex --version` prints the version.
"""
WRITES_FILE = {"tokenizer", "caption", "embed", "export", "data"}
"""Commands whose --out is a file; that of `export --format huggingface` is a folder."""
NO_WORK = ("-h", "--help", "--print_config")
"""Flags with which a command only prints."""


@dataclass(frozen=True)
class QuickstartConfig:
    """Options of `virtex quickstart`."""

    out: Path = Path("quickstart")
    """Folder to write; an interrupted quickstart resumes there."""


@dataclass(frozen=True)
class ReportConfig:
    """Options of `virtex report`."""

    folders: tuple[Path, ...]
    """Run folders, folders of results, or folders that hold such."""
    out: Path | None = None
    """Folder to write report.md and report.html to; null: the first folder."""


@dataclass(frozen=True)
class ZooConfig:
    """Options of `virtex zoo`: none yet."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return 0 on success, 2 for a mistake that the user can mend.

    75 means that the same command may succeed: another process of a run was lost, or a store of
    shards stayed away.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    open_missing_streams()
    log_to_stderr()
    with suppress(AttributeError):  # another stream in its place
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    with flushed() as output:
        output.exit_code = _exit_code(arguments)
    return output.exit_code


def _exit_code(arguments: list[str]) -> int:
    """Run one command, print the mistakes of the user, and return the exit code."""
    try:
        return _run(arguments)
    except VirTexError as error:
        message = f"{type(error).__name__}: {error}"
        say(message)
        report_to_torchrun(message, os.environ)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except (OSError, MemoryError, RuntimeError, ImportError) as error:
        limit = limit_of_system(error)
        if limit is None or not is_fine(sys.stdout):  # `flushed` says what is wrong with stdout
            raise
        say(f"VirTexError: {limit}")
        return 2


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help", ALL):
        print(USAGE, end="")
        return 0
    command, arguments = words[0], with_one_help(words[1:])
    if command == "--version":
        print(VERSION)
        return 0
    if command not in COMMANDS:
        known = ", ".join(COMMANDS)
        raise ConfigError(f"unknown command {command!r}; allowed are {known}. See `virtex --help`.")
    if (text := brief_help(command, arguments)) is not None:
        print(text)
        return 0
    if not arguments and command in BRIEFS:
        raise ConfigError(
            f"virtex {command} needs options: {BRIEFS[command].usage}\n"
            f"`virtex {command} --help` lists them."
        )
    if not any(argument.startswith(NO_WORK) for argument in arguments):
        _check_out(command, arguments)
    return COMMANDS[command](["--help" if word == ALL else word for word in arguments])


def _check_out(command: str, arguments: list[str]) -> None:
    """Check first that a command can write what --out names."""
    from virtex import files
    from virtex.config import value_of

    out = value_of("--out", arguments)
    if out == "":
        raise ConfigError("--out is empty: give the path to write to.")
    if out is not None:
        is_file = command in WRITES_FILE or (command == "transfer" and out.endswith(".json"))
        is_file = is_file and value_of("--format", arguments) != "huggingface"
        files.check_out(Path(out), is_file=is_file)


def _quickstart(arguments: list[str]) -> int:
    from virtex.config import parse

    requested, arguments = split_option(arguments, default="auto")
    about = f"Draw scenes, pretrain on their captions, transfer, and write report.html. {HELP}"
    config = parse(QuickstartConfig, arguments, prog="virtex quickstart", description=about)
    from virtex.quickstart import quickstart

    quickstart(config.out, processes=requested)
    return 0


def _tokenizer(arguments: list[str]) -> int:
    from virtex.config import parse
    from virtex.vocabulary import TrainTokenizerConfig, write_tokenizer

    write_tokenizer(parse(TrainTokenizerConfig, arguments, prog="virtex tokenizer"))
    return 0


def _pack(arguments: list[str]) -> int:
    requested, arguments = split_option(arguments, default="auto")
    from virtex.config import parse
    from virtex.pack.pack import pack
    from virtex.pack.pack_options import PackConfig

    about = f"Write any data as tar shards. {HELP}"
    config = parse(PackConfig, arguments, prog="virtex pack", description=about)
    print(pack(config, processes=requested))
    return 0


def _pretrain(arguments: list[str]) -> int:
    requested, arguments = split_option(arguments, default="auto")
    from virtex.pretrain import parse_pretrain
    from virtex.pretrain_team import pretrain_in_team

    return pretrain_in_team(parse_pretrain(arguments), requested).exit_code


def _transfer(arguments: list[str]) -> int:
    name = arguments[0] if arguments and not arguments[0].startswith("-") else ""
    if name not in ABOUT:
        if "--help" in arguments:
            print(text_of(transfer_brief("")))
            return 0
        hint = did_you_mean(name, ABOUT) if name else f"Allowed: {', '.join(ABOUT)}."
        raise ConfigError(
            f"virtex transfer needs a protocol, got {name!r}. {hint} "
            "`virtex transfer PROTOCOL --help` says what it needs."
        )
    default: Requested = "auto" if name in TRAINED else 1
    requested, arguments = split_option(arguments[1:], default=default)
    from virtex.config import parse, with_recipes
    from virtex.supervisor import spread
    from virtex.transfer.command import summary
    from virtex.transfer.protocols import PROTOCOLS
    from virtex.transfer.score_dashboards import show_scores

    protocol = PROTOCOLS[name]
    about = (
        f"{protocol.about} The recipe {name!r} comes first and wins over the defaults below; "
        f"--print_config shows what applies. {HELP} The default is {default}."
    )
    rest = with_recipes(["--config", name, *arguments], "transfer")
    config: Any = parse(protocol.config, rest, prog=f"virtex transfer {name}", description=about)
    config.check()
    results = spread(protocol.run, config, choose(requested, config.work()))
    if results:  # only the main process has them
        print(summary(results))
        show_scores(results, config.init)
    return 0


def _caption(arguments: list[str]) -> int:
    from virtex.predict.caption_files.options import parse_caption

    config = parse_caption(arguments)
    from virtex.predict.caption_files.job import caption_files

    caption_files(config, stdin=sys.stdin.buffer)
    return 0


def _embed(arguments: list[str]) -> int:
    from virtex.predict.embed_options import parse_embed

    config = parse_embed(arguments)
    from virtex.predict.embed_files import embed_files

    print(embed_files(config, stdin=sys.stdin.buffer))
    return 0


def _demo(arguments: list[str]) -> int:
    from virtex.demo.demo_config import parse_demo

    config = parse_demo(arguments)
    try:
        from virtex.demo.server import serve
        from virtex.demo.space import write_space
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "virtex":
            raise
        raise ConfigError(
            f"virtex demo needs {error.name}, which is not installed: pip install starlette uvicorn"
        ) from error
    if config.space is not None:
        print(write_space(config, config.space))
        return 0
    serve(config)
    return 0


def _export(arguments: list[str]) -> int:
    from virtex.zoo.export import export, parse_export

    print(export(parse_export(arguments)))
    return 0


def _scenes(arguments: list[str]) -> int:
    from virtex.config import parse
    from virtex.data.layouts import WriteScenesConfig, write_scenes_from

    write_scenes_from(parse(WriteScenesConfig, arguments, prog="virtex scenes"))
    return 0


def _index(arguments: list[str]) -> int:
    requested, arguments = split_option(arguments, default="auto")
    from virtex.config import parse
    from virtex.data.shards.index import index_shards
    from virtex.data.shards.index_options import IndexConfig, check_one_root

    check_one_root(arguments)
    about = "Write the manifest of tar shards. --processes auto|N is the number of processes."
    config = parse(
        IndexConfig, arguments, prog="virtex index", description=about, positionals=["root"]
    )
    print(index_shards(config, processes=requested))
    return 0


def _data(arguments: list[str]) -> int:
    name = arguments[0] if arguments else ""
    if name not in DATA_COMMANDS:
        if "--help" in arguments:
            print(text_of(data_brief("")))
            return 0
        raise ConfigError(
            f"virtex data needs a command, got {name!r}. Allowed: {', '.join(DATA_COMMANDS)}. "
            "`virtex data COMMAND --help` says what it needs."
        )
    if not arguments[1:]:
        raise ConfigError(
            f"virtex data {name} needs options: {DATA_COMMANDS[name].usage}\n"
            f"`virtex data {name} --help` lists them."
        )
    from virtex.config import parse
    from virtex.data_check.check_config import CheckConfig

    about = "Say on a page what is in a data set, and write lists of the images to leave out."
    config = parse(CheckConfig, arguments[1:], prog="virtex data check", description=about)
    from virtex.data_check.check import check_data

    print(check_data(config))
    return 0


def _zoo(arguments: list[str]) -> int:
    from virtex.config import parse

    parse(ZooConfig, arguments, prog="virtex zoo", description="List the published models.")
    from virtex.zoo.models import table

    print(table())
    return 0


def _study(arguments: list[str]) -> int:
    from virtex.config import parse, recipe_paths, with_recipes

    has_name = bool(arguments) and not arguments[0].startswith("-")
    if not has_name and "--help" not in arguments:
        known = ", ".join(path.stem for path in recipe_paths("study"))
        raise ConfigError(f"virtex study needs a recipe or a file first; recipes are {known}.")
    requested, arguments = split_option(arguments, default="auto")
    from virtex.study import PAGE, StudyConfig, study

    rest = with_recipes(["--config", *arguments] if has_name else arguments, "study")
    config = parse(StudyConfig, rest, prog="virtex study", description=HELP)
    path = study(config, processes=requested)
    print(f"{path.read_text()}\n{path}\n{path.with_name(PAGE)}")
    return 0


def _report(arguments: list[str]) -> int:
    from virtex.config import parse

    config = parse(
        ReportConfig,
        arguments,
        prog="virtex report",
        description="Write report.md and report.html.",
        positionals=["*folders"],
    )
    from virtex.report.report import write_report

    print(write_report(config.folders, config.out or config.folders[0]))
    return 0


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "quickstart": _quickstart,
    "tokenizer": _tokenizer,
    "pack": _pack,
    "pretrain": _pretrain,
    "transfer": _transfer,
    "caption": _caption,
    "embed": _embed,
    "demo": _demo,
    "export": _export,
    "index": _index,
    "scenes": _scenes,
    "data": _data,
    "zoo": _zoo,
    "study": _study,
    "report": _report,
}

if __name__ == "__main__":
    sys.exit(main())
