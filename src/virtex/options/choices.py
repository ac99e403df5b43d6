"""Named choices among config classes, and what the fields of these hold.

A choice is a name, a class and the options that the name fixes: `captioning` is CaptioningConfig
with `bidirectional: false`. In YAML it is `task: {name: captioning, head: {...}}`, or
`task: captioning`. Class names and the nesting under `class_path` and `init_args`, as older files
have them, mean the same and fix nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from virtex.errors import ConfigError, did_you_mean

CLASS, OPTIONS = "class_path", "init_args"
"""Keys of a choice's class and its options in older files and in the parser."""
NAME = "name"
EARLIER = "earlier"
"""Key in the metadata of a field that was a switch."""


@dataclass(frozen=True)
class Choice:
    """A config class, and the options that its name fixes."""

    config_class: type
    fixed: Mapping[str, Any] = field(default_factory=dict)

    @property
    def class_path(self) -> str:
        """Full name of the class."""
        return f"{self.config_class.__module__}.{self.config_class.__qualname__}"


@dataclass(frozen=True)
class Option:
    """A field of a config class, its type resolved."""

    hint: Any
    default: Callable[[], Any] | None
    """Maker of its default, where the field has one."""
    earlier: Mapping[str, str] = field(default_factory=dict)
    """What each value means that the option took when it was a switch."""

    def current(self, value: Any) -> Any:
        """Return what a value of an earlier version means now, any other value as it is."""
        return self.earlier.get(str(value).lower(), value) if self.earlier else value


_CHOICES: dict[type, Mapping[str, Choice]] = {}
_SHARED: dict[type, Sequence[str] | None] = {}


def register(
    base: type, choices: Mapping[str, Choice], *, shared: Sequence[str] | None = None
) -> None:
    """Let fields of an abstract config class be filled by these choices alone.

    Args:
        shared: Options that mean the same in all choices. These alone stay when a later layer
            names another choice; None: all stay that its class has.
    """
    _CHOICES[base], _SHARED[base] = choices, shared


def once_a_switch(*, true: str, false: str) -> dict[str, Any]:
    """Return the metadata of a field that was a switch, so that its earlier values keep working."""
    return {EARLIER: {"true": true, "yes": true, "false": false, "no": false}}


def choices_of(base: Any) -> Mapping[str, Choice]:
    """Return the choices of an abstract config class by name; none for any other class."""
    return _CHOICES.get(base, {})


def shared_options(base: type) -> Sequence[str] | None:
    """Return the options that mean the same in all choices of a class; None: all that each has."""
    return _SHARED[base]


def find_choice(base: type, name: object, path: str) -> Choice:
    """Return what a name, or the name of a class, stands for.

    Raises:
        ConfigError: No choice has that name.
    """
    known = choices_of(base)
    if isinstance(name, str) and name in known:
        return known[name]
    for choice in known.values():
        if name in (choice.config_class.__name__, choice.class_path):
            return Choice(choice.config_class)
    raise ConfigError(f"no {path} {name!r}. {did_you_mean(_as_short(str(name)), known)}")


def named(base: type, config_class: type, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a choice's options under its name, without those that the name fixes.

    Options that are not there have their defaults.
    """
    fitting = [
        (name, choice.fixed)
        for name, choice in choices_of(base).items()
        if choice.config_class is config_class
        and all(
            options.get(option, getattr(config_class, option)) == value
            for option, value in choice.fixed.items()
        )
    ]
    if not fitting:
        raise ConfigError(f"{config_class.__name__} is no registered {base.__name__}")
    name, fixed = max(fitting, key=lambda pair: len(pair[1]))
    return {NAME: name, **{key: value for key, value in options.items() if key not in fixed}}


def with_names(config_class: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return options in which each choice that has its class stands under its name instead."""
    result = {}
    for key, value in values.items():
        inner = inner_class(options_of(config_class)[key].hint)
        if inner is not None and choices_of(inner):
            chosen = find_choice(inner, value[CLASS], key).config_class
            value = named(inner, chosen, with_names(chosen, value.get(OPTIONS, {})))
        elif inner is not None and value is not None:
            value = with_names(inner, value[OPTIONS] if CLASS in value else value)
        result[key] = value
    return result


@cache
def options_of(config_class: type) -> dict[str, Option]:
    """Return the fields of a config class that can be set, their types resolved."""
    hints = get_type_hints(config_class)
    return {
        option.name: Option(
            hints[option.name],
            None if option.default_factory is MISSING else option.default_factory,
            option.metadata.get(EARLIER, {}),
        )
        for option in fields(config_class)
        if option.init
    }


def is_text(hint: Any) -> bool:
    """Return whether values of a type are taken as they are, so that text is never parsed."""
    return all(part in (str, Path, type(None)) for part in parts_of(hint))


def parts_of(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def inner_class(hint: Any) -> type | None:
    """Return the config class that a field holds: `Config` or `Config | None`."""
    for part in parts_of(hint):
        if isinstance(part, type) and (is_dataclass(part) or part in _CHOICES):
            return part
    return None


def item_class(hint: Any) -> type | None:
    """Return the config class that a field holds a list of."""
    for part in parts_of(hint):
        if get_origin(part) in (list, tuple) and get_args(part):
            return inner_class(get_args(part)[0])
    return None


def _as_short(name: str) -> str:
    """Return a class name in the spelling of choices, to find the one that is like it."""
    plain = name.rpartition(".")[2].removesuffix("Config")
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in plain).lstrip("_")
