"""Build the wheel and the sdist, and use both in bare environments.

    python scripts/build.py [--out dist] [--python PROGRAM ...] [--reuse ENVIRONMENT]

Needs `pip install build`. Every Python that pyproject.toml names and that is on PATH, or each given
PROGRAM, gets a new environment, where the wheel and then the sdist pretrain a toy backbone and
transfer it. pip fetches about 3 GB for each, and an environment takes 6 GB until it is removed;
PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu makes both small. With --reuse, only the
Python of that environment is taken, and its packages instead of new ones; the package itself it
does not lend. The files are put into --out if all went well.
"""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator, Sequence
from email.parser import BytesParser
from pathlib import Path, PurePosixPath

from packaging.metadata import Metadata

ROOT = Path(__file__).resolve().parent.parent
PYTHON = "Programming Language :: Python :: "
TOY = "--data.source scenes --data.num_images 24 --data.num_val_images 12 --data.image_size 64"
IMPORT = """import sys, importlib.metadata, virtex
assert virtex.__file__.startswith(sys.prefix), virtex.__file__
assert virtex.__version__ == importlib.metadata.version("virtex-vision")"""
JOBS = (
    f"python -c '{IMPORT}'",
    "virtex --help",
    f"virtex pretrain --config quickstart --out run {TOY} --image.size 64 "
    "--tokenizer.vocab_size 250 --backbone.name resnet18 --run.batch_size 8 --run.num_steps 4 "
    "--processes 1",
    f"virtex transfer voc07 --init run --out results {TOY} --image_size 64 --leave_out_rare true",
)
"""Commands of each check, run one after the other in an empty folder."""


def main(arguments: Sequence[str]) -> None:
    """Build, check and keep the files; exit with a message if a check fails."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="folder for the files")
    parser.add_argument("--python", nargs="+", metavar="PROGRAM", help="instead of those on PATH")
    parser.add_argument("--reuse", type=Path, help="environment that lends the dependencies")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="build-") as folder:
        wheel, sdist = build(ROOT, Path(folder))
        if problems := [*missing_files(wheel, sdist), *metadata_problems(wheel, sdist)]:
            sys.exit("\n".join(problems))
        if options.reuse is not None:
            options.python = [options.reuse / "bin" / "python"]
        for python in options.python or on_path():
            check(python, wheel, sdist, reuse=options.reuse)
            print(f"wheel and sdist work with {python}", flush=True)
        options.out.mkdir(parents=True, exist_ok=True)
        for path in (wheel, sdist):
            print(shutil.move(path, options.out / path.name))


def build(project: Path, out: Path) -> tuple[Path, Path]:
    """Return the paths of the wheel and the sdist of a project, made in the folder `out`."""
    command = [sys.executable, "-m", "build", "--outdir", out, project]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    (wheel,), (sdist,) = out.glob("*.whl"), out.glob("*.tar.gz")
    return wheel, sdist


def missing_files(wheel: Path, sdist: Path) -> Iterator[str]:
    """Yield a sentence for each file of the package that the wheel or the sdist lacks."""
    source = ROOT / "src"
    paths = [path.relative_to(source) for path in source.glob("virtex/**/*") if path.is_file()]
    expected = {path.as_posix() for path in paths if "__pycache__" not in path.parts}
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = set(archive.namelist())
    with tarfile.open(sdist) as archive:
        in_sdist = {PurePosixPath(*PurePosixPath(name).parts[1:]) for name in archive.getnames()}
    for name in sorted(expected - in_wheel):
        yield f"{wheel.name} lacks {name}: see package-data in pyproject.toml"
    for name in sorted(expected):
        if PurePosixPath("src", name) not in in_sdist:
            yield f"{sdist.name} lacks src/{name}: see MANIFEST.in"


def metadata_problems(wheel: Path, sdist: Path) -> Iterator[str]:
    """Yield a sentence for each metadata that an index would refuse, or that differ."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        texts = [archive.read(name)]
    with tarfile.open(sdist) as archive:
        member = archive.extractfile(f"{sdist.name.removesuffix('.tar.gz')}/PKG-INFO")
        assert member is not None
        texts.append(member.read())
    for path, text in zip((wheel, sdist), texts, strict=True):
        try:
            Metadata.from_email(text, validate=True)
        except ExceptionGroup as group:
            yield from (f"{path.name}: {error}" for error in group.exceptions)
    first, second = (BytesParser().parsebytes(text) for text in texts)
    for key in {*first, *second} - {"Dynamic", "License-File"}:
        if first.get_all(key) != second.get_all(key):
            yield f"{wheel.name} and {sdist.name} differ in {key}"


def pythons() -> list[str]:
    """Return the versions of Python that the classifiers name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    versions = [line.removeprefix(PYTHON) for line in project["classifiers"] if PYTHON in line]
    return [version for version in versions if version.startswith("3.")]


def on_path() -> Iterator[str]:
    """Yield the Pythons of these versions that are on PATH, and print which are not."""
    for version in pythons():
        path = shutil.which(f"python{version}")
        if path and subprocess.run([path, "-c", ""], capture_output=True).returncode == 0:
            yield path  # a stub of pyenv ends with an error
        else:
            print(f"Python {version} was not found", flush=True)


def check(python: str | Path, wheel: Path, sdist: Path, *, reuse: Path | None) -> None:
    """Run the jobs with the wheel and then the sdist in a new environment of a Python.

    Raises:
        CalledProcessError: An installation or a job failed.
    """
    with tempfile.TemporaryDirectory(prefix="bare-") as folder:
        environment = Environment(Path(folder) / "venv", python, reuse=reuse)
        environment.run(f"python -m pip install {'' if reuse is None else OWN} {quoted(wheel)}")
        for file in (wheel, sdist):
            environment.run(f"python -m pip install {OWN} {quoted(file)}")
            work = Path(folder) / file.suffix
            work.mkdir()
            for job in JOBS:
                environment.run(job, folder=work)


def quoted(path: Path) -> str:
    """Return a path as one word of a shell command."""
    return shlex.quote(str(path))


OWN = "--no-deps --force-reinstall"
"""Options of pip that install the package alone, even over the same version."""


class Environment:
    """A new virtual environment, which may see the packages of another one.

    Args:
        folder: A folder that does not exist yet.
        python: The program that makes it.
        reuse: An environment whose packages can be imported too, but for its editable ones.
    """

    def __init__(self, folder: Path, python: str | Path, *, reuse: Path | None = None) -> None:
        subprocess.run([python, "-m", "venv", folder], check=True)
        if reuse is not None:
            (own,), (lent,) = (
                sorted(place.glob("lib/python3*/site-packages")) for place in (folder, reuse)
            )
            (own / "reused.pth").write_text(f"{lent.resolve()}\n", encoding="utf-8")
        others = {key: os.environ[key] for key in os.environ if key != "PYTHONPATH"}
        path = f"{folder / 'bin'}{os.pathsep}{others['PATH']}"
        self.variables = {**others, "PATH": path, "VIRTUAL_ENV": str(folder)}

    def run(self, command: str, *, folder: Path | None = None) -> str:
        """Run a shell command in this environment, and return its stdout.

        Raises:
            CalledProcessError: It failed; its output is printed before.
        """
        print(f"$ {command}", flush=True)
        done = subprocess.run(
            command, shell=True, cwd=folder, env=self.variables, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        if done.returncode:
            print(done.stdout, flush=True)
        done.check_returncode()
        return done.stdout


if __name__ == "__main__":
    main(sys.argv[1:])
