"""Blocks of code and commands in Markdown pages, with their lines.

A shell block's `virtex` commands go through the real parser, up to the point where work would
begin; other commands must name what exists. A Python block must compile, and what it imports and
calls of this package must exist. A comment before a block says more:

    <!-- run -->                      a test executes the block, on toy data
    <!-- not run: needs a GPU -->     nothing is checked

`python -m scripts.docs.blocks` lists the blocks, `python -m scripts.docs.checks` their problems.
"""

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[2]
Kind = Literal["shell", "python", "text"]
SHELL = ("bash", "sh", "shell", "console")
MARK = re.compile(r"<!--\s*(run|not run: *(?P<reason>.+?))\s*-->", re.DOTALL)
SYSTEM = (
    "aws", "cat", "cd", "curl", "docker", "export", "find", "git", "grep", "hf", "sky",
    "tensorboard", "trackio", "ulimit", "wandb", "wc",
)  # fmt: skip
"""Programs of others, whose options are not checked."""
PROGRAMS = ("virtex", "python", "make", "pip", "torchrun", "srun", "sbatch", "sh", *SYSTEM)
PLACEHOLDERS = {
    "COMMAND": "pretrain",
    "PROTOCOL": "voc07",
    "NAME|FILE": "base",
    "RECIPE": "base",
    "FORMAT": "timm",
    "PATH": "backbone.safetensors",
}
"""Words of a synopsis, and what may stand in their place."""
OPTIONAL = re.compile(r"\[--[^\]]*\]")
INLINE = re.compile(r"virtex .*--")
ASSIGNMENT = re.compile(r"[A-Z_][A-Z_0-9]*=\S*")


@dataclass(frozen=True)
class Block:
    """A block of a page, or a command between backticks."""

    page: Path
    line: int
    """Number of its first line."""
    kind: Kind
    text: str
    mark: str = ""
    """`run`, the reason why it is not checked, or empty."""
    is_inline: bool = False
    """Whether it stands between backticks in a text, where options may be left out."""

    @property
    def place(self) -> str:
        """Page and line, as editors take them."""
        inside = self.page.is_relative_to(ROOT)
        return f"{self.page.relative_to(ROOT) if inside else self.page}:{self.line}"

    @property
    def is_run(self) -> bool:
        """Whether a test executes it."""
        return self.mark == "run"

    @property
    def is_checked(self) -> bool:
        """Whether it is code or commands, and no mark says why it is not checked."""
        return self.kind != "text" and (self.is_run or not self.mark)


def pages() -> list[Path]:
    """Return the Markdown pages of the repository that are written by hand."""
    docs = [
        path
        for path in sorted((ROOT / "docs").rglob("*.md"))
        if not {"_build", "options", "recipes"} & set(path.relative_to(ROOT / "docs").parts[:-1])
    ]
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *docs]


def blocks(page: Path) -> list[Block]:
    """Return the blocks of a page, and the commands of this package between backticks."""
    tokens = MarkdownIt("commonmark").enable("table").parse(page.read_text())
    return list(_blocks(page, tokens))


def _blocks(page: Path, tokens: Sequence[Token]) -> Iterator[Block]:
    mark, line = "", 1
    for token in tokens:
        line = token.map[0] + 1 if token.map else line
        if token.type == "html_block":
            found = MARK.search(token.content)
            mark = (found["reason"] or "run") if found else ""
        elif token.type in ("fence", "code_block"):
            words = token.info.split() if token.type == "fence" else []
            inside = 1 if token.type == "fence" else 0
            yield Block(page, line + inside, kind_of(token, words), token.content, mark)
            mark = ""
        elif token.type == "inline":
            for child in token.children or ():
                if child.type == "code_inline" and INLINE.match(child.content):
                    yield Block(page, line, "shell", child.content, mark, is_inline=True)
        if token.type in ("paragraph_close", "heading_close", "table_close"):
            mark = ""


def kind_of(token: Token, words: Sequence[str]) -> Kind:
    """Return what a block holds, by its language or else by its lines."""
    if token.type == "fence" and words:
        return "python" if words[0] == "python" else "shell" if words[0] in SHELL else "text"
    lines = logical_lines(token.content)
    if any(program_of(command) in PROGRAMS for line in lines for command in commands(line)):
        return "shell"
    is_python = any(line.startswith(("import ", "from ")) for line in lines)
    return "python" if is_python else "text"


def logical_lines(text: str) -> list[str]:
    """Return the lines of a block that are not empty, those that a backslash divides as one."""
    joined = re.sub(r"\\\n\s*", " ", text)
    return [line.strip() for line in joined.splitlines() if line.strip()]


def commands(line: str) -> list[list[str]]:
    """Return the words of each command in a shell's line, which `|` and `;` divide.

    Values stand in place of the words that a synopsis has, such as NAME|FILE.
    """
    for word, value in PLACEHOLDERS.items():
        line = re.sub(rf"(?<![\w|]){re.escape(word)}(?![\w|])", value, line)
    lexer = shlex.shlex(OPTIONAL.sub("...", line), posix=True, punctuation_chars="|;&")
    lexer.whitespace_split = True
    try:
        words = list(lexer)
    except ValueError:  # a quote of prose or of Python
        return []
    found: list[list[str]] = [[]]
    for word in words:
        if set(word) <= set("|;&"):
            found.append([])
        elif found[-1] or not ASSIGNMENT.fullmatch(word):
            found[-1].append(word)
    return [command for command in found if command]


def program_of(words: Sequence[str]) -> str:
    """Return the name of the program that a command starts."""
    name = words[0].rpartition("/")[2]
    return "sh" if name.endswith(".sh") else name


if __name__ == "__main__":
    for one in (block for page in pages() for block in blocks(page)):
        print(f"{one.place}\t{one.kind}\t{one.mark or 'checked'}")
