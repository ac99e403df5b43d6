"""Settings for all tests: what one run finds, every run finds."""

import torch
from hypothesis import settings

torch.set_num_threads(1)  # timings and sums do not depend on the machine
settings.register_profile("same everywhere", derandomize=True, deadline=None)
settings.load_profile("same everywhere")
