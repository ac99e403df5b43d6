"""The CI workflow: it tests what pyproject.toml allows, by targets of the Makefile."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import yaml

from scripts import build

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / ".github" / "workflows" / "test.yml").read_text()
WORKFLOW = yaml.safe_load(TEXT)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PYTHONS = build.pythons()


def commands() -> list[str]:
    """All shell commands of the CI workflow."""
    jobs = WORKFLOW["jobs"].values()
    return [step["run"] for job in jobs for step in job["steps"] if "run" in step]


def test_the_workflow_tests_every_python_with_the_oldest_and_the_newest_torch() -> None:
    jobs = WORKFLOW["jobs"]
    matrix = jobs["test"]["strategy"]["matrix"]
    (oldest,) = (line for line in PROJECT["dependencies"] if line.startswith("torch>="))
    bound = oldest.removeprefix("torch>=")
    assert matrix == {"python": PYTHONS, "torch": [f"=={bound}.*", f">={bound}"]}
    (setup,) = (
        step for step in jobs["distribution"]["steps"] if "setup-python" in step.get("uses", "")
    )
    assert setup["with"]["python-version"].split() == PYTHONS


def test_the_workflow_calls_targets_of_the_makefile() -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    called = [word for line in commands() for word in re.findall(r"make ([\w-]+)", line)]
    assert {"lint", "docs", "test", "dist"} <= set(called) <= set(targets)


def test_the_workflow_may_only_read_and_asks_no_host_but_pytorchs() -> None:
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert re.findall(r"https?://[^/\s]+", TEXT) == ["https://download.pytorch.org"]
    assert "secrets." not in TEXT


def test_the_workflow_replaces_the_pins_of_torch(tmp_path: Path) -> None:
    shutil.copy(ROOT / "constraints.txt", tmp_path)
    (command,) = (line for line in commands() if "constraints.txt" in line)
    script = command.replace("${{ matrix.torch }}", "==2.11.*")
    subprocess.run(["sh", "-ec", script], cwd=tmp_path, check=True)
    lines = (tmp_path / "constraints.txt").read_text().splitlines()
    torch = [line for line in lines if re.match("torch|triton", line)]
    assert torch == ["torch==2.11.*"]
