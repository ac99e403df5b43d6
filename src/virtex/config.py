"""Dataclass to and from YAML and command line. Holds no options of its own.

An option is a field of a frozen dataclass that stands beside what it configures; the string
beneath the field is its help. Stacked `--config` files are merged, later ones win, and flags win
over files.
"""

import argparse
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from inspect import isabstract
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import yaml
from jsonargparse import ArgumentParser, Namespace, set_parsing_settings

from virtex.errors import ConfigError

Config = TypeVar("Config")
RECIPES = Path(__file__).parent / "configs"
EXTENDS = "extends"
set_parsing_settings(
    docstring_parse_attribute_docstrings=True, instantiate_subclass_spec_in_any=False
)


def parser_for(config_class: type, *, prog: str, description: str = "") -> ArgumentParser:
    """A command-line parser with a flag for each field of `config_class`, and `--config FILE`."""
    parser = ArgumentParser(
        prog=prog,
        usage=f"{prog} [--config NAME|FILE ...] [--option value ...]",
        description=description,
        exit_on_error=False,
    )
    parser.add_argument("--config", action="config", help="YAML file; may be given several times")
    parser.add_class_arguments(config_class)
    return parser


def parse(
    config_class: type[Config], arguments: Sequence[str], *, prog: str, description: str = ""
) -> Config:
    """The config that command-line `arguments` describe.

    Raises:
        ConfigError: An unknown option, or a value of the wrong type.
    """
    parser = parser_for(config_class, prog=prog, description=description)
    try:
        namespace = parser.parse_args(list(arguments))
        return _instantiate(parser, config_class, namespace)
    except (argparse.ArgumentError, TypeError, ValueError, OSError) as error:
        raise ConfigError(f"{error}\n`{prog} --help` lists the options.") from error


def from_dict(config_class: type[Config], values: dict[str, Any]) -> Config:
    """The config that a nested dict (as `to_dict` gives, or a weights file holds) describes.

    Raises:
        ConfigError: An unknown option, a value of the wrong type, or a class named by a path: what
            a file says never makes a module be imported.
    """
    _refuse_paths(values)
    parser = parser_for(config_class, prog="config")
    try:
        return _instantiate(parser, config_class, parser.parse_object(values))
    except (argparse.ArgumentError, TypeError, ValueError) as error:
        raise ConfigError(f"not a valid {config_class.__name__}: {error}") from error


def to_dict(config: object) -> dict[str, Any]:
    """All fields of a config as nested plain values: what `from_dict` and YAML files take."""
    declared = get_type_hints(type(config))
    return {
        field.name: _plain(getattr(config, field.name), abstract=isabstract(declared[field.name]))
        for field in fields(config)  # type: ignore[arg-type]
    }


def _plain(value: Any, *, abstract: bool = False) -> Any:
    if is_dataclass(value):
        values = to_dict(value)
        return {"class_path": type(value).__name__, "init_args": values} if abstract else values
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested options by their dotted names."""
    options: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            options |= flat(value, f"{prefix}{name}.")
        else:
            options[prefix + name] = value
    return options


def _refuse_paths(values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if key == "class_path" and "." in str(value):
            raise ConfigError(
                f"class_path {value!r}: only the plain name of a known class is taken"
            )
        if isinstance(value, Mapping):
            _refuse_paths(value)


def load(path: Path) -> dict[str, Any]:
    """The nested dict that a YAML file holds.

    Raises:
        ConfigError: Not a YAML mapping.
    """
    try:
        values = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} is no config: it holds no options, but {type(values).__name__}")
    return values


def value_of(flag: str, arguments: Sequence[str]) -> str | None:
    """The value that the last `flag VALUE` or `flag=VALUE` gives, before anything is parsed."""
    value = None
    for argument, following in zip(arguments, [*arguments[1:], None], strict=True):
        if argument == flag:
            value = following
        elif argument.startswith(f"{flag}="):
            value = argument.removeprefix(f"{flag}=")
    return value


def with_recipes(arguments: Sequence[str], kind: str) -> list[str]:
    """Arguments in which each `--config NAME|FILE` has become the files that it stands for.

    NAME is a shipped recipe. A file that says `extends: NAME|FILE` stands for that one and itself.
    Options as text, which have a line break, stay as they are.

    Args:
        kind: The folder of recipes: pretrain, transfer or study.

    Raises:
        ConfigError: Neither a file nor a recipe has that name; or files extend each other.
    """
    resolved, follows = [], False
    for argument in arguments:
        if follows:
            resolved += _with_extended(_recipe_path(argument, kind), kind)
        elif argument.startswith("--config="):
            resolved += _with_extended(_recipe_path(argument.partition("=")[2], kind), kind)
        elif argument != "--config":
            resolved.append(argument)
        follows = argument == "--config"
    return [*resolved, "--config"] if follows else resolved


def _with_extended(path: str, kind: str, *, later: tuple[str, ...] = ()) -> list[str]:
    """`--config` for what a file extends, then for itself, which wins."""
    if "\n" in path:
        return ["--config", path]
    if path in later:
        raise ConfigError(f"--config files extend each other: {' -> '.join([*later, path])}")
    values = load(Path(path))
    if EXTENDS not in values:
        return ["--config", path]
    extended = _recipe_path(str(values.pop(EXTENDS)), kind, folder=Path(path).parent)
    own = ["--config", yaml.safe_dump(values, sort_keys=False)]
    return [*_with_extended(extended, kind, later=(*later, path)), *(own if values else [])]


def recipe_paths(kind: str) -> list[Path]:
    """The recipes of a kind that are shipped with the package."""
    return sorted((RECIPES / kind).glob("*.yaml"))


def _recipe_path(name: str, kind: str, *, folder: Path = Path()) -> str:
    """The file of that name, seen from `folder`, or else the shipped recipe."""
    if "\n" in name:
        return name
    shipped = RECIPES / kind / f"{name}.yaml"
    if (folder / name).is_file():
        return str(folder / name)
    if shipped.is_file():
        return str(shipped)
    recipes = [path.stem for path in recipe_paths(kind)]
    close = difflib.get_close_matches(name, recipes, n=3)
    hint = f"Did you mean {' or '.join(close)}?" if close else f"Recipes: {', '.join(recipes)}."
    raise ConfigError(f"--config {name}: no such file, and no recipe of that name. {hint}")


def _instantiate(
    parser: ArgumentParser, config_class: type[Config], namespace: Namespace
) -> Config:
    values = parser.instantiate(namespace).as_dict()
    values.pop("config", None)
    return config_class(**values)
