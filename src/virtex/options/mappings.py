"""Options that are mappings of further options: later files and flags add to them, by depth."""

import logging
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from virtex.options.dependents import LEFT_OUT, excluded_by, lost_by

log = logging.getLogger("virtex")


class Mappings:
    """The options of a config class that hold options of other commands, as they are given.

    A later file or flag changes single values of them, `--pretrain.run.num_steps 5`, and the rest
    stays; a mapping that names another network, task or the like replaces the earlier one.
    """

    def __init__(self, config_class: type) -> None:
        hints = typing.get_type_hints(config_class)
        names = [one.name for one in fields(config_class)] if is_dataclass(config_class) else []
        self.hints = {name: hints[name] for name in names if _holds_options(hints[name])}
        self.values: dict[str, dict[str, Any]] = {name: {} for name in self.hints}
        self.files, self.flags = dict(self.values), dict(self.values)
        """What files and what flags gave: flags, in any order, are one layer over all files."""

    def add(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return a file's values, of which mappings hold what earlier ones gave, too."""
        own = {
            name: value
            for name, value in values.items()
            if name in self.values and isinstance(value, Mapping)
        }
        for name, value in own.items():
            _report(self.files[name], value, name)
            self.values[name] = self.files[name] = merged(self.files[name], value)
        return {**values, **{name: self.values[name] for name in own}}

    def is_mapping(self, path: str) -> bool:
        """Return whether a flag is for a whole mapping, so that its text may be that of a file."""
        name, *keys = path.split(".")
        hint = self.hints.get(name)
        for _ in keys:
            hint = typing.get_args(hint)[1] if typing.get_origin(hint) is dict else None
        return typing.get_origin(hint) is dict

    def add_flag(self, path: str, value: Any) -> str | None:
        """Add the value of a flag; return the name of its mapping, None if it is of none."""
        name, *keys = path.split(".")
        if name not in self.values or not (keys or isinstance(value, Mapping)):
            return None
        for key in reversed(keys):
            value = {key: value}
        self.flags[name] = merged(self.flags[name], value, one_layer=True)
        self.values[name] = merged(self.files[name], self.flags[name])
        return name

    def report(self) -> None:
        """Log what files set that has no meaning for what flags name."""
        for name, value in self.flags.items():
            _report(self.files[name], value, name)


def merged(
    first: Mapping[str, Any], second: Mapping[str, Any], *, one_layer: bool = False
) -> dict[str, Any]:
    """Return a mapping with the values of two, of which the second wins.

    Options of the first that have no meaning for what the second names are left out, unless both
    are parts of one layer, whose order means nothing.
    """
    if "name" in second and second["name"] != first.get("name"):
        return dict(second)
    both = {
        key: merged(_with_name(first[key]), value, one_layer=one_layer)
        for key, value in second.items()
        if isinstance(value, Mapping) and isinstance(first.get(key), Mapping | str)
    }
    replaced = excluded_by(second) | ({} if one_layer else lost_by(first, second)).keys()
    kept = {key: value for key, value in first.items() if key not in replaced}
    return {**kept, **second, **both}


def _report(first: Mapping[str, Any], second: Mapping[str, Any], path: str) -> None:
    """Log the options of a mapping that have no meaning for what a second one names."""
    for name, now in lost_by(first, second).items():
        log.warning(LEFT_OUT, f"{path}.{name}", first[name], f"{path}.{now}")
    for key, value in second.items():
        if isinstance(value, Mapping) and isinstance(first.get(key), Mapping):
            _report(first[key], value, f"{path}.{key}")


def _with_name(value: Mapping[str, Any] | str) -> Mapping[str, Any]:
    """Return the options of a choice, which may be given by its name alone: `task: cappa`."""
    return {"name": value} if isinstance(value, str) else value


def _holds_options(hint: Any) -> bool:
    """Return whether a type is that of a mapping with values of any kind, by any depth."""
    if typing.get_origin(hint) is not dict:
        return False
    inner = typing.get_args(hint)[1]
    return inner is Any or _holds_options(inner)
