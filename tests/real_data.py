"""Real data for tests, which the repository does not hold.

The environment variable VIRTEX_TEST_DATA names a folder with `data/` (coco_mini, flickr8k,
voc2007, ...) and `reference/` (outputs of the released code); tests that need it skip elsewhere.
"""

import os
from pathlib import Path

import pytest

VARIABLE = "VIRTEX_TEST_DATA"


def real(name: str) -> Path:
    """The path `name` below the folder of real data; skips the test where it is absent."""
    root = os.environ.get(VARIABLE)
    if not root or not (Path(root) / name).exists():
        pytest.skip(f"set {VARIABLE} to a folder that holds {name}")
    return (Path(root) / name).resolve()
