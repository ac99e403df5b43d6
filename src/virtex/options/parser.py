"""The parser of options by the fields of a config class, and its `--help`. The only door to
jsonargparse, which is handed options that layers.py has checked.
"""

import argparse
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from jsonargparse import ArgumentParser, DefaultHelpFormatter, set_parsing_settings

from virtex.options.choices import choices_of
from virtex.options.command_line import is_switch

__all__ = ["ArgumentParser", "HelpFormatter", "group_help", "parser_for", "shared_parser"]

set_parsing_settings(
    docstring_parse_attribute_docstrings=True, instantiate_subclass_spec_in_any=False
)


def parser_for(
    config_class: type, *, prog: str, description: str = "", positionals: Sequence[str] = ()
) -> ArgumentParser:
    """Return a parser with a flag for each field of `config_class`, and `--config FILE`."""
    free = "".join(
        f" {name[1:].upper()} ..." if name.startswith("*") else f" {name.upper()}"
        for name in positionals
    )
    parser = ArgumentParser(
        prog=prog,
        usage=f"{prog}{free} [--config NAME|FILE ...] [--option value ...]",
        description=description,
        exit_on_error=False,
        formatter_class=HelpFormatter,
    )
    parser.add_argument("--config", action="config", help="YAML file; may be given several times")
    parser.add_class_arguments(config_class)
    return parser


@lru_cache(maxsize=64)
def shared_parser(
    config_class: type, *, prog: str, description: str = "", positionals: tuple[str, ...] = ()
) -> ArgumentParser:
    """Return the parser that all parses of these options share: making it takes longer than they.

    Not for `--print_config`, which leaves a mark in its parser where the parse fails.
    """
    return parser_for(config_class, prog=prog, description=description, positionals=positionals)


def group_help(config_class: type, name: str, *, prog: str) -> str:
    """Return the help of the options under `--NAME.`, those of one group's config class."""
    parser = ArgumentParser(
        prog=prog,
        usage=f"{prog} [--{name}.OPTION value ...]",
        add_help=False,
        exit_on_error=False,
        formatter_class=HelpFormatter,
    )
    parser.add_class_arguments(config_class, name)
    return parser.format_help()


class HelpFormatter(DefaultHelpFormatter):
    """jsonargparse's formatter, in the grammar of the command line."""

    def _expand_help(self, action: argparse.Action) -> str:
        choices = choices_of(_hint(action))
        if choices and _shows_help(action):
            return "Show the options of a choice and exit."
        if choices:
            return f"{action.help} One of {', '.join(choices)}."
        return super()._expand_help(action).replace("<class 'Path'>", "Path")

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if choices_of(_hint(action)) and _shows_help(action):
            return f"{', '.join(action.option_strings)} NAME"
        if is_switch(_hint(action)):
            return f"{', '.join(action.option_strings)} [true|false]"
        return super()._format_action_invocation(action)


def _shows_help(action: argparse.Action) -> bool:
    return action.option_strings[0].endswith(".help")


def _hint(action: argparse.Action) -> Any:
    return getattr(action, "_typehint", None)
