"""Settings for all tests: what one run finds, every run finds."""

import signal

import pytest
import torch
from hypothesis import settings

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup ignores it
torch.set_num_threads(1)  # timings and sums do not depend on the machine
settings.register_profile("same everywhere", derandomize=True, deadline=None)
settings.load_profile("same everywhere")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip the tests marked gpu where there is none."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("this machine has no GPU")
