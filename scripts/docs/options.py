"""Pages of the options of every command, made from the dataclasses that hold them."""

import ast
import inspect
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from virtex.brief_help import BRIEFS, DATA_COMMANDS
from virtex.cli import USAGE, QuickstartConfig, ReportConfig, ZooConfig
from virtex.data.layouts import WriteScenesConfig
from virtex.data.shards.index_options import IndexConfig
from virtex.data_check.check_config import CheckConfig
from virtex.demo.demo_config import DemoConfig
from virtex.options.choices import choices_of, inner_class, item_class
from virtex.pack.pack_options import PackConfig
from virtex.predict.caption_files.options import CaptionFilesConfig
from virtex.predict.embed_options import EmbedFilesConfig
from virtex.pretrain_config import PretrainConfig
from virtex.study import StudyConfig
from virtex.tasks.base import TaskConfig
from virtex.tasks.registry import TASKS
from virtex.transfer.protocols import PROTOCOLS
from virtex.vocabulary import TrainTokenizerConfig
from virtex.zoo.export.formats import ExportConfig

COMMANDS: dict[str, type] = {
    "quickstart": QuickstartConfig,
    "tokenizer": TrainTokenizerConfig,
    "pack": PackConfig,
    "pretrain": PretrainConfig,
    "caption": CaptionFilesConfig,
    "embed": EmbedFilesConfig,
    "demo": DemoConfig,
    "export": ExportConfig,
    "index": IndexConfig,
    "scenes": WriteScenesConfig,
    "data check": CheckConfig,
    "zoo": ZooConfig,
    "study": StudyConfig,
    "report": ReportConfig,
    **{f"transfer {name}": protocol.config for name, protocol in PROTOCOLS.items()},
}
"""Class of the options of each command."""
WITH_PROCESSES = ("quickstart", "pack", "pretrain", "index", "study", "transfer")
PROCESSES = (
    "`--processes auto|N` is the number of processes that the command starts; `auto` is one per "
    "GPU or physical core."
)
TYPES = {bool: "true, false", int: "whole number", float: "number", str: "text", Path: "path"}
MOST_WORDS = 4
"""Most words that are listed as an option's type."""
HEADER = "| option | type | default | meaning |\n|---|---|---|---|\n"


class Row(NamedTuple):
    """One option of a command."""

    name: str
    type: str
    default: str
    meaning: str


def pages() -> dict[str, str]:
    """Return the text of each page of options, by the page's name."""
    commands = {page_name(command): page(command) for command in COMMANDS}
    return {**commands, "tasks": tasks_page(), "commands": commands_page()}


def page_name(command: str) -> str:
    """Return the name of a command's page."""
    return command.replace(" ", "-")


def page(command: str) -> str:
    """Return the page of a command: a table for its own options, and one for each group."""
    config = COMMANDS[command]
    text = f"# virtex {command}\n\n{_about(command)}\n\n"
    if command.split()[0] in WITH_PROCESSES:
        text += PROCESSES + "\n\n"
    own, groups = tables(config)
    text += HEADER + _lines(own) if own else ""
    for name, (group, rows) in groups.items():
        about = paragraph(inspect.getdoc(group) or "")
        text += f"\n## {name}\n\n{about}\n\n{HEADER}{_lines(rows)}"
    return text


def tables(config: type, prefix: str = "") -> tuple[list[Row], dict[str, tuple[type, list[Row]]]]:
    """Return the plain options of a config, and those of each config within it by its path."""
    own: list[Row] = []
    groups: dict[str, tuple[type, list[Row]]] = {}
    for option, hint, meaning in options(config):
        path, inner = f"{prefix}{option.name}", inner_class(hint)
        if inner is None or choices_of(inner):
            own.append(Row(f"--{path}", type_text(hint), default_text(option), meaning))
        if inner is not None and not choices_of(inner):
            rows, nested = tables(inner, f"{path}.")
            groups |= ({path: (inner, rows)} if rows else {}) | nested
    return own, groups


def tasks_page() -> str:
    """Return the page of the options of each pretext task, which follow `--task NAME`."""
    text = (
        "# Options of the pretext tasks\n\n`virtex pretrain --task NAME` takes these beside the "
        "[options of the run](pretrain.md). What each task is: [pretext tasks](../../pretext.md).\n"
    )
    names: dict[type, list[str]] = {}
    for name, choice in TASKS.items():
        names.setdefault(choice.config_class, []).append(name)
    for config, known in names.items():
        own, groups = tables(config, "task.")
        rows = [*own, *(row for _, inner in groups.values() for row in inner)]
        fixed = "".join(
            f"`{name}` stands for {', '.join(f'`{k}: {_shown(v)}`' for k, v in fixed.items())}. "
            for name in known
            if (fixed := TASKS[name].fixed)
        )
        about = paragraph(inspect.getdoc(config) or "")
        text += f"\n## {', '.join(known)}\n\n{about} {fixed}\n\n{HEADER}{_lines(rows)}"
    return text


def commands_page() -> str:
    """Return the page that lists the commands."""
    names = "\n".join(f"{page_name(command)}" for command in [*COMMANDS, "tasks"])
    about = (
        "Every option of every command, from the classes that hold them. On the command line an "
        "option is `--name value`, in a YAML file `name: value`, with a dot in the name for each "
        "level. `virtex COMMAND --help all` prints the same."
    )
    usage = USAGE.partition("commands:\n")[2].partition("\n\n")[0]
    return (
        f"# Commands and options\n\n{about}\n\n```text\n{usage}\n```\n\n"
        f"```{{toctree}}\n:maxdepth: 1\n\n{names}\n```\n"
    )


def options(config: type) -> Iterator[tuple[Field[Any], Any, str]]:
    """Yield the fields of a config class that can be set, with their types and meanings."""
    hints, meanings = get_type_hints(config), docstrings(config)
    for option in fields(config):
        if option.init:
            hint = hints[option.name]
            inner = inner_class(hint)
            about = inspect.getdoc(inner) if inner is not None else ""
            meaning = meanings.get(option.name) or paragraph(about or "")
            yield option, hint, f"{meaning} {listed(hint)}".rstrip()


def docstrings(config: type) -> Mapping[str, str]:
    """Return the string beneath each field of a class and of the classes it derives from."""
    found: dict[str, str] = {}
    for base in reversed(config.__mro__):
        if not is_dataclass(base):
            continue
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(definition, ast.ClassDef), f"{base} is a class"
        for field, text in zip(definition.body, definition.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                value, name = text.value, ast.unparse(field.target)
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    found[name] = " ".join(value.value.split())
    return found


def paragraph(text: str) -> str:
    """Return the first paragraph of a docstring, on one line."""
    return " ".join(text.partition("\n\n")[0].split())


def type_text(hint: Any) -> str:
    """Return what an option takes, in words."""
    if get_origin(hint) in (Union, UnionType):
        parts = dict.fromkeys(type_text(part) for part in get_args(hint) if part is not type(None))
        null = ["null"] if type(None) in get_args(hint) else []
        return " or ".join([*parts, *null])
    if words := words_of(hint):
        return "one of a few words" if len(words) > MOST_WORDS else ", ".join(words)
    if item_class(hint) is not None:
        return "list of mappings"
    if get_origin(hint) in (list, tuple):
        return f"list of {type_text(get_args(hint)[0])}s"
    if get_origin(hint) is dict or hint is dict:
        return "mapping"
    return TYPES.get(hint, "value" if hint is Any else getattr(hint, "__name__", str(hint)))


def words_of(hint: Any) -> list[str]:
    """Return the words that an option takes, if it takes no others."""
    return list(map(str, get_args(hint))) if get_origin(hint) is Literal else list(choices_of(hint))


def listed(hint: Any) -> str:
    """Return the sentence that lists an option's words, if they are too many for its type."""
    words = words_of(hint)
    return f"One of {', '.join(words)}." if len(words) > MOST_WORDS else ""


def default_text(option: Field[Any]) -> str:
    """Return an option's default as YAML has it; `required` where there is none."""
    if option.default is not MISSING:
        return f"`{_shown(option.default)}`"
    if option.default_factory is not MISSING:
        default = option.default_factory()
        return "`bicaptioning`" if isinstance(default, TaskConfig) else f"`{_shown(default)}`"
    return "required"


def _shown(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_shown, value))}]"
    return str(value) if not is_dataclass(value) else type(value).__name__


def _about(command: str) -> str:
    name, _, rest = command.partition(" ")
    if name == "transfer":
        return f"{PROTOCOLS[rest].about} The recipe `{rest}` comes first."
    if name == "data":
        return DATA_COMMANDS[rest].about
    return BRIEFS[name].about if name in BRIEFS else paragraph(COMMANDS[command].__doc__ or "")


def _lines(rows: list[Row]) -> str:
    return "".join(
        f"| `{row.name}` | {_cell(row.type)} | {_cell(row.default)} | {_cell(row.meaning)} |\n"
        for row in rows
    )


def _cell(text: str) -> str:
    for mark in "|*<[":
        text = text.replace(mark, f"\\{mark}") if "`" not in text or mark == "|" else text
    return text
