"""Where uploaded photographs lie for the moment that it takes to read them."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from virtex.errors import DataError

GRADIO_FOLDERS = ("GRADIO_TEMP_DIR", "GRADIO_EXAMPLES_CACHE")
"""Environment variables in which gradio looks for its folders; it takes no argument for them."""


@contextmanager
def private_folder() -> Iterator[Path]:
    """A folder that only this user can read and that gradio keeps its files in; removed after."""
    with tempfile.TemporaryDirectory(prefix="virtex-demo-", ignore_cleanup_errors=True) as name:
        folder = Path(name).resolve()
        before = {variable: os.environ.get(variable) for variable in GRADIO_FOLDERS}
        os.environ |= dict.fromkeys(GRADIO_FOLDERS, str(folder))
        try:
            yield folder
        finally:
            for variable, value in before.items():
                os.environ.pop(variable)
                if value is not None:
                    os.environ[variable] = value


@contextmanager
def taken(uploads: Path, name: object) -> Iterator[Path]:
    """An uploaded file, which is deleted afterwards.

    Args:
        name: What the visitor's browser says that the file is called.

    Raises:
        DataError: It is no file in `uploads`.
    """
    file = (uploads / str(name)).resolve()
    if not (file.is_relative_to(uploads) and file.is_file()):
        raise DataError("The photo did not arrive; please send it again.")
    try:
        yield file
    finally:
        file.unlink(missing_ok=True)
