"""The notebooks of docs/notebooks run at toy size, and hold outputs of a run."""

import nbformat
import pytest

from scripts import notebooks

PATHS = sorted(notebooks.FOLDER.glob("*.ipynb"))
TOY = {
    "captions_and_attention": {"STEPS": "8", "NUM_PAIRS": "80", "NUM_VAL": "24"},
    "own_pairs": {
        "STEPS": "8",
        "NUM_PAIRS": "80",
        "NUM_VAL": "24",
        "NUM_LABELLED": "150",
        "NUM_TEST": "60",
    },
    "probe_and_compare": {
        "STEPS": "8",
        "NUM_PAIRS": "80",
        "NUM_LABELLED": "150",
        "TASKS": '["clip"]',
    },
}

IN_THE_KERNEL = (
    notebooks.CHECKED_COMMANDS
    + """
def _in_the_kernel(command):
    import shlex
    from virtex import cli
    words = shlex.split(get_ipython().var_expand(command))
    if words[0] != "virtex" or "|" in words:
        return _checked(command)
    assert cli.main(words[1:]) == 0, command

get_ipython().system = _in_the_kernel
"""
)
"""Commands without a pipe run in the kernel's process, which has imported torch already."""


def test_every_notebook_has_a_toy_size():
    assert [path.stem for path in PATHS] == sorted(TOY)


@pytest.mark.parametrize(
    "name",
    [
        "captions_and_attention",
        "own_pairs",
        pytest.param("probe_and_compare", marks=pytest.mark.slow),
    ],
)
def test_a_notebook_runs(tmp_path, monkeypatch, name):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(notebooks.FOLDER / f"{name}.ipynb", as_version=4)
    notebooks.set_parameters(notebook, TOY[name])
    notebooks.execute(notebook, tmp_path, commands=IN_THE_KERNEL)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source]
    assert [cell.execution_count for cell in cells] == list(range(2, len(cells) + 2))


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_notebook_was_executed_from_top_to_bottom(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(isinstance(cell.execution_count, int) for cell in cells)
    assert all(output.output_type != "error" for cell in cells for output in cell.outputs)


def test_a_failing_command_is_an_error(tmp_path):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("!false | tail -n 1")])
    with pytest.raises(Exception, match="non-zero exit status"):
        notebooks.execute(notebook, tmp_path)


def test_a_parameter_that_is_not_there_is_refused():
    notebook = nbformat.read(PATHS[0], as_version=4)
    with pytest.raises(SystemExit, match="assigned 0 times"):
        notebooks.set_parameters(notebook, {"NO_SUCH": "1"})
