"""How long the processes of a run wait for each other."""

import os
import sys
import time
from datetime import timedelta
from pathlib import Path

import torch

from tests.engine.processes import exit_codes, start_two
from virtex import distributed
from virtex.errors import VirTexError


def wait_in_two_ways(out: Path, environment: dict[str, str]) -> None:
    """Wait for the main process within `on_main`, then in a step; 3 s are too long there."""
    os.environ.update(environment)
    distributed.STEP_TIMEOUT = timedelta(seconds=2)
    try:
        with distributed.process_group(torch.device("cpu")):
            distributed.on_main(lambda: time.sleep(3))
            (out / f"rank_{distributed.rank()}").touch()
            while distributed.is_main() and not (out / "error_of_rank_1").exists():
                time.sleep(0.1)
            distributed.total(torch.ones(1))
    except VirTexError as error:
        (out / f"error_of_rank_{environment['RANK']}").write_text(str(error))
        sys.exit(2)


def test_work_of_the_main_process_may_take_longer_than_a_step(tmp_path: Path) -> None:
    assert exit_codes(*start_two(wait_in_two_ways, tmp_path)) == [2, 2]
    assert {file.name for file in tmp_path.glob("rank_*")} == {"rank_0", "rank_1"}
    assert "Timed out waiting 2000ms" in (tmp_path / "error_of_rank_1").read_text()
