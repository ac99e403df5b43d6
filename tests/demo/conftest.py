import threading
from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest
from PIL import Image

from tests.demo.client import Client
from tests.demo.small_run import write_run
from virtex.demo.api import DemoApi
from virtex.demo.gallery import find_images, open_gallery
from virtex.demo.middleware import RequestGuard
from virtex.demo.server import DemoServer, listen
from virtex.predict.loading import load_captioner

SECONDS = 60


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
    """Three images, one of them with a name that is HTML and a template."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(1)
    for name in ("red.png", "two dogs.jpg", "<img src=x onerror=hacked=1>${hacked=1}{{1}}.png"):
        Image.fromarray(rng.integers(0, 256, (50, 70, 3), dtype=np.uint8)).save(folder / name)
    return folder


@pytest.fixture(scope="module")
def api(predictor, gallery_folder):
    gallery = open_gallery(predictor, find_images("", gallery_folder))
    return DemoApi(predictor, gallery, max_megabytes=1)


@contextmanager
def serving(app, on_close=lambda: None):
    """A server in a thread of its own; yields its client."""
    with listen("127.0.0.1", 0) as listener:
        server = DemoServer(app, on_close=on_close)
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        try:
            close = partial(setattr, server, "should_exit", True)
            yield Client(listener.getsockname()[1], close=close)
        finally:
            server.should_exit = True
            thread.join(SECONDS)


@pytest.fixture(scope="module")
def client(api):
    with serving(
        RequestGuard(api.app("run"), allowed_hosts=["demo.example:80", "https://x.example"])
    ) as client:
        yield client
