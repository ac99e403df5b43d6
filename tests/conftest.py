"""Settings for all tests: what one run finds, every run finds."""

import logging
import signal
from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup ignores it
torch.set_num_threads(1)  # timings and sums do not depend on the machine
settings.register_profile("same everywhere", derandomize=True, deadline=None)
settings.load_profile("same everywhere")


@pytest.fixture(autouse=True)
def _own_log() -> Iterator[None]:
    """Leave the package's log as it was, which a command sets up for the terminal."""
    log = logging.getLogger("virtex")
    before = log.handlers, log.propagate, log.level
    yield
    log.handlers, log.propagate = before[:2]
    log.setLevel(before[2])


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip the tests marked gpu where there is none."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("this machine has no GPU")
