"""Options that are mappings of further options: later files and flags add to them, by depth."""

import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from virtex.options.dependents import excluded_by


class Mappings:
    """The options of a config class that hold options of other commands, as they are given.

    A later file or flag changes single values of them, `--pretrain.run.num_steps 5`, and the rest
    stays; a mapping that names another network, task or the like replaces the earlier one.
    """

    def __init__(self, config_class: type) -> None:
        hints = typing.get_type_hints(config_class)
        names = [one.name for one in fields(config_class)] if is_dataclass(config_class) else []
        self.values: dict[str, dict[str, Any]] = {
            name: {} for name in names if _holds_options(hints[name])
        }

    def add(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return values of which mappings hold what was given before, too."""
        own = {
            name: value
            for name, value in values.items()
            if name in self.values and isinstance(value, Mapping)
        }
        for name, value in own.items():
            self.values[name] = merged(self.values[name], value)
        return {**values, **{name: self.values[name] for name in own}}

    def add_flag(self, path: str, value: Any) -> str | None:
        """Add the value of a flag; return the name of its mapping, None if it is of none."""
        name, *keys = path.split(".")
        if name not in self.values or not (keys or isinstance(value, Mapping)):
            return None
        for key in reversed(keys):
            value = {key: value}
        self.add({name: value})
        return name


def merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mapping with the values of two, of which the second wins."""
    if "name" in second and second["name"] != first.get("name"):
        return dict(second)
    both = {
        key: merged(_with_name(first[key]), value)
        for key, value in second.items()
        if isinstance(value, Mapping) and isinstance(first.get(key), Mapping | str)
    }
    replaced = excluded_by(second)
    kept = {key: value for key, value in first.items() if key not in replaced}
    return {**kept, **second, **both}


def _with_name(value: Mapping[str, Any] | str) -> Mapping[str, Any]:
    """Return the options of a choice, which may be given by its name alone: `task: cappa`."""
    return {"name": value} if isinstance(value, str) else value


def _holds_options(hint: Any) -> bool:
    """Return whether a type is that of a mapping with values of any kind, by any depth."""
    if typing.get_origin(hint) is not dict:
        return False
    inner = typing.get_args(hint)[1]
    return inner is Any or _holds_options(inner)
