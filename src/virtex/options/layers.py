"""The allow-list that every option passes.

Options are checked here by their names and by the types of their fields before any parser sees
them, so that what a file or a flag says never makes a module be imported or a file be opened.
"""

from collections.abc import Iterator, Mapping
from typing import Any, get_origin

from virtex.errors import ConfigError, did_you_mean
from virtex.options.choices import (
    CLASS,
    OPTIONS,
    Choice,
    Option,
    choices_of,
    find_choice,
    inner_class,
    item_class,
    options_of,
    parts_of,
    shared_options,
)
from virtex.options.dependents import Dependents, plain_defaults
from virtex.options.values import check_fixed, plain_value, split_choice, takes_null


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
            known = options_of(config_class)
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
            if not takes_null(option.hint):
                raise ConfigError(f"{path} takes a value, not null: leave it out for its default")
            return None
        if inner is not None and choices_of(inner):
            return self._choice(inner, option, value, path)
        if inner is not None:
            return self._options(inner, value, path + ".")
        item = item_class(option.hint)
        if item is not None and isinstance(value, list | tuple):
            # whole, or the parser would take what an element leaves out from an earlier layer's
            return [plain_defaults(item) | self._options(item, one, f"{path}.") for one in value]
        return plain_value(option.hint, value, path)

    def _options(self, config_class: type, values: object, prefix: str) -> dict[str, Any]:
        if not isinstance(values, Mapping):
            where = prefix.removesuffix(".") or "a config"
            raise ConfigError(f"{where} takes a mapping of options, not {type(values).__name__}")
        known = options_of(config_class)
        for name in values:
            if name not in known:
                hint = did_you_mean(str(name), known)
                raise ConfigError(f"unknown option {prefix}{str(name)[:80]}. {hint}")
        resets = self.dependents.resets(config_class, prefix, values)
        return resets | {
            name: self.value(known[name], value, prefix + name) for name, value in values.items()
        }

    def _choice(self, base: type, option: Option, value: object, path: str) -> dict[str, Any]:
        name, options = split_choice(value, path)
        fixed: Mapping[str, Any] = {}
        resets: Mapping[str, Any] = {}
        if name is not None:
            choice = find_choice(base, name, path)
            shared = shared_options(base)
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
        self.dependents.fix(f"{path}.", fixed)
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
            option = options_of(config_class)[name]
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
        for name, option in options_of(config_class).items():
            inner = inner_class(option.hint)
            if inner is None or choices_of(inner):
                yield prefix + name
            if inner is not None:
                chosen = self._class_at(inner, option, prefix + name)
                yield from self._flags(chosen, f"{prefix}{name}.")


def _holds_keys(hint: Any) -> bool:
    return any(get_origin(part) is dict for part in parts_of(hint))
