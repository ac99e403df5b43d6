"""Checks of the commands and the Python code in a block.

`python -m scripts.docs.checks` lists the problems of all pages.
"""

import ast
import contextlib
import importlib
import inspect
import io
import re
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

from scripts.docs.blocks import (
    PROGRAMS,
    ROOT,
    SYSTEM,
    Block,
    blocks,
    commands,
    logical_lines,
    pages,
    program_of,
)
from virtex import cli, config
from virtex.demo import demo_config
from virtex.errors import VirTexError

OPEN = ("...", "[...]")
"""Words that stand for options which a page leaves out."""
FOLDERS = ("PHOTOS", "photos", "maps")
"""Folders that options of the pages name and that must exist."""
ALLOWED = {False: ("holds no run to resume",), True: ("are required", "needs a value")}
"""Refusals that are no mistakes of a page: of a block, and of a command between backticks."""


class Parsed(Exception):  # noqa: N818
    """The options of a command were parsed, and its work would begin."""


def problems(block: Block) -> list[str]:
    """Return what is wrong with a block."""
    if not block.is_checked:
        return []
    found = python_problems(block.text) if block.kind == "python" else shell_problems(block)
    return [f"{block.place}: {problem}" for problem in found]


def shell_problems(block: Block) -> Iterator[str]:
    """Yield what is wrong with the commands of a block.

    Its parts between empty lines that hold no command, such as a tree of files, are text.
    """
    for part in re.split(r"\n\s*\n", block.text):
        lines = [(line, commands(line)) for line in logical_lines(part)]
        known = [words for _, found in lines for words in found if program_of(words) in PROGRAMS]
        for words in known:
            yield from CHECKS[program_of(words)](words, block)
        rest = [line for line, found in lines if not any(map(known.__contains__, found))]
        if known and rest:
            for problem in python_problems("\n".join(rest)):
                yield f"neither a known command nor Python: {problem}"


def virtex_problems(words: Sequence[str], block: Block) -> Iterator[str]:
    """Yield why the real parser refuses a command of this package."""
    arguments = tuple(word for word in words[1:] if word not in OPEN)
    is_whole = len(arguments) == len(words) - 1 and not block.is_inline
    message = parsed(arguments, is_whole=is_whole)
    if message and not any(pattern in message for pattern in ALLOWED[block.is_inline]):
        yield f"{' '.join(words)}: {message}"


@contextlib.contextmanager
def toy_paths() -> Iterator[None]:
    """Work in a folder that has the files which options of the pages name."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for name in FOLDERS:
            Path(name).mkdir()
        Path("GOOD.txt").write_text("1\n")
        yield


@cache
def parsed(arguments: tuple[str, ...], *, is_whole: bool) -> str:
    """Return the message with which the parser refuses a command line; empty if it takes it.

    Args:
        is_whole: Whether nothing that is required was left out.
    """
    asks = any(word.endswith(("-help", ".help")) for word in arguments)
    extra = () if is_whole or asks else ("--print_config",)
    real = config.parse

    def parse_and_stop(*args: Any, **kwargs: Any) -> Any:
        real(*args, **kwargs)
        raise Parsed

    with (
        mock.patch.object(config, "parse", parse_and_stop),
        mock.patch.object(demo_config, "parse", parse_and_stop),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        try:
            cli._run([*arguments, *extra])
        except (Parsed, SystemExit):
            return ""
        except VirTexError as error:
            return str(error)
    return ""


def python_command_problems(words: Sequence[str], block: Block) -> Iterator[str]:
    """Yield what a `python ...` command names that does not exist."""
    del block
    if words[1:3] == ["-m", "pytest"]:
        yield from (f"{word} does not exist" for word in words[3:] if not _exists_if_path(word))
        return
    if len(words) > 1 and words[1] == "-m":
        path = ROOT / f"{words[2].replace('.', '/')}.py"
        path = path if path.is_file() else path.with_suffix("") / "__main__.py"
    else:
        path = ROOT / words[1]
    if not path.is_file():
        yield f"{path.relative_to(ROOT)} does not exist"
        return
    shared = path.parent if path.name == "__main__.py" else ROOT / "benchmarks"
    files = [path, *shared.glob("*.py")]
    source = "".join(file.read_text() for file in files)
    for word in words[2:]:
        name = word.partition("=")[0]
        is_known = re.search(rf"(--|\b){re.escape(name[2:])}(?![\w-])", source)
        if name.startswith("--") and not is_known:
            yield f"{path.relative_to(ROOT)} has no option {name}"


def make_problems(words: Sequence[str], block: Block) -> Iterator[str]:
    """Yield the targets and variables that the Makefile lacks."""
    del block
    makefile = (ROOT / "Makefile").read_text()
    for word in words[1:]:
        name, equals, _ = word.partition("=")
        pattern = rf"^{re.escape(name)} \?=|\$\({re.escape(name)}\)" if equals else rf"^{name}:"
        if not re.search(pattern, makefile, re.MULTILINE):
            yield f"the Makefile has no {name}"


def pip_problems(words: Sequence[str], block: Block) -> Iterator[str]:
    """Yield the packages that pyproject.toml does not name."""
    del block
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    known = [project["name"], *project["dependencies"]]
    for packages in project["optional-dependencies"].values():
        known += packages
    names = {re.split(r"[\[<>=]", package)[0] for package in known}
    for word in words[2:]:
        name = re.split(r"[\[<>=]", word)[0]
        if not word.startswith("-") and name not in names | {".", ""}:
            yield f"pip installs {name}, which pyproject.toml does not name"


def launcher_problems(words: Sequence[str], block: Block) -> Iterator[str]:
    """Yield what is wrong with the command that torchrun or srun start."""
    for start in ("virtex.cli", "virtex"):
        if start in words:
            yield from virtex_problems(["virtex", *words[words.index(start) + 1 :]], block)
            return
    yield f"{' '.join(words)} starts no virtex command"


def script_problems(words: Sequence[str], block: Block) -> Iterator[str]:
    """Yield the script that does not exist."""
    name = words[1] if words[0] == "sbatch" else words[0]
    if not any((folder / name).is_file() for folder in (ROOT, block.page.parent)):
        yield f"{name} does not exist"


CHECKS = {
    "virtex": virtex_problems,
    "python": python_command_problems,
    "make": make_problems,
    "pip": pip_problems,
    "torchrun": launcher_problems,
    "srun": launcher_problems,
    "sbatch": script_problems,
    "sh": script_problems,
    **dict.fromkeys(SYSTEM, lambda words, block: iter(())),
}
"""Function for each program that lists what is wrong with a command line of it."""


def python_problems(text: str) -> Iterator[str]:
    """Yield what is wrong with Python code: syntax, imports, and calls of this package."""
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        yield f"{error.msg}: {(error.text or '').strip()}"
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (p for name in node.names if (p := _lacks(name.name, "")))
        elif isinstance(node, ast.ImportFrom):
            yield from (p for name in node.names if (p := _lacks(node.module or "", name.name)))
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "virtex":
            yield from _call_problems(node.attr, tree)


def _lacks(module: str, name: str) -> str:
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        return str(error)
    return "" if not name or hasattr(found, name) else f"{module} has no {name}"


def _call_problems(name: str, tree: ast.Module) -> Iterator[str]:
    """Yield what is wrong with the calls of a public name."""
    import virtex

    if not hasattr(virtex, name):
        if _lacks(f"virtex.{name}", ""):
            yield f"virtex has no {name}"
        return
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and ast.unparse(call.func) == f"virtex.{name}":
            given = {keyword.arg: None for keyword in call.keywords if keyword.arg}
            try:
                inspect.signature(getattr(virtex, name)).bind_partial(*call.args, **given)
            except TypeError as error:
                yield f"virtex.{name}: {error}"


def _exists_if_path(word: str) -> bool:
    return "/" not in word or (ROOT / word.partition("::")[0]).exists()


def main() -> int:
    """List the problems of all pages."""
    every = [block for page in pages() for block in blocks(page)]
    with toy_paths():
        found = [problem for block in every for problem in problems(block)]
    print("\n".join(found) or "no problems")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
