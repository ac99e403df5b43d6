"""Training with BatchNorm's statistics over all processes."""

import json
import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.engine.processes import CONTEXT, exit_codes
from tests.engine.toy import toy_fit, toy_task
from tests.engine.toy_run import toy_config
from virtex import distributed
from virtex.engine import checkpoint
from virtex.engine.run import RunFolder

NUM_STEPS = 12


def train(out: Path, rank: int = 0, port: str | None = None) -> None:
    """One process alone, or one of two."""
    if port is not None:
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        torch.set_num_threads(1)
    with distributed.process_group(torch.device("cpu")):
        run = replace(toy_config(num_steps=NUM_STEPS), sync_batch_norm=True)
        toy_fit(toy_task(dropout=0.0), RunFolder(out), run)


def losses(folder: Path) -> list[float]:
    lines = (folder / "log.jsonl").read_text().splitlines()
    return [json.loads(line)["train/loss"] for line in lines]


def test_one_and_two_processes_train_the_same_network(tmp_path: Path) -> None:
    two, one = tmp_path / "two", tmp_path / "one"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    processes = [
        CONTEXT.Process(target=train, args=(two, rank, port), daemon=True) for rank in range(2)
    ]
    for process in processes:
        process.start()
    assert exit_codes(*processes) == [0, 0]
    train(one)
    assert losses(two) == pytest.approx(losses(one), rel=1e-4)
    ours, theirs = (
        checkpoint.load(RunFolder(out).checkpoints.at(NUM_STEPS))["task"] for out in (one, two)
    )
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(theirs[name], value, rtol=1e-4, atol=1e-5, msg=name)
