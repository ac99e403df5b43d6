"""YAML and JSON text to plain values, within bounds of size, depth and aliases.

Numbers are read as on the command line: `1e-3` is a float, and dates stay text.
"""

import json
import re
from typing import Any

import yaml

from virtex.errors import ConfigError

MAX_CHARACTERS = 100_000
MAX_DEPTH = 24
"""Mappings and lists inside each other; a study's recipe needs 7."""
MAX_VALUES = 10_000
"""Values in all, those behind an alias counted each time that it stands for them."""
MAX_INTEGER = 2**63
FLOAT = re.compile(
    r"""[-+]?([0-9][0-9_]*\.[0-9_]*([eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+
    |\.[0-9][0-9_]*([eE][-+]?[0-9]+)?|\.(inf|Inf|INF))$|\.(nan|NaN|NAN)$""",
    re.X,
)


def load_text(text: str) -> Any:
    """Return the plain values that YAML text holds.

    Raises:
        ConfigError: The text goes beyond a bound, or a value contains itself.
        yaml.YAMLError: The text is no YAML.
        ValueError: A number or text that Python cannot hold.
    """
    if len(text) > MAX_CHARACTERS:
        raise ConfigError(
            f"options of {len(text):,} characters are too long: {MAX_CHARACTERS:,} are allowed"
        )
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _size(node, {}) > MAX_VALUES:
            raise ConfigError(f"options of more than {MAX_VALUES:,} values are too many")
        return loader.construct_document(node)
    finally:
        loader.dispose()


def load_json(text: str, path: str = "JSON") -> Any:
    """Return the plain values that JSON text holds: finite numbers alone, nested within bounds.

    Args:
        path: Name of the whole in errors.

    Raises:
        ConfigError: A value goes beyond a bound.
        ValueError: The text is no JSON.
    """
    try:
        values = json.loads(text)
    except RecursionError:
        raise ConfigError(f"{path}: nested more than {MAX_DEPTH} deep") from None
    check_plain(values, path)
    return values


def check_plain(value: Any, path: str, *, depth: int = 0) -> None:
    """See that a value is made of mappings, lists, text and finite numbers alone.

    Raises:
        ConfigError: It is not, or it is nested too deeply.
    """
    if depth > MAX_DEPTH:
        raise ConfigError(f"{path}: nested more than {MAX_DEPTH} deep")
    if isinstance(value, dict):
        for name, item in value.items():
            check_plain(name, path, depth=depth + 1)
            check_plain(item, f"{path}.{name}", depth=depth + 1)
    elif isinstance(value, list | tuple):
        for item in value:
            check_plain(item, path, depth=depth + 1)
    elif isinstance(value, int | float):
        if not -MAX_INTEGER < value < MAX_INTEGER:
            shown = (
                value if isinstance(value, float) else f"an integer of {value.bit_length()} bits"
            )
            raise ConfigError(f"{path} is {shown}; give a finite number below 2**63")
    elif value is not None and not isinstance(value, str):
        raise ConfigError(f"{path}: {type(value).__name__} is no value of an option")


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which stops at a depth."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ConfigError(f"options are nested more than {MAX_DEPTH} deep")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


_Loader.yaml_implicit_resolvers = {
    letter: [
        (tag, pattern)
        for tag, pattern in resolvers
        if tag not in ("tag:yaml.org,2002:float", "tag:yaml.org,2002:timestamp")
    ]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("-+0123456789."))


def _size(node: yaml.Node, sizes: dict[int, int]) -> int:
    """Return how many values a node stands for; `sizes` keeps those of nodes that were counted."""
    if id(node) in sizes:
        if not sizes[id(node)]:
            raise ConfigError("options contain an alias of a value that contains the alias")
        return sizes[id(node)]
    sizes[id(node)] = 0  # open
    children: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        children = [child for pair in node.value for child in pair]
    elif isinstance(node, yaml.SequenceNode):
        children = node.value
    sizes[id(node)] = 1 + sum(_size(child, sizes) for child in children)
    return sizes[id(node)]
