"""The documentation site builds without a warning, and without a network."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from scripts.docs import site
from scripts.docs.blocks import ROOT


def test_pages_that_the_front_page_does_not_name_are_listed() -> None:
    pages = {"index", "data", "tracking", "guide/folder"}
    app: Any = SimpleNamespace(env=SimpleNamespace(found_docs=pages))
    content = ["# virtex\n\n```{toctree}\ndata\n```\n"]
    site.list_others(app, "index", content)
    assert content[0].endswith(":hidden:\n\ntracking\n```\n")


def test_a_page_of_a_command_that_is_no_more_is_removed(tmp_path: Path) -> None:
    site.write_pages(tmp_path)
    (tmp_path / "options/nothing.md").touch()
    before = (tmp_path / "options/pretrain.md").stat().st_mtime_ns
    site.write_pages(tmp_path)
    assert not (tmp_path / "options/nothing.md").exists()
    assert (tmp_path / "options/pretrain.md").stat().st_mtime_ns == before


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html"]
    done = subprocess.run(
        [*command, "-d", str(tmp_path / "doctrees"), "docs", str(tmp_path / "html")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=170,
    )
    assert (done.stderr, done.returncode) == ("", 0)
    page = (tmp_path / "html/reference/python.html").read_text()
    assert 'id="virtex.load_backbone"' in page
    assert "fonts.googleapis" not in page
    assert (tmp_path / "html/reference/options/pretrain.html").is_file()
