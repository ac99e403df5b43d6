"""Pages of the recipes that are shipped with the package, made from their files."""

from pathlib import Path
from typing import Any

import yaml

from virtex.config import EXTENDS, flat, recipe_paths

KINDS = {
    "pretrain": (
        "Recipes of pretraining",
        "`virtex pretrain --config NAME` takes one of these. A recipe that extends another states "
        "what differs; the table below it has everything that it changes of the "
        "[defaults](../options/pretrain.md). Which to take: [pretraining](../../pretraining.md).",
    ),
    "transfer": (
        "Recipes of transfer",
        "`virtex transfer PROTOCOL` reads the recipe of its own name first; the others are named "
        "by `--config`. What each measures: [transfer](../../transfer.md).",
    ),
    "study": (
        "Recipes of studies",
        "`virtex study NAME` runs the rows of one of these and writes their table.",
    ),
}


def pages() -> dict[str, str]:
    """Return the text of each page of recipes, by the page's name."""
    index = "# Recipes\n\n```{toctree}\n:maxdepth: 1\n\n" + "\n".join(KINDS) + "\n```\n"
    return {"index": index, **{kind: page(kind) for kind in KINDS}}


def page(kind: str) -> str:
    """Return the page of a kind of recipes."""
    title, about = KINDS[kind]
    return f"# {title}\n\n{about}\n" + "".join(map(section, recipe_paths(kind)))


def section(path: Path) -> str:
    """Return the section of a recipe: what it is, its file, and all that it states."""
    comment, text = split(path.read_text())
    result = f"\n## {path.stem}\n\n{comment}\n\n```yaml\n{text}```\n"
    if EXTENDS not in yaml.safe_load(text):
        return result
    rows = "".join(f"| `{name}` | `{_shown(value)}` |\n" for name, value in stated(path).items())
    return f"{result}\n| option | value |\n|---|---|\n{rows}"


def split(text: str) -> tuple[str, str]:
    """Return the comment that a file begins with as a paragraph, and the rest."""
    lines = text.splitlines(keepends=True)
    number = next(index for index, line in enumerate(lines) if not line.startswith("#"))
    comment = " ".join(line.removeprefix("#").strip() for line in lines[:number])
    return comment.replace("*", "\\*"), "".join(lines[number:])


def stated(path: Path) -> dict[str, Any]:
    """Return all options that a recipe and those it extends state, by their dotted names."""
    values = yaml.safe_load(path.read_text())
    extended = values.pop(EXTENDS, None)
    before = stated(path.with_name(f"{extended}.yaml")) if extended else {}
    return before | flat(values)


def _shown(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("...\n").strip()
