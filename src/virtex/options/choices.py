"""Named choices among config classes, and the allow-list that every option passes.

Options are checked here by their names and by the types of their fields before any parser sees
them, so that what a file or a flag says never makes a module be imported or a file be opened.

A choice is a name, a class and the options that the name fixes: `captioning` is CaptioningConfig
with `bidirectional: false`. In YAML it is `task: {name: captioning, head: {...}}`, or
`task: captioning`. Class names and the nesting under `class_path` and `init_args`, as older files
have them, mean the same and fix nothing.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from virtex.errors import ConfigError, did_you_mean
from virtex.options.bounded_yaml import check_plain, load_text
from virtex.options.dependents import Dependents

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
        inner = inner_class(_fields(config_class)[key].hint)
        if inner is not None and choices_of(inner):
            chosen = find_choice(inner, value[CLASS], key).config_class
            value = named(inner, chosen, with_names(chosen, value.get(OPTIONS, {})))
        elif inner is not None and value is not None:
            value = with_names(inner, value[OPTIONS] if CLASS in value else value)
        result[key] = value
    return result


class Layers:
    """Checker of options that come in layers: files, then flags, of which later ones win."""

    def __init__(self, config_class: type) -> None:
        self.config_class = config_class
        self.chosen: dict[str, type] = {}
        """Class of each choice so far, by the path of its field."""
        self.names: dict[str, str] = {}
        """Name of each choice so far, where it was chosen by its name."""
        self.dependents = Dependents()

    def checked(self, values: object) -> dict[str, Any]:
        """Return a layer's options as the parser takes them.

        Raises:
            ConfigError: An unknown option or choice, or a value that no option can have.
        """
        return self._options(self.config_class, values, "")

    def flags(self) -> Iterator[str]:
        """Yield the dotted name of every option that there is."""
        yield from self._flags(self.config_class, "")

    def option_at(self, flag: str) -> Option | None:
        """Return the option that a dotted name means, None where there is none."""
        config_class, found = self.config_class, None
        parts = flag.split(".")
        for position, part in enumerate(parts):
            known = _fields(config_class)
            if part not in known:
                return None
            found = known[part]
            inner = inner_class(found.hint)
            if inner is None:
                return found if position + 1 == len(parts) or _holds_keys(found.hint) else None
            config_class = self._class_at(inner, found, ".".join(parts[: position + 1]))
        return found

    def value(self, option: Option, value: object, path: str) -> Any:
        """Return one option's value as the parser takes it.

        Raises:
            ConfigError: An unknown option or choice inside, or a value that no option can have.
        """
        inner, value = inner_class(option.hint), option.current(value)
        if value is None:
            if not _takes_null(option.hint):
                raise ConfigError(f"{path} takes a value, not null: leave it out for its default")
            return None
        if inner is not None and choices_of(inner):
            return self._choice(inner, option, value, path)
        if inner is not None:
            return self._options(inner, value, path + ".")
        item = item_class(option.hint)
        if item is not None and isinstance(value, list | tuple):
            return [self._options(item, one, f"{path}.") for one in value]
        return _plain(option.hint, value, path)

    def _options(self, config_class: type, values: object, prefix: str) -> dict[str, Any]:
        if not isinstance(values, Mapping):
            where = prefix.removesuffix(".") or "a config"
            raise ConfigError(f"{where} takes a mapping of options, not {type(values).__name__}")
        known = _fields(config_class)
        for name in values:
            if name not in known:
                hint = did_you_mean(str(name), known)
                raise ConfigError(f"unknown option {prefix}{str(name)[:80]}. {hint}")
        resets = self.dependents.resets(config_class, prefix, values)
        return resets | {
            name: self.value(known[name], value, prefix + name) for name, value in values.items()
        }

    def _choice(self, base: type, option: Option, value: object, path: str) -> dict[str, Any]:
        name, options = _split(value, path)
        fixed: Mapping[str, Any] = {}
        resets: Mapping[str, Any] = {}
        if name is not None:
            choice = find_choice(base, name, path)
            shared = _SHARED[base]
            if shared is not None and self._is_another(base, option, path, name=str(name)):
                resets = self.dependents.choose(
                    choice.config_class, f"{path}.", options, stays=shared, to=str(name)
                )
            self.chosen[path], fixed = choice.config_class, choice.fixed
            if name in choices_of(base):
                self.names[path] = str(name)
        elif path not in self.chosen and option.default is None:
            raise ConfigError(f"{path} needs a name. {did_you_mean('', choices_of(base))}")
        config_class = self._class_at(base, option, path)
        checked = self._options(config_class, options, path + ".")
        for key, fixed_value in fixed.items():
            check_fixed(str(name), key, fixed_value, given=checked.get(key, fixed_value), path=path)
        self.dependents.values[f"{path}."] |= fixed
        return {CLASS: Choice(config_class).class_path, OPTIONS: {**resets, **checked, **fixed}}

    def _is_another(self, base: type, option: Option, path: str, *, name: str) -> bool:
        """Return whether a name means another class, or another choice of it, than before."""
        if find_choice(base, name, path).config_class is not self._class_at(base, option, path):
            return True
        return name in choices_of(base) and self.names.get(path, name) != name

    def owner_at(self, flag: str) -> tuple[type, str, str]:
        """Return the config class that has an option, the path of that config, and its own name."""
        config_class, prefix, parts = self.config_class, "", flag.split(".")
        while True:
            name = parts.pop(0)
            option = _fields(config_class)[name]
            inner = inner_class(option.hint)
            if not parts or inner is None:
                return config_class, prefix, name
            config_class = self._class_at(inner, option, prefix + name)
            prefix += f"{name}."

    def _class_at(self, inner: type, option: Option, path: str) -> type:
        """Return the class of a field, for a choice the one that is chosen so far."""
        if not choices_of(inner):
            return inner
        if path in self.chosen:
            return self.chosen[path]
        return inner if option.default is None else type(option.default())

    def _flags(self, config_class: type, prefix: str) -> Iterator[str]:
        for name, option in _fields(config_class).items():
            inner = inner_class(option.hint)
            if inner is None or choices_of(inner):
                yield prefix + name
            if inner is not None:
                chosen = self._class_at(inner, option, prefix + name)
                yield from self._flags(chosen, f"{prefix}{name}.")


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


def is_text(hint: Any) -> bool:
    """Return whether values of a type are taken as they are, so that text is never parsed."""
    return all(part in (str, Path, type(None)) for part in _parts(hint))


@cache
def _fields(config_class: type) -> dict[str, Option]:
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


def _parts(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _takes_null(hint: Any) -> bool:
    """Return whether a field may be null."""
    return hint is Any or type(None) in _parts(hint)


def inner_class(hint: Any) -> type | None:
    """Return the config class that a field holds: `Config` or `Config | None`."""
    for part in _parts(hint):
        if isinstance(part, type) and (is_dataclass(part) or part in _CHOICES):
            return part
    return None


def item_class(hint: Any) -> type | None:
    """Return the config class that a field holds a list of."""
    for part in _parts(hint):
        if get_origin(part) in (list, tuple) and get_args(part):
            return inner_class(get_args(part)[0])
    return None


def _holds_keys(hint: Any) -> bool:
    return any(get_origin(part) is dict for part in _parts(hint))


def _split(value: object, path: str) -> tuple[object, Mapping[str, Any]]:
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


def check_path(hint: Any, value: object, path: str) -> None:
    """See that a path is not empty, which would be the working folder.

    Raises:
        ConfigError: It is.
    """
    if value == "" and Path in _parts(hint):
        raise ConfigError(f"{path} is empty: give a path, or leave it out; . is the working folder")


def check_literal(hint: Any, value: object, path: str) -> None:
    """See that an option which takes a few words has one of them.

    Raises:
        ConfigError: It has another.
    """
    words = get_args(hint) if get_origin(hint) is Literal else ()
    if words and isinstance(value, str) and value not in words:
        raise ConfigError(f"unknown {path} {value[:80]!r}. {did_you_mean(value, words)}")


def _plain(hint: Any, value: object, path: str) -> Any:
    """Return the value of an option that holds no config."""
    check_plain(value, path)
    check_path(hint, value, path)
    check_literal(hint, value, path)
    if isinstance(value, str) and not is_text(hint):
        check_text(value, path)
    return _without_class_paths(value, path)


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
            name, options = _split(value, path)
            value = {**({} if name is None else {NAME: name}), **options}
        return {key: _without_class_paths(item, f"{path}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_class_paths(item, path) for item in value]
    return value


def _as_short(name: str) -> str:
    """Return a class name in the spelling of choices, to find the one that is like it."""
    plain = name.rpartition(".")[2].removesuffix("Config")
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in plain).lstrip("_")


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
