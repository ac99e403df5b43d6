"""Sphinx extension of the documentation site: generated pages, signatures, and links to files."""

from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

from scripts.docs import options, recipes, signatures

OUTSIDE = {"../CONTRIBUTING.md": "contributing.md", "../CHANGELOG.md": "changelog.md"}
"""Files beside docs/ that pages name, and the pages that include them."""
GENERATED = Path("reference")
"""Folder of the pages that are made by each build, never checked in."""


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the handlers."""
    signatures.setup(app)
    write_pages(Path(app.srcdir) / GENERATED)
    app.connect("source-read", name_pages)
    app.connect("source-read", list_others)
    app.connect("env-get-outdated", lambda *_: ["index"])  # its list depends on the other pages
    app.connect("doctree-read", write_dashes)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def write_pages(folder: Path) -> None:
    """Write the pages of options and recipes that changed, and remove those of earlier builds."""
    for kind, made in (("options", options.pages()), ("recipes", recipes.pages())):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for path in (folder / kind).glob("*.md"):
            if path.stem not in made:
                path.unlink()
        for name, text in made.items():
            path = folder / kind / f"{name}.md"
            if not path.is_file() or path.read_text() != text:
                path.write_text(text)


def name_pages(app: Sphinx, page: str, content: list[str]) -> None:
    """Let links to files beside docs/ lead to the pages that include them."""
    for path, included in OUTSIDE.items():
        content[0] = content[0].replace(f"]({path})", f"]({included})")


def list_others(app: Sphinx, page: str, content: list[str]) -> None:
    """Add the pages of docs/ that the front page does not name to its table of contents."""
    if page != "index":
        return
    named = {line.strip() for line in content[0].splitlines()}
    others = sorted(name for name in app.env.found_docs - named if "/" not in name)
    others.remove("index")
    if others:
        names = "\n".join(others)
        content[0] += f"\n```{{toctree}}\n:caption: More\n:hidden:\n\n{names}\n```\n"


def write_dashes(app: Sphinx, document: nodes.document) -> None:
    """Write the dash after an argument's name, which Sphinx leaves to smart quotes."""
    for text in list(document.findall(nodes.Text)):
        if text.astext() == " -- ":
            text.parent.replace(text, nodes.Text(" – "))
