"""The Dockerfile: its image, its user, and what its commands install."""

import re
import shlex
import shutil
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from scripts import build
from virtex.version import VERSION

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DOCKERFILE = [
    tuple(line.split(maxsplit=1))
    for line in (ROOT / "Dockerfile").read_text().splitlines()
    if line and not line.startswith("#")
]


def arguments(instruction: str) -> list[str]:
    """The arguments of each line of the Dockerfile with an instruction."""
    return [rest for word, rest in DOCKERFILE if word == instruction]


def test_the_image_is_pytorchs_and_not_older_than_the_package_allows() -> None:
    (image,) = arguments("ARG")
    assert arguments("FROM") == ["${IMAGE}"]
    version = image.removeprefix("IMAGE=pytorch/pytorch:").partition("-")[0]
    (torch,) = (
        requirement
        for requirement in map(Requirement, PROJECT["dependencies"])
        if requirement.name == "torch"
    )
    assert version in torch.specifier
    assert re.search(r"-cuda\d+\.\d-cudnn9-runtime$", image)


def test_the_container_is_the_command_and_not_root() -> None:
    assert arguments("ENTRYPOINT") == ['["virtex"]']
    assert arguments("USER") == ["1000:1000"]
    (install,) = arguments("RUN")
    (extras,) = re.findall(r"\[([\w,]+)\]", install)
    assert set(extras.split(",")) < PROJECT["optional-dependencies"].keys()


def context(folder: Path) -> Path:
    """Copy what .dockerignore lets pass, whose lines are `!PATH` or `**/PATTERN` after `*`."""
    first, *others = (ROOT / ".dockerignore").read_text().split()
    assert first == "*"
    left_out = shutil.ignore_patterns(*(line[3:] for line in others if line.startswith("**/")))
    folder.mkdir()
    for name in (line[1:] for line in others if line.startswith("!")):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=left_out)
        else:
            shutil.copy(ROOT / name, folder)
    return folder


@pytest.mark.slow
def test_the_commands_of_the_dockerfile_install_the_command(tmp_path: Path) -> None:
    environment = build.Environment(
        tmp_path / "venv", sys.executable, reuse=Path(sys.prefix)
    )  # the environment lends its packages as the image does
    for line in arguments("ENV"):
        environment.variables |= dict(word.split("=", 1) for word in shlex.split(line))
    copied = context(tmp_path / "context")
    for line in arguments("RUN"):
        environment.run(line, folder=copied)
    shutil.rmtree(copied)
    assert environment.run("virtex --version", folder=tmp_path).strip() == VERSION
    where = environment.run("python -c 'import virtex; print(virtex.__file__)'", folder=tmp_path)
    assert where.startswith(str(tmp_path / "venv"))
