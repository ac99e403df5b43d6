"""Execute the notebooks of docs/notebooks, and write them with their outputs.

    python scripts/notebooks.py [NAME ...]

Each runs in a new temporary folder, with this Python's packages and commands. `--set NAME=VALUE`
replaces a value in its cell of parameters; `--check` writes nothing.
"""

import argparse
import base64
import io
import os
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "notebooks"
TIMEOUT = 3600
"""Seconds that a cell may take."""
CHECKED_COMMANDS = """
def _checked(command):
    import subprocess
    command = get_ipython().var_expand(command, depth=1)
    run = subprocess.run(["bash", "-o", "pipefail", "-c", command], text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    print(run.stdout, end="")
    run.check_returncode()

get_ipython().system = _checked
"""
"""IPython ignores the exit code of a command in a cell, and its progress bars are a terminal's."""
FOLDERS = re.compile(rf"{re.escape(tempfile.gettempdir())}/tmp\w+/")
"""Folders in which notebooks are executed."""
PNG, NUM_COLORS = "image/png", 128


def set_parameters(notebook: nbformat.NotebookNode, values: Mapping[str, str]) -> None:
    """Replace assignments in the cell with the tag `parameters`."""
    (cell,) = [one for one in notebook.cells if "parameters" in one.metadata.get("tags", [])]
    for name, value in values.items():
        pattern = rf"^{re.escape(name)} = [^#\n]*"
        cell.source, count = re.subn(pattern, f"{name} = {value} ", cell.source, flags=re.M)
        if count != 1:
            raise SystemExit(f"{name} is assigned {count} times in the cell of parameters")


def execute(
    notebook: nbformat.NotebookNode, folder: Path, *, commands: str = CHECKED_COMMANDS
) -> None:
    """Execute all cells in a folder; a failing cell, or command of a cell, is an error.

    Args:
        commands: First cell, which says how commands in cells are run.
    """
    folder_of_commands = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{folder_of_commands}{os.pathsep}{os.environ['PATH']}"}
    client = NotebookClient(
        notebook, timeout=TIMEOUT, kernel_name="python3", resources={"metadata": {"path": folder}}
    )
    manager = client.create_kernel_manager()
    manager.transport, manager.ip = "ipc", str(folder / ".kernel")  # no port of the network
    notebook.cells.insert(0, nbformat.v4.new_code_cell(commands))
    try:
        client.execute(env=environment)
    finally:
        del notebook.cells[0]


def clean(notebook: nbformat.NotebookNode) -> None:
    """Drop times, folders of this machine and warnings of libraries, and make images small."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [one for one in cell.outputs if one.get("name") != "stderr"]
            for output in cell.outputs:
                if "text" in output:
                    output["text"] = FOLDERS.sub("", output["text"])
                if PNG in output.get("data", {}):
                    output["data"] = {PNG: _with_palette(output["data"][PNG])}


def _with_palette(png: str) -> str:
    """Return a PNG file in base64 with a palette of colors, a sixth of its size."""
    image, small = Image.open(io.BytesIO(base64.b64decode(png))), io.BytesIO()
    image.convert("RGB").quantize(NUM_COLORS).save(small, "PNG", optimize=True)
    return base64.b64encode(small.getvalue()).decode()


def main(arguments: Sequence[str] | None = None) -> None:
    """Execute the notebooks that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="without .ipynb; all if none is given")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--check", action="store_true", help="write nothing")
    options = parser.parse_args(arguments)
    values = dict(one.split("=", 1) for one in options.set)
    names = options.names or sorted(path.stem for path in FOLDER.glob("*.ipynb"))
    for name in names:
        path = FOLDER / f"{name}.ipynb"
        notebook = nbformat.read(path, as_version=4)
        set_parameters(notebook, values)
        with tempfile.TemporaryDirectory() as folder:
            execute(notebook, Path(folder))
        if not options.check:
            clean(notebook)
            nbformat.write(notebook, path)
        print(f"{path.name}: {len(notebook.cells)} cells")


if __name__ == "__main__":
    main()
