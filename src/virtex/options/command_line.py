"""The one grammar of all commands: flags, switches and positional arguments.

`--name value` and `--name=value` give an option, `--switch` alone turns one on, `--config FILE`
gives a file of options, and what has no flag fills the positional arguments in their order.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml

from virtex import files
from virtex.errors import ConfigError, did_you_mean
from virtex.options.bounded_yaml import MAX_CHARACTERS, check_plain, load_text
from virtex.options.choices import (
    CLASS,
    OPTIONS,
    Option,
    choices_of,
    find_choice,
    inner_class,
    is_text,
    item_class,
)
from virtex.options.layers import Layers
from virtex.options.mappings import Mappings
from virtex.options.overlay import overlaid
from virtex.options.paths import expand
from virtex.options.values import check_fixed, check_literal, check_path, check_text

HELP, PRINT = ("-h", "--help"), "--print_config"
DESCRIPTORS = Path("/dev/fd")
TRUTH = ("true", "false", "yes", "no")


def is_switch(hint: Any) -> bool:
    """Return whether an option of this type is turned on by its flag alone."""
    return hint in (bool, bool | None)


def asks_for_help(flag: str) -> bool:
    """Return whether a rewritten flag prints the help of a command or of a choice."""
    return flag in HELP or (flag.startswith("--") and flag.partition("=")[0].endswith(".help"))


def load(path: Path) -> dict[str, Any]:
    """Return the nested options that a YAML file holds.

    Raises:
        ConfigError: The file cannot be read, holds no YAML mapping, or exceeds the bounds.
    """
    try:
        if path.parent == DESCRIPTORS:  # a shell's <(command)
            text = path.open(encoding="utf-8").read(MAX_CHARACTERS + 1)
        else:
            text = files.read_regular(path, limit=4 * MAX_CHARACTERS).decode("utf-8")
        return _mapping(load_text(text), str(path))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, yaml.YAMLError, ConfigError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error


class CommandLine:
    """Rewriter of a command's arguments: every name resolved, every value checked.

    Args:
        positionals: Options that need no flag, in their order; `*name` takes all that is left.
    """

    def __init__(self, config_class: type, *, positionals: Sequence[str] = ()) -> None:
        self.layers = Layers(config_class)
        self.mappings = Mappings(config_class)
        self.positionals = positionals
        self.fixed: dict[str, tuple[str, dict[str, Any]]] = {}
        """Name of each choice that a flag makes, and what that fixes, by the choice's path."""
        self.given: dict[str, str] = {}
        """Text of each flag."""
        self.chosen: list[str] = []
        """Flags that choose, with what the names fix and put back; they come before all others."""
        self.groups_of_help: dict[str, type] = {}
        """Groups of options whose help is requested, and their classes."""
        self.rest: dict[str, tuple[Any, ...]] = {}
        """Arguments that `*name` takes. They stay out of the parser, whose YAML has no word for a
        file name that is not UTF-8."""

    def rewritten(self, arguments: Sequence[str]) -> list[str]:
        """Return the arguments as the parser takes them: one `--flag=value` each, files first.

        Raises:
            ConfigError: An unknown flag, a flag without its value, or a value that is not allowed.
        """
        files, others = _split_files(arguments)
        result = ["--config", self._files(files)] if files else []
        flags, free = list[str](), list[str]()
        while others:
            argument = others.pop(0)
            if argument == "--":
                free, others = [*free, *others], []
            elif argument in HELP or argument.startswith(PRINT):
                flags.append(argument)
            elif argument.startswith("-") and argument != "-":
                flags += self._flag(argument, others)
            else:
                free.append(argument)
        self._check_choices()
        resets = [*self.chosen, *self._resets()]
        self.layers.dependents.report()
        self.mappings.report()
        return [*result, *resets, *flags, *self._positional(free)]

    def _resets(self) -> list[str]:
        """Return flags that put back what files set for another network, source or the like."""
        given: dict[tuple[type, str], dict[str, str]] = {}
        for path, text in self.given.items():
            config_class, prefix, name = self.layers.owner_at(path)
            if path == prefix + name:
                given.setdefault((config_class, prefix), {})[name] = text
        return [
            f"--{prefix}{name}={_shown(value)}"
            for (config_class, prefix), flags in given.items()
            for name, value in self.layers.dependents.resets(config_class, prefix, flags).items()
        ]

    def _flag(self, argument: str, rest: list[str]) -> list[str]:
        """Return a flag with its value, which may be taken from the arguments that follow."""
        flag, equals, text = argument.partition("=")
        name = flag.removeprefix("--").removesuffix("+")
        if name.endswith(".help"):
            return [self._help(name.removesuffix(".help"), text if equals else "", rest)]
        name = name.replace(f".{OPTIONS}.", ".")
        option = self.layers.option_at(name) if flag.startswith("--") else None
        if option is None:
            raise ConfigError(self._unknown(flag))
        if is_switch(option.hint) and not equals:
            text = rest.pop(0) if rest and rest[0].lower() in TRUTH else "true"
        elif not equals:
            text = "true" if option.earlier and _stands_alone(rest) else _next(flag, rest)
        self.given[name] = text = option.current(text)
        return self._option(name, option, text, appended=flag.endswith("+"))

    def _option(self, name: str, option: Option, text: str, *, appended: bool) -> list[str]:
        inner = inner_class(option.hint)
        if inner is not None and choices_of(inner):
            return self._choice(name, option, inner, text)
        if inner is not None or item_class(option.hint) is not None:
            values = self.layers.value(option, _parsed(text, name, may_be_file=True), name)
            text = json.dumps(values, ensure_ascii=False)
        elif mapping := self.mappings.add_flag(name, self._mapped(name, text)):
            name, text = mapping, json.dumps(self.mappings.values[mapping], ensure_ascii=False)
        elif not is_text(option.hint):
            check_text(text, name)
            _, prefix, own = self.layers.owner_at(name)
            if not appended and prefix + own == name:  # not a key of a mapping
                _check_shape(option.hint, _value(text), f"--{name}")
        check_path(option.hint, text, f"--{name}")
        check_literal(option.hint, text, name)
        return [f"--{name}{'+' if appended else ''}={text}"]

    def _mapped(self, name: str, text: str) -> Any:
        """Return the value of a flag of a mapping of options; all of them may stand in a file."""
        if not self.mappings.is_mapping(name):
            return _value(text)
        value = _parsed(text, name, may_be_file=True)
        if not isinstance(value, Mapping):
            raise ConfigError(
                f"--{name} takes a YAML file of options or a mapping, such as '{{run: {{num_steps: "
                f"9}}}}', not {text[:80]!r}, which is neither; --{name}.OPTION sets a single one"
            )
        return value

    def _choice(self, name: str, option: Option, base: type, text: str) -> list[str]:
        """Return flags for a choice by its name, or by a mapping with name and options."""
        value = _parsed(text, name) if text.lstrip().startswith("{") else text
        checked = self.layers.value(option, value, name)
        if not isinstance(value, str):
            return [f"--{name}={json.dumps(checked, ensure_ascii=False)}"]
        fixed = dict(find_choice(base, value, name).fixed)
        self.fixed[name] = value, fixed
        self.chosen += [
            f"--{name}={checked[CLASS]}",
            *(f"--{name}.{key}={_shown(item)}" for key, item in checked[OPTIONS].items()),
        ]
        return []

    def _check_choices(self) -> None:
        """See that no flag is against what the name of a choice fixes."""
        for path, (name, fixed) in self.fixed.items():
            for key, value in fixed.items():
                text = self.given.get(f"{path}.{key}")
                if text is not None:
                    check_fixed(name, key, value, given=_parsed(text, key), path=path)

    def _files(self, names: Sequence[str]) -> str:
        """Return the options of all --config files as text that the parser takes."""
        values: dict[str, Any] = {}
        for name in names:
            values = overlaid(self.layers.config_class, values, self._file(name))
        return json.dumps(values, ensure_ascii=False) + "\n"

    def _file(self, text: str) -> dict[str, Any]:
        """Return the options of a --config file, or of text, as the parser takes them."""
        if "\n" in text or text.lstrip().startswith("{"):
            values = _mapping(_parsed(text, "--config"), "--config")
        else:
            values = load(Path(expand(text)))
        return self.mappings.add(self.layers.checked(values))

    def _help(self, name: str, text: str, rest: list[str]) -> str:
        """Return the flag for the help of a choice, or of a group of options."""
        option = self.layers.option_at(name)
        base = None if option is None else inner_class(option.hint)
        if base is None:
            raise ConfigError(self._unknown(f"--{name}"))
        if not choices_of(base):
            self.groups_of_help[name] = base
            return HELP[1]
        if not text:
            text = rest.pop(0) if rest and not rest[0].startswith("-") else ""
        return f"--{name}.help={find_choice(base, text, name).class_path}"

    def _positional(self, free: list[str]) -> list[str]:
        """Return flags for the arguments that have none."""
        result = []
        for name in self.positionals:
            if name.startswith("*") and free:
                option = self.layers.option_at(name[1:])
                assert option is not None, f"{name[1:]} is a field"
                item = get_args(option.hint)[0]
                for text in free:
                    check_path(item, text, name[1:])
                self.rest[name[1:]] = tuple(map(item, free))
                result.append(f"--{name[1:]}=[]")
                free = []
            elif free and not name.startswith("*") and name not in self.given:
                result.append(f"--{name}={free.pop(0)}")
        if free:
            raise ConfigError(f"unexpected argument {free[0]!r}: options begin with --")
        return result

    def _unknown(self, flag: str) -> str:
        """Return the message for an unknown flag: those with its last part, or those like it."""
        name = flag.lstrip("-")
        flags = list(self.layers.flags())
        last = name.rpartition(".")[2]
        same = [f"--{known}" for known in flags if known.rpartition(".")[2] == last]
        if same:
            hint = f"Did you mean {' or '.join(same)}?"
        else:
            hint = did_you_mean(flag, [f"--{known}" for known in flags], few=True)
        return f"unknown option {flag}. {hint}".rstrip()


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _split_files(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the values of all --config flags, and the other arguments."""
    files, others, rest = list[str](), list[str](), list(arguments)
    while rest:
        argument = rest.pop(0)
        if argument == "--":
            return files, [*others, argument, *rest]
        flag, equals, text = argument.partition("=")
        if flag in ("--config", "--config+"):
            files.append(text if equals else _next(flag, rest))
        else:
            others.append(argument)
    return files, others


def _stands_alone(rest: list[str]) -> bool:
    """Return whether no value follows a flag."""
    return not rest or rest[0].startswith("--")


def _next(flag: str, rest: list[str]) -> str:
    if _stands_alone(rest) and rest[:1] != ["--"]:
        raise ConfigError(f"{flag} needs a value")
    return rest.pop(0)


def _parsed(text: str, name: str, *, may_be_file: bool = False) -> Any:
    """Return the values of a flag's text, or of the file that it names."""
    try:
        if may_be_file and not text.lstrip().startswith(("{", "[")):
            path = Path(expand(text))
            if path.is_file():
                return load(path)
        values = load_text(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{name}: cannot read {text[:200]!r}: {error}") from error
    check_plain(values, name)
    return values


def _check_shape(hint: Any, value: object, path: str) -> None:
    """See that an option which takes a list or a mapping has one.

    Raises:
        ConfigError: It has another value.
    """
    if get_origin(hint) in (list, tuple) and not isinstance(value, list | tuple):
        raise ConfigError(f"{path} takes a list, such as '[a, b]', not {str(value)[:80]!r}")
    if get_origin(hint) is dict and not isinstance(value, Mapping):
        raise ConfigError(
            f"{path} takes a mapping, such as '{{a: 1, b: 2}}', not {str(value)[:80]!r}"
        )


def _value(text: str) -> Any:
    """Return the value of a flag's text; what is no YAML stays text."""
    try:
        return load_text(text)
    except (ValueError, yaml.YAMLError):
        return text


def _mapping(values: Any, what: str) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise ConfigError(f"{what} is no config: it holds no options, but {type(values).__name__}")
    return values
