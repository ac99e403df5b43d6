"""The text of `--help`: choices by their names, switches without a value."""

import argparse
from typing import Any

from jsonargparse import DefaultHelpFormatter

from virtex.choices import choices_of
from virtex.command_line import is_switch


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
