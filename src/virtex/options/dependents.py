"""Options that depend on another one: a network's on its name, a source's on its layout.

When a later file or a flag names another network, options that earlier files set for the one before
fall back to their defaults. Those that the same file, or a flag, gives are kept.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from typing import Any

from virtex.errors import ConfigError

log = logging.getLogger("virtex")
LEFT_OUT = "left out %s %s: it was set before %s was named"
Keeps = Callable[[Any, str], bool]
"""Function of an option's new value and another option: whether the other one stays as it was."""


@dataclass(frozen=True)
class Rules:
    """How the options of one config class depend on each other."""

    keeps: Mapping[str, Keeps]
    """Rule of each option that others depend on."""
    exclusive: tuple[str, ...] = ()
    """Options of which one alone can be given; a later one replaces an earlier one."""


_RULES: dict[type, Rules] = {}
NO_RULES = Rules({})


def register_dependents(
    config_class: type, keeps: Mapping[str, Keeps], *, exclusive: Sequence[str] = ()
) -> None:
    """Declare the options of a config class that others depend on."""
    _RULES[config_class] = Rules(keeps, tuple(exclusive))


def excluded_by(given: Mapping[str, Any]) -> set[str]:
    """Return the names of the options that a mapping replaces by others, of any config class."""
    return {
        name
        for rules in _RULES.values()
        if any(given.get(one) is not None for one in rules.exclusive)
        for name in rules.exclusive
        if name not in given
    }


def lost_by(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, str]:
    """Return the options of a mapping that a second one, by what it names, leaves no meaning.

    Returns:
        What the second one names, by the name of each option.
    """
    lost: dict[str, str] = {}
    for config_class, rules in _RULES.items():
        known = plain_defaults(config_class)
        if not {*first, *second} <= {field.name for field in fields(config_class)}:
            continue
        for option, keeps in rules.keeps.items():
            now = second.get(option)
            if now is not None and now != first.get(option, known.get(option)):
                names = [name for name in first if name not in second and not keeps(now, name)]
                lost |= dict.fromkeys(names, f"{option} {now}")
    return lost


class Dependents:
    """What the layers of options have set so far, and what a later layer puts back."""

    def __init__(self) -> None:
        self.values: dict[str, dict[str, Any]] = {}
        """Options that layers set, by the path of their config, which is empty or ends in a dot."""
        self.dropped: dict[str, tuple[Any, str]] = {}
        """Value of each option that was put back, and the name that it did not hold for."""

    def resets(self, config_class: type, prefix: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options that a layer puts back to their defaults, and remember the layer.

        Raises:
            ConfigError: The layer gives two options that exclude each other.
        """
        rules = _RULES.get(config_class, NO_RULES)
        known, default_of = self.values.setdefault(prefix, {}), plain_defaults(config_class)
        resets: dict[str, Any] = {}
        for option, keeps in rules.keeps.items():
            now = given.get(option)
            if now is not None and now != known.get(option, default_of.get(option)):
                lost = [name for name in known if name not in given and not keeps(now, name)]
                resets |= self._put_back(prefix, lost, default_of, f"{prefix}{option} {now}")
        chosen = [name for name in rules.exclusive if given.get(name) is not None]
        if len(chosen) > 1:
            both = " and ".join(f"{prefix}{name} {given[name]}" for name in chosen)
            raise ConfigError(f"{both} exclude each other: give one of them")
        if chosen:
            resets |= {name: default_of[name] for name in rules.exclusive if name not in given}
        known |= {**resets, **given}
        for name in given:
            self.dropped.pop(prefix + name, None)
        return resets

    def choose(
        self,
        config_class: type,
        prefix: str,
        given: Iterable[str],
        *,
        stays: Sequence[str],
        to: str,
    ) -> dict[str, Any]:
        """Return the options that the choice of another class, or name, puts back.

        Args:
            given: Options that the same layer gives.
            stays: Options that all choices share.
            to: The name.
        """
        known, default_of = self.values.setdefault(prefix, {}), plain_defaults(config_class)
        given = set(given)
        lost = [name for name in known if name not in stays and name not in given]
        return self._put_back(prefix, lost, default_of, f"{prefix.removesuffix('.')} {to}")

    def fix(self, prefix: str, fixed: Mapping[str, Any]) -> None:
        """Remember what a name fixes; a value that it fixes to what it was is not left out."""
        self.values[prefix] |= fixed
        for name, value in fixed.items():
            before, _ = self.dropped.get(prefix + name, (MISSING, ""))
            if before == value:
                del self.dropped[prefix + name]

    def _put_back(
        self, prefix: str, names: Sequence[str], default_of: Mapping[str, Any], now: str
    ) -> dict[str, Any]:
        for name in names:
            before = self.values[prefix].pop(name)
            if name in default_of and before != default_of[name]:
                self.dropped[prefix + name] = before, now
        return {name: default_of[name] for name in names if name in default_of}

    def report(self) -> None:
        """Log what an earlier layer set, a later one put back, and none set again."""
        for path, (value, now) in self.dropped.items():
            log.warning(LEFT_OUT, path, value, now)
        self.dropped.clear()


def plain_defaults(config_class: type) -> dict[str, Any]:
    """Return the plain default of each option that has one."""
    defaults = {}
    for field in fields(config_class):
        if field.default is not MISSING:
            defaults[field.name] = _plain(field.default)
        elif field.default_factory is not MISSING:
            defaults[field.name] = _plain(field.default_factory())
    return defaults


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return list(value) if isinstance(value, tuple) else value
