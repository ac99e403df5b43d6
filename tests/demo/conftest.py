import os
import tempfile

import numpy as np
import pytest
from PIL import Image

GRADIO_FOLDER = tempfile.TemporaryDirectory(prefix="gradio-")
os.environ["GRADIO_TEMP_DIR"] = GRADIO_FOLDER.name  # gradio makes its folder on import

from starlette.testclient import TestClient  # noqa: E402

from tests.demo.small_run import write_run  # noqa: E402
from virtex.demo.inbox import Inbox  # noqa: E402
from virtex.demo.page import Page  # noqa: E402
from virtex.demo.server import guarded  # noqa: E402
from virtex.demo.shelf import find_pictures, open_shelf  # noqa: E402
from virtex.demo.uploads import private_folder  # noqa: E402
from virtex.predict.loading import load_captioner  # noqa: E402


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("demo") / "run")


@pytest.fixture(scope="session")
def predictor(run_folder):
    return load_captioner(run_folder)


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def gallery_folder(tmp_path_factory):
    """Three pictures, one of them with a name that is HTML and a template."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(1)
    for name in ("red.png", "two dogs.jpg", "<img src=x onerror=hacked=1>${hacked=1}{{1}}.png"):
        Image.fromarray(rng.integers(0, 256, (50, 70, 3), dtype=np.uint8)).save(folder / name)
    return folder


@pytest.fixture(scope="module")
def demo_page(predictor, gallery_folder):
    with private_folder() as uploads:
        shelf = open_shelf(predictor, find_pictures("", gallery_folder))
        yield Page(predictor, shelf, name="run", uploads=uploads, max_megabytes=1)


@pytest.fixture(scope="module")
def app(demo_page):
    inbox = Inbox(demo_page.uploads, max_megabytes=1)
    return guarded(demo_page.blocks(), inbox, host="127.0.0.1")


@pytest.fixture(scope="module")
def client(app):
    with TestClient(app, base_url="http://127.0.0.1:7860") as client:
        yield client
