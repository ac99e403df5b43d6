"""Links between pages, the files they name, and the spelling."""

import subprocess
import sys
from pathlib import Path

import pytest

from scripts.docs.blocks import ROOT, pages
from scripts.docs.links import link_problem, problems

SPELLED = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs", "src", "scripts", "benchmarks")


@pytest.mark.parametrize("page", [*pages(), ROOT / "CHANGELOG.md"], ids=lambda page: page.name)
def test_every_link_and_every_file_of_a_page_exists(page: Path) -> None:
    assert problems(page) == []


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ("nowhere.md", "leads to no file"),
        ("zoo.md#values-of-init", ""),
        ("zoo.md#torchhub", ""),
        ("zoo.md#nothing", "leads to no heading of zoo.md"),
        ("reference/options/pretrain.md", ""),
    ],
)
def test_a_wrong_link_is_found(link: str, expected: str) -> None:
    problem = link_problem(ROOT / "docs/data.md", link)
    assert expected in problem
    assert bool(expected) == bool(problem)


def spelling(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "codespell_lib", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


def test_the_spelling_is_right() -> None:
    done = spelling(*SPELLED)
    assert (done.stdout, done.returncode) == ("", 0), done.stderr


def test_a_wrong_spelling_is_found(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("the witdh of an image\n")
    done = spelling(str(tmp_path))
    assert "witdh ==> width" in done.stdout
    assert done.returncode
