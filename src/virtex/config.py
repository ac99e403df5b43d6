"""Config dataclasses to and from YAML and the command line; no options of its own.

An option is a field of a frozen dataclass that stands beside what it configures; the string
beneath the field is its help. Stacked `--config` files are merged, later ones win, and flags win
over files.
"""

import argparse
import io
import json
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast, get_type_hints

import yaml

from virtex.errors import ConfigError, did_you_mean, raise_each
from virtex.options.bounded_yaml import check_plain
from virtex.options.choices import choices_of, named, with_names
from virtex.options.command_line import PRINT, CommandLine, asks_for_help, load
from virtex.options.layers import Layers
from virtex.options.mistakes import as_list, every_mistake
from virtex.options.parser import ArgumentParser, group_help, parser_for, shared_parser
from virtex.options.paths import expand, with_paths

Config = TypeVar("Config")
RECIPES = Path(__file__).parent / "configs"
EXTENDS = "extends"
MISTAKES = (TypeError, ValueError, OverflowError, RecursionError, OSError)
"""Errors that parsing raises at a wrong value."""


def parse(
    config_class: type[Config],
    arguments: Sequence[str],
    *,
    prog: str,
    description: str = "",
    positionals: Sequence[str] = (),
) -> Config:
    """Return the config that command-line `arguments` describe.

    Args:
        positionals: Options that need no flag, in their order: `("init", "*images")` takes INIT,
            unless there is an `--init`, and then any number of images.

    Raises:
        ConfigError: Unknown options, or values of the wrong type; all at once.
    """

    def parsed(some: Sequence[str]) -> Config:
        return _parsed(config_class, some, prog, description, positionals)

    try:
        return parsed(arguments)
    except ConfigError as error:
        prints = any(one.startswith(PRINT) or asks_for_help(one) for one in arguments)
        texts = [str(error)] if prints else every_mistake(error, arguments, parsed)
        hint = f"`{prog} --help` lists the options."
        raise ConfigError(f"{as_list(texts)}\n{hint}") from error


def _parsed(
    config_class: type[Config],
    arguments: Sequence[str],
    prog: str,
    description: str,
    positionals: Sequence[str],
) -> Config:
    """Return the config; Raises: ConfigError for the first mistake that is found."""
    try:
        line = CommandLine(config_class, positionals=positionals)
        rewritten = line.rewritten(arguments)
        for name, group in line.groups_of_help.items():
            print(group_help(group, name, prog=prog), end="")
        if line.groups_of_help:
            raise SystemExit(0)
        prints = any(argument.startswith(PRINT) for argument in rewritten)
        make = parser_for if prints else shared_parser
        parser = make(
            config_class, prog=prog, description=description, positionals=tuple(positionals)
        )
        if prints and not any(map(asks_for_help, rewritten)):
            _print(parser, config_class, rewritten)
        config = _instantiate(parser, config_class, parser.parse_args(rewritten))
        config = replace(config, **line.rest) if line.rest else config  # type: ignore[type-var]
        return with_paths(config, expand)
    except (argparse.ArgumentError, *MISTAKES) as error:
        raise ConfigError(str(error)) from error


def _print(parser: ArgumentParser, config_class: type, arguments: Sequence[str]) -> NoReturn:
    """Print the options that apply, as a YAML file that takes them back, and exit."""
    with redirect_stdout(io.StringIO()) as printed, suppress(SystemExit):
        parser.parse_args(list(arguments))
    values = yaml.safe_load(printed.getvalue())
    print(yaml.safe_dump(with_names(config_class, values), sort_keys=False), end="")
    raise SystemExit(0)


def from_dict(config_class: type[Config], values: Mapping[str, Any]) -> Config:
    """Return the config that a nested dict (as `to_dict` gives, or a weights file holds) describes.

    Raises:
        ConfigError: An unknown option or choice, or a value of the wrong type.
    """
    try:
        checked = Layers(config_class).checked(values)
        parser = shared_parser(cast(type, config_class), prog="config")
        return _instantiate(parser, config_class, parser.parse_object(checked))
    except (argparse.ArgumentError, ConfigError, *MISTAKES) as error:
        raise ConfigError(f"not a valid {config_class.__name__}: {error}") from error


def to_dict(config: object) -> dict[str, Any]:
    """Return all fields of a config as nested plain values: what `from_dict` and YAML take."""
    declared = get_type_hints(type(config))
    return {
        field.name: _plain(getattr(config, field.name), declared[field.name])
        for field in fields(config)  # type: ignore[arg-type]
    }


def _plain(value: Any, declared: Any = None) -> Any:
    if is_dataclass(value):
        values = to_dict(value)
        return named(declared, type(value), values) if choices_of(declared) else values
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested options by their dotted names."""
    options: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            options |= flat(value, f"{prefix}{name}.")
        else:
            options[prefix + name] = value
    return options


def value_of(flag: str, arguments: Sequence[str]) -> str | None:
    """Return the value that the last `flag VALUE` or `flag=VALUE` gives, without parsing."""
    value = None
    for position, argument in enumerate(arguments):
        if argument == flag:
            value = next(iter(arguments[position + 1 :]), None)
        elif argument.startswith(f"{flag}="):
            value = argument.removeprefix(f"{flag}=")
    return value


def with_recipes(arguments: Sequence[str], kind: str) -> list[str]:
    """Return arguments in which each `--config NAME|FILE` is replaced by the files it stands for.

    NAME is a shipped recipe. A file that says `extends: NAME|FILE` stands for that one and itself.
    Options as text, which have a line break, stay as they are.

    Args:
        kind: The folder of recipes: pretrain, transfer or study.

    Raises:
        ConfigError: No name follows; neither a file nor a recipe has it; files extend each other.
    """
    resolved, rest = [], list(arguments)
    while rest:
        argument = rest.pop(0)
        if argument == "--config" or argument.startswith("--config="):
            name = argument.partition("=")[2]
            if argument == "--config" and rest and not rest[0].startswith("--"):
                name = rest.pop(0)
            if not name:
                raise ConfigError("--config needs a value: the name of a recipe, or a YAML file")
            resolved += _with_extended(_recipe_path(name, kind), kind)
        else:
            resolved.append(argument)
    return resolved


def _with_extended(path: str, kind: str, *, later: tuple[str, ...] = ()) -> list[str]:
    """Return `--config` for the file that a file extends, then for itself, which wins."""
    if "\n" in path:
        return ["--config", path]
    if path in later:
        raise ConfigError(f"--config files extend each other: {' -> '.join([*later, path])}")
    values = load(Path(path))
    if EXTENDS not in values:
        return ["--config", path]
    extended = _recipe_path(str(values.pop(EXTENDS)), kind, folder=Path(path).parent)
    own = ["--config", json.dumps(values) + "\n"]
    return [*_with_extended(extended, kind, later=(*later, path)), *(own if values else [])]


def recipe_paths(kind: str) -> list[Path]:
    """Return the files of the recipes of a kind that are shipped with the package."""
    return sorted((RECIPES / kind).glob("*.yaml"))


def _recipe_path(name: str, kind: str, *, folder: Path = Path()) -> str:
    """Return the file of that name, relative to `folder`, or else the shipped recipe."""
    if "\n" in name:
        return name
    path = folder / expand(name)
    shipped = RECIPES / kind / f"{name}.yaml"
    if path.is_file():
        return str(path)
    if shipped.is_file():
        return str(shipped)
    recipes = [path.stem for path in recipe_paths(kind)]
    hint = did_you_mean(name, recipes)
    raise ConfigError(f"--config {name}: no such file, and no recipe of that name. {hint}")


def _instantiate(parser: ArgumentParser, config_class: type[Config], namespace: Any) -> Config:
    try:
        values = parser.instantiate(namespace).as_dict()
    except ConfigError as error:
        problems = _problems_of_groups(parser, namespace)
        raise_each(ConfigError, "several groups of options cannot work", problems)
        raise error
    values.pop("config", None)
    config = config_class(**values)
    for name, value in flat(to_dict(config)).items():
        if isinstance(value, float | int):
            check_plain(value, name)
    return config


def _problems_of_groups(parser: ArgumentParser, namespace: Any) -> list[str]:
    """Return what is wrong with each group of options, beside defaults of the others."""
    problems = []
    for name in namespace.as_dict():
        one = parser.get_defaults()
        one[name] = namespace[name]
        try:
            parser.instantiate(one)
        except ConfigError as error:
            problems.append(str(error))
    return problems
