"""Values of single options, checked before any parser sees them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml

from virtex.errors import ConfigError, did_you_mean
from virtex.options.bounded_yaml import check_plain, load_text
from virtex.options.choices import CLASS, NAME, OPTIONS, is_text, parts_of


def plain_value(hint: Any, value: object, path: str) -> Any:
    """Return the value of an option that holds no config."""
    check_plain(value, path)
    check_path(hint, value, path)
    check_literal(hint, value, path)
    if isinstance(value, str) and not is_text(hint):
        check_text(value, path)
    return _without_class_paths(value, path)


def takes_null(hint: Any) -> bool:
    """Return whether a field may be null."""
    return hint is Any or type(None) in parts_of(hint)


def split_choice(value: object, path: str) -> tuple[object, Mapping[str, Any]]:
    """Return the name in a choice, None where it has none, and its options."""
    if isinstance(value, str):
        return value, {}
    if not isinstance(value, Mapping):
        raise ConfigError(f"{path} takes a name or a mapping, not {type(value).__name__}")
    if not value.keys() & {CLASS, OPTIONS}:
        return value.get(NAME), {key: item for key, item in value.items() if key != NAME}
    others = [str(key)[:80] for key in value if key not in (CLASS, OPTIONS)]
    if others:
        raise ConfigError(f"{path}: {', '.join(others)} cannot stand beside {CLASS} or {OPTIONS}")
    return value.get(CLASS), value.get(OPTIONS) or {}


def check_fixed(name: str, option: str, fixed: object, *, given: object, path: str) -> None:
    """See that an option given beside a choice's name is not against it.

    Raises:
        ConfigError: It is.
    """
    if given != fixed:
        raise ConfigError(
            f"{path} {name} means {path}.{option} {_shown(fixed)}, not {_shown(given)}: leave one "
            "of the two out"
        )


def check_path(hint: Any, value: object, path: str) -> None:
    """See that a path is not empty, which would be the working folder.

    Raises:
        ConfigError: It is.
    """
    if value == "" and Path in parts_of(hint):
        raise ConfigError(f"{path} is empty: give a path, or leave it out; . is the working folder")


def check_literal(hint: Any, value: object, path: str) -> None:
    """See that an option which takes a few words has one of them.

    Raises:
        ConfigError: It has another.
    """
    words = get_args(hint) if get_origin(hint) is Literal else ()
    if words and isinstance(value, str) and value not in words:
        raise ConfigError(f"unknown {path} {value[:80]!r}. {did_you_mean(value, words)}")


def check_text(text: str, path: str) -> None:
    """See that text which a parser will read as YAML stays within bounds.

    Raises:
        ConfigError: It does not, or it holds a number that is not finite.
    """
    try:
        check_plain(load_text(text), path)
    except (yaml.YAMLError, ValueError):
        return  # no YAML: it stays text


def _without_class_paths(value: Any, path: str) -> Any:
    """Return a value in which nested options of a choice stand under its name."""
    if isinstance(value, Mapping):
        if value.keys() & {CLASS, OPTIONS}:
            name, options = split_choice(value, path)
            value = {**({} if name is None else {NAME: name}), **options}
        return {key: _without_class_paths(item, f"{path}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_class_paths(item, path) for item in value]
    return value


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
