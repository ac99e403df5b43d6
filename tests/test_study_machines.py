"""Machines that share the folder of a study, each with rows or random seeds of its own."""

import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.test_study import parsed
from virtex import files
from virtex.study import study

RANDOM = {"name": "random", "pretrain": None}


@pytest.fixture
def while_held(caplog: pytest.LogCaptureFixture) -> Callable[..., None]:
    """Start `work`, which waits for a lock, and release it after `meanwhile`."""
    caplog.set_level("INFO", logger="virtex")

    def run(lock: Path, work: Callable[[], object], meanwhile: Callable[[], object]) -> None:
        with ThreadPoolExecutor() as pool:
            with files.locked(lock, subject="the test"):
                done = pool.submit(work)
                while "is in use by" not in caplog.text and not done.done():
                    time.sleep(0.05)
                assert not done.done(), done.exception() or "it did not wait"
                meanwhile()
            done.result()

    return run


def test_a_seed_of_another_machine_that_appears_meanwhile_is_in_the_table(
    tmp_path: Path, while_held: Callable[..., None]
) -> None:
    config = parsed(tmp_path, rows=[RANDOM])
    assert study(config).read_text().endswith("| 1 |\n")
    row = config.out / "random"
    while_held(
        config.out / ".table.lock",
        lambda: study(config),
        lambda: shutil.copytree(row / "seed_0", row / "seed_7"),
    )
    assert (config.out / "table.md").read_text().endswith("| 2 |\n")
    assert "<td>7, 0</td>" in (config.out / "report.html").read_text()
