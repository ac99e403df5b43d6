"""The distribution: its name, version, bounds and files."""

import re
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import virtex
from scripts import build, lower_bounds
from virtex.cli import main
from virtex.version import DISTRIBUTION, VERSION

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = (ROOT / "pyproject.toml").read_text()
PROJECT = tomllib.loads(PYPROJECT)["project"]
TEXTS = [
    path
    for folder in ("src", "docs", "scripts", ".github", "README.md", "CONTRIBUTING.md")
    for path in [ROOT / folder, *(ROOT / folder).rglob("*")]
    if path.suffix in {".py", ".md", ".yaml", ".yml", ".sh", ".html", ".ipynb"}
]
FOREIGN = re.compile(r"pip install[^\n`]*[\s'\"]virtex(?![\w-])")


def test_name_and_version_are_stated_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert (PROJECT["name"], PROJECT["dynamic"]) == (DISTRIBUTION, ["version"])
    assert "version" not in PROJECT
    assert virtex.__version__ == VERSION
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == VERSION
    assert "version" not in yaml.safe_load((ROOT / "CITATION.cff").read_text())


def test_the_changelog_has_a_section_of_each_release() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    headings = re.findall(r"^## \[(\S+)\](?: - \d{4}-\d\d-\d\d)?$", text, re.MULTILINE)
    assert headings == re.findall(r"^## \[?([^]\s]+)", text, re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert VERSION in headings or ".dev" in VERSION
    assert set(re.findall(r"^### (\w+)$", text, re.MULTILINE)) <= {
        "Added", "Changed", "Deprecated", "Removed", "Fixed", "Security",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("line", "is_foreign"),
    [
        ("    pip install virtex", True),
        ("needs it: pip install 'virtex[demo]'", True),
        ("    pip install --upgrade virtex==0.2", True),
        ("    pip install virtex-vision", False),
        ("pip install starlette uvicorn, then `virtex demo`", False),
    ],
)
def test_a_command_that_installs_another_project_is_known(line: str, is_foreign: bool) -> None:
    assert bool(FOREIGN.search(line)) is is_foreign


def test_no_text_installs_another_project_of_this_name() -> None:
    assert len(TEXTS) > 300
    assert not [path for path in TEXTS if FOREIGN.search(path.read_text(encoding="utf-8"))]


def test_lower_bounds_are_found_of_all_dependencies_but_those_of_developers() -> None:
    extras = PROJECT["optional-dependencies"]
    own, *tools = (Requirement(line) for line in extras["dev"])
    others = [line for extra, lines in extras.items() if extra != "dev" for line in lines]
    pins = {Requirement(pin).name for pin in lower_bounds.lower_bounds(PYPROJECT)}
    expected = {Requirement(line).name for line in [*PROJECT["dependencies"], *others]}
    assert pins == expected
    assert (own.name, own.extras) == (DISTRIBUTION, extras.keys() - {"dev"})
    assert not {canonicalize_name(tool.name) for tool in tools} & set(map(canonicalize_name, pins))


def test_classifiers_name_the_versions_of_python_that_are_allowed() -> None:
    allowed = SpecifierSet(PROJECT["requires-python"])
    versions = build.pythons()
    assert [version for version in versions if version in allowed] == versions
    assert PROJECT["requires-python"] == f">={versions[0]}"


def test_a_stub_of_python_without_an_installation_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for version, code in {"3.12": 127, "3.13": 0}.items():
        (tmp_path / f"python{version}").write_text(f"#!/bin/sh\nexit {code}\n")
        (tmp_path / f"python{version}").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert list(build.on_path()) == [str(tmp_path / "python3.13")]
    assert capsys.readouterr().out.count("was not found") == len(build.pythons()) - 1


def test_the_citation_is_the_papers() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["authors"] == PROJECT["authors"]
    assert citation["license"] == PROJECT["license"]
    paper = citation["preferred-citation"]
    assert (paper["title"], paper["year"]) == (
        "VirTex: Learning Visual Representations from Textual Annotations", 2021,
    )  # fmt: skip
    assert [author["family-names"] for author in paper["authors"]] == ["Desai", "Johnson"]
    assert paper["url"] == PROJECT["urls"]["Paper"]


def archives(folder: Path, lacks: str, readme: str) -> tuple[Path, Path]:
    """A wheel and an sdist of the package's files, both without one of them."""
    metadata = f"Metadata-Version: 2.4\nName: {DISTRIBUTION}\nVersion: 1\n{readme}\n"
    wheel, sdist = folder / "a-1-py3-none-any.whl", folder / "a-1.tar.gz"
    (folder / "PKG-INFO").write_text(metadata)
    with zipfile.ZipFile(wheel, "w") as packed, tarfile.open(sdist, "w:gz") as tar:
        packed.writestr("a-1.dist-info/METADATA", metadata)
        tar.add(folder / "PKG-INFO", "a-1/PKG-INFO")
        for path in (ROOT / "src").glob("virtex/**/*"):
            name = path.relative_to(ROOT / "src").as_posix()
            if path.is_file() and "__pycache__" not in name and name != lacks:
                packed.writestr(name, "")
                tar.add(folder / "PKG-INFO", f"a-1/src/{name}")
    return wheel, sdist


def test_a_file_of_the_package_that_the_archives_lack_is_named(tmp_path: Path) -> None:
    wheel, sdist = archives(tmp_path, "virtex/py.typed", "Summary: x")
    assert list(build.missing_files(wheel, sdist)) == [
        f"{wheel.name} lacks virtex/py.typed: see package-data in pyproject.toml",
        f"{sdist.name} lacks src/virtex/py.typed: see MANIFEST.in",
    ]
    assert list(build.metadata_problems(wheel, sdist)) == []


def test_metadata_that_an_index_refuses_are_named(tmp_path: Path) -> None:
    wheel, sdist = archives(tmp_path, "", "Requires-Python: three")
    assert list(build.missing_files(wheel, sdist)) == []
    problems = list(build.metadata_problems(wheel, sdist))
    assert len(problems) == 2
    assert "'three' is invalid for 'requires-python'" in problems[0]


@pytest.mark.slow
def test_wheel_and_sdist_pretrain_and_transfer(tmp_path: Path) -> None:
    build.main(["--out", str(tmp_path), "--reuse", sys.prefix])
    assert len(list(tmp_path.glob("virtex_vision-*"))) == 2
