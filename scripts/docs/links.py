"""Links and file names in the Markdown pages: each must lead to something.

`python -m scripts.docs.links` lists those that do not; with `--web`, the pages' links to the web.
"""

import re
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from markdown_it import MarkdownIt
from markdown_it.token import Token

from scripts.docs.blocks import ROOT, pages

FOLDERS = (ROOT, ROOT / "src/virtex", ROOT / "src/virtex/configs", ROOT / "docs")
"""Folders below which a file may be that stands between backticks."""
SUFFIXES = ("py", "md", "yaml", "toml", "sh", "css")
FILE_NAME = re.compile(rf"[\w./-]*\w/[\w.-]+\.({'|'.join(SUFFIXES)})|[\w-]+\.(py|toml)")
OTHERS = ("convert-torchvision-to-d2.py",)
"""Files of other projects."""
GENERATED = ("reference/options/", "reference/recipes/")
"""Pages that each build of the site makes."""
SCHEMES = ("http", "https")


def problems(page: Path) -> list[str]:
    """Return the links of a page that lead nowhere, and the files that do not exist."""
    return [f"{page.relative_to(ROOT)}:{line}: {text}" for line, text in _problems(page)]


def web_links(page: Path) -> list[str]:
    """Return a page's links to the web."""
    return [link for _, kind, link in references(page) if kind == "link" and urlsplit(link).scheme]


def references(page: Path) -> Iterator[tuple[int, str, str]]:
    """Yield the line, the kind (link or code) and the text of each link and each code span."""
    line = 1
    for token in _tokens(page):
        line = token.map[0] + 1 if token.map else line
        for child in token.children or ():
            if child.type in ("link_open", "image"):
                yield line, "link", str(child.attrs.get("href") or child.attrs.get("src"))
            elif child.type == "code_inline":
                yield line, "code", child.content


def _problems(page: Path) -> Iterator[tuple[int, str]]:
    for line, kind, text in references(page):
        if kind == "code":
            is_ours = FILE_NAME.fullmatch(text) and text not in OTHERS
            if is_ours and not _exists(text, page):
                yield line, f"no file {text}"
        elif urlsplit(text).scheme:
            if urlsplit(text).scheme not in SCHEMES or not urlsplit(text).netloc:
                yield line, f"{text} is no address of the web"
        elif problem := link_problem(page, text):
            yield line, problem


def link_problem(page: Path, link: str) -> str:
    """Return what is wrong with a link to a file or heading; empty if nothing is."""
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    if any(name in f"{page.parent.relative_to(ROOT)}/{path}" for name in GENERATED):
        return ""
    if not target.exists():
        return f"{link} leads to no file"
    if anchor and target.suffix == ".md" and anchor not in anchors(target):
        return f"{link} leads to no heading of {target.name}"
    return ""


@cache
def anchors(page: Path) -> frozenset[str]:
    """Return the anchors of a page's headings, as GitHub and MyST make them."""
    tokens = _tokens(page)
    headings = [
        tokens[index + 1].content for index, one in enumerate(tokens) if one.type == "heading_open"
    ]
    return frozenset(
        re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).replace(" ", "-")
        for heading in headings
    )


def _exists(name: str, page: Path) -> bool:
    if "/" not in name:
        return name in _file_names()
    return any((folder / name).exists() for folder in (page.parent, *FOLDERS))


@cache
def _file_names() -> frozenset[str]:
    folders = [ROOT / name for name in ("src", "tests", "benchmarks", "scripts", "docs")]
    inner = {path.name for folder in folders for path in folder.rglob("*.py")}
    return frozenset(inner | {path.name for path in ROOT.iterdir()})


def _tokens(page: Path) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(page.read_text())


def main(arguments: Sequence[str]) -> int:
    """Print the problems of all pages, or their links to the web."""
    every = [*pages(), ROOT / "CHANGELOG.md"]
    if "--web" in arguments:
        print("\n".join(sorted({link for page in every for link in web_links(page)})))
        return 0
    found = [problem for page in every for problem in problems(page)]
    print("\n".join(found) or "no problems")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
