"""Paths in options: `~`, $VARIABLE and relative paths, in every config alike."""

import logging
import os
import re
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

log = logging.getLogger("virtex")
Config = TypeVar("Config")
Change = Callable[[str], str]
TEXTS = frozenset({"init", "images", "mix"})
"""Names of options that are text, or map texts to numbers, and may name a file."""
VARIABLE = re.compile(r"\$(\w+|\{[^}]*\})")


def expand(text: str) -> str:
    """Return a path with `~` and $VARIABLE replaced, except in names of files that exist.

    So a folder that is called `$x` can be named as it is. A variable that is not set stays, with a
    warning.
    """
    if "$" not in text and not text.startswith("~"):
        return text
    first, *others = Path(text).parts
    path = first if os.path.lexists(first) else _replaced(os.path.expanduser(first))  # noqa: PTH111
    for part in others:
        literal = os.path.join(path, part)  # noqa: PTH118 (pathlib would drop a leading "./")
        exists = "$" not in part or os.path.lexists(literal)
        path = literal if exists else f"{path}/{_replaced(part)}"
    return path


def _replaced(part: str) -> str:
    for found in VARIABLE.findall(part):
        name = found.strip("{}")
        if name not in os.environ:
            log.warning("%s: the variable %s is not set, the name is taken as it is", part, name)
    return os.path.expandvars(part)


def absolute(text: str) -> str:
    """Return a path as seen from any working directory; links and `..` stay as they are."""
    return str(Path(text).absolute())


def with_paths(config: Config, change: Change, *, change_text: Change | None = None) -> Config:
    """Return a config in which every path, at any depth, is changed.

    Args:
        change: Function of each option whose type is Path.
        change_text: Function of each text that may name a file; by default `change`.
    """
    changed = {}
    for field in fields(config) if field_holder(config) else ():  # type: ignore[arg-type]
        before = getattr(config, field.name)
        if field.init:
            now = _changed(before, change, change_text or change, is_file=field.name in TEXTS)
            if now is not before:
                changed[field.name] = now
    return replace(config, **changed) if changed else config  # type: ignore[type-var]


def field_holder(value: object) -> bool:
    """Whether a value is a config, not the class of one."""
    return is_dataclass(value) and not isinstance(value, type)


def _changed(value: Any, change: Change, change_text: Change, *, is_file: bool) -> Any:
    if field_holder(value):
        return with_paths(value, change, change_text=change_text)
    if isinstance(value, Path):
        text = change(str(value))
        return value if text == str(value) else type(value)(text)
    if isinstance(value, str) and is_file:
        return change_text(value)
    if isinstance(value, dict) and is_file:
        changed = {change_text(name): item for name, item in value.items()}
        return value if changed.keys() == value.keys() else changed
    if isinstance(value, tuple | list):
        items = [_changed(item, change, change_text, is_file=is_file) for item in value]
        same = all(now is before for now, before in zip(items, value, strict=True))
        return value if same else type(value)(items)
    return value
