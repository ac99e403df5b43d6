"""Autodoc's signatures and attribute docstrings, as the source states them."""

import ast
import inspect
import textwrap
from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any

from sphinx.application import Sphinx

BEFORE_NAPOLEON, AFTER_NAPOLEON = 400, 600
"""Priorities of handlers; napoleon's is 500."""


def setup(app: Sphinx) -> None:
    """Connect the handlers below to autodoc's events."""
    kept: dict[str, list[str]] = {}

    def keep(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
        kept[name] = list(lines)

    def restore(
        app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
    ) -> None:
        """Undo napoleon's reading of `Beam search: number of beams` as a type and a text."""
        if what in ("attribute", "data", "property"):
            lines[:] = kept[name]
        lines[:] = [line.replace("`", "``") if "``" not in line else line for line in lines]

    app.connect("autodoc-process-docstring", keep, priority=BEFORE_NAPOLEON)
    app.connect("autodoc-process-docstring", restore, priority=AFTER_NAPOLEON)
    app.connect("autodoc-process-signature", signature)


def signature(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, given: str, returned: str
) -> tuple[str, str | None] | None:
    """Return a signature with the names that the source has: `ImageInputs`, not what it unites.

    That of a dataclass is empty, since its fields are listed with their defaults.
    """
    if what == "class":
        return ("", None) if is_dataclass(obj) or inspect.isabstract(obj) else None
    if what not in ("function", "method"):
        return None
    function = inspect.unwrap(getattr(obj, "__func__", obj))
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return None
    definition = tree.body[0]
    assert isinstance(definition, ast.FunctionDef), f"{name} is a function"
    names = _Names(function.__globals__)
    arguments, static = definition.args, "staticmethod" in ast.dump(tree)
    if what == "method" and not static and (arguments.posonlyargs or arguments.args):
        (arguments.posonlyargs or arguments.args).pop(0)
    for argument in ast.walk(arguments):
        if isinstance(argument, ast.arg) and argument.annotation is not None:
            argument.annotation = names.visit(argument.annotation)
    result = definition.returns and ast.unparse(names.visit(definition.returns))
    return f"({ast.unparse(arguments)})", result or ""


class _Names(ast.NodeTransformer):
    """Transformer of an annotation whose class names get their modules, shown without them."""

    def __init__(self, known: Mapping[str, Any]) -> None:
        self.known = known

    def visit_Name(self, node: ast.Name) -> ast.expr:
        found = self.known.get(node.id)
        if not isinstance(found, type) or found.__module__ == "builtins":
            return node
        return _short(f"{found.__module__}.{found.__qualname__}")

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        return _short(ast.unparse(node))

    def visit_Constant(self, node: ast.Constant) -> ast.expr:
        is_name = isinstance(node.value, str) and node.value.isidentifier()
        return self.visit_Name(ast.Name(node.value)) if is_name else node

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        if ast.unparse(node.value) != "Literal":
            node.slice = self.visit(node.slice)
        node.value = self.visit(node.value)
        return node


def _short(name: str) -> ast.expr:
    return ast.UnaryOp(ast.Invert(), ast.parse(name, mode="eval").body)
