"""What holds for the training step of every pretext task on a GPU."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.gpu.steps import Steps, build, train
from tests.task_options import TASKS
from virtex.engine.device_batches import BatchesAhead
from virtex.engine.meter import Speed
from virtex.engine.run import RunConfig
from virtex.engine.signals import StopSignals

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read once, at the first product
pytestmark = pytest.mark.gpu
GPU = "cuda"
FIRST_WATCHED, NUM_STEPS = 4, 10
WAITING = {"self_critical"}
"""Tasks that score on the host what the device samples."""


@pytest.fixture(autouse=True)
def settings_of_torch() -> Iterator[None]:
    """Put back what a test changes for the whole process."""
    yield
    torch.cuda.set_sync_debug_mode("default")
    torch.use_deterministic_algorithms(False)
    torch.compiler.reset()


def watch(step: int) -> None:
    """Let waiting for the GPU be an error, from some step to the last."""
    if step == FIRST_WATCHED:
        torch.cuda.set_sync_debug_mode("error")
    elif step == NUM_STEPS - 1:  # what follows the last step reads its losses
        torch.cuda.set_sync_debug_mode("default")


def test_waiting_for_the_gpu_is_noticed() -> None:
    watch(FIRST_WATCHED)
    with pytest.raises(RuntimeError, match="synchroniz"):
        torch.ones(1, device=GPU).item()


@pytest.mark.parametrize("name", [name for name in TASKS if name not in WAITING])
def test_no_step_waits_for_the_gpu(name: str, tmp_path: Path) -> None:
    """Of the whole loop, from fetching a batch to the update and `after_step`."""
    train(name, tmp_path, device=GPU, num_steps=NUM_STEPS, hook=watch, precision="bf16")


@pytest.mark.parametrize(
    ("name", "precision"), [*((name, "bf16") for name in TASKS), ("bicaptioning", "fp32")]
)
def test_deterministic_steps_give_the_same_bits(name: str, precision: str, tmp_path: Path) -> None:
    first, second = (
        train(
            name,
            tmp_path / part,
            device=GPU,
            num_steps=4,
            precision=precision,
            deterministic=True,
        )
        for part in ("first", "second")
    )
    assert [key for key in first if not torch.equal(first[key], second[key])] == []


def test_a_batch_is_copied_while_the_gpu_computes(tmp_path: Path) -> None:
    _, data = build("bicaptioning", tmp_path)
    ahead = BatchesAhead(
        Steps(data, lambda step: None),
        torch.device(GPU, 0),
        RunConfig(),
        stop=StopSignals(),
        speed=Speed(),
        dynamic={},
    )
    ahead.take()  # streams and their memory exist
    torch.cuda.synchronize()
    computed = torch.cuda.Event()
    torch.cuda._sleep(2_000_000_000)  # about a second
    computed.record()
    start = time.perf_counter()
    ahead.fetch()
    pieces = ahead.take()
    assert time.perf_counter() - start < 0.3
    assert not computed.query()
    assert pieces is not None
    for name, value in data[1][0].items():
        assert torch.equal(pieces[0][name].cpu(), value), name


@pytest.mark.parametrize("name", ["bicaptioning"])
def test_a_compiled_task_takes_the_same_steps(name: str, tmp_path: Path) -> None:
    options = {"device": GPU, "num_steps": 6, "precision": "fp32"}
    train(name, tmp_path / "plain", **options)
    train(name, tmp_path / "compiled", compile="task", **options)
    plain, other = (
        json.loads((tmp_path / part / "log.jsonl").read_text().splitlines()[-1])["train/loss"]
        for part in ("plain", "compiled")
    )
    assert other == pytest.approx(plain, rel=1e-3)
