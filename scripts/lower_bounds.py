"""Run tests with the oldest version of each dependency that pyproject.toml allows.

    python scripts/lower_bounds.py [tests...]

A new virtual environment gets exactly the lower bounds of the package and of its optional features;
dependencies of dependencies are the newest that fit. Without tests, the whole suite runs. The
environment needs about 6 GB and is removed at the end.
"""

import re
import subprocess
import sys
import tempfile
import tomllib
import venv
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BOUND = re.compile(r"([\w.-]+(?:\[[\w,]+\])?)>=([\w.]+)")
TOOLS = ("hypothesis", "open_clip_torch", "playwright", "pytest", "sentence-transformers")
"""Packages of the extra `dev` that tests import; their newest versions are installed."""


def main(tests: Sequence[str]) -> int:
    """Return the exit status of pytest."""
    pins = list(lower_bounds((ROOT / "pyproject.toml").read_text(encoding="utf-8")))
    print("\n".join(pins), flush=True)
    with tempfile.TemporaryDirectory(prefix="lower_bounds-") as folder:
        venv.create(folder, with_pip=True)
        python = Path(folder, "bin", "python")
        run = [python, "-m", "pip", "install", "--quiet", "--editable", ROOT, *pins, *TOOLS]
        subprocess.run(run, check=True)
        return subprocess.run([python, "-m", "pytest", *tests], cwd=ROOT).returncode


def lower_bounds(pyproject: str) -> Iterator[str]:
    """Yield `name==version` of each dependency, those of the extras but `dev` included.

    Raises:
        ValueError: A dependency has no lower bound.
    """
    project = tomllib.loads(pyproject)["project"]
    groups = {"": project["dependencies"], **project["optional-dependencies"]}
    dependencies = {name for extra, names in groups.items() if extra != "dev" for name in names}
    for dependency in sorted(dependencies):
        bound = BOUND.fullmatch(dependency)
        if bound is None:
            raise ValueError(f"{dependency} in pyproject.toml must be written NAME>=VERSION")
        yield f"{bound[1]}=={bound[2]}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
