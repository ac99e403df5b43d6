import numpy as np
import pytest
from PIL import Image

from tests.demo.small_run import write_run
from virtex.predict.loading import load_captioner


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
