"""Options of several files as those of one, so that a parser reads them once."""

from collections.abc import Mapping
from typing import Any

from virtex.options.choices import (
    CLASS,
    OPTIONS,
    Option,
    choices_of,
    find_choice,
    inner_class,
    options_of,
)


def overlaid(
    config_class: type, first: Mapping[str, Any], second: Mapping[str, Any]
) -> dict[str, Any]:
    """Return options as `Layers.checked` gives them, with those of a later layer over them.

    Groups of options are joined. A choice of another class keeps the options that this class has;
    lists and mappings of values replace those before.
    """
    known = options_of(config_class)
    later = {name: _value(known[name], first.get(name), value) for name, value in second.items()}
    return {**first, **later}


def _value(option: Option, first: Any, second: Any) -> Any:
    inner = inner_class(option.hint)
    if inner is None or first is None or second is None:
        return second
    if not choices_of(inner):
        return overlaid(inner, first, second)
    chosen = find_choice(inner, second[CLASS], "a choice").config_class
    kept = {name: value for name, value in first[OPTIONS].items() if name in options_of(chosen)}
    return {CLASS: second[CLASS], OPTIONS: overlaid(chosen, kept, second[OPTIONS])}
