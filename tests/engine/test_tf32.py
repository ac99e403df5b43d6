"""TF32 in the runs that ask for it, and nowhere else."""

from collections.abc import Iterator

import pytest
import torch

from virtex.engine import tf32
from virtex.engine.run import RunConfig, configure_torch
from virtex.engine.tf32 import Float32Matmul, tf32_kept

TORCH_S_OWN = (False, True)
"""Whether matrix products and convolutions take TF32."""


@pytest.fixture(autouse=True)
def torch_s_own() -> Iterator[None]:
    benchmark = torch.backends.cudnn.benchmark
    assert tf32._used() == TORCH_S_OWN
    yield
    tf32._use(matmul=False, convolution=True)
    torch.backends.cudnn.benchmark = benchmark


@pytest.mark.parametrize(
    ("name", "used"),
    [("default", TORCH_S_OWN), ("high", (True, True)), ("highest", (False, False))],
)
def test_a_run_on_a_gpu_takes_the_tf32_that_it_asks_for(
    name: Float32Matmul, used: tuple[bool, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    with tf32_kept():
        configure_torch(RunConfig(float32_matmul=name), torch.device("cuda", 0))
        assert tf32._used() == used
        assert torch.backends.cuda.matmul.allow_tf32 == used[0]
        assert torch.backends.cudnn.allow_tf32 == used[1]
    assert tf32._used() == TORCH_S_OWN


def test_a_run_on_a_cpu_changes_nothing() -> None:
    before = torch.backends.mkldnn.matmul.fp32_precision
    configure_torch(RunConfig(float32_matmul="high"), torch.device("cpu"))
    assert tf32._used() == TORCH_S_OWN
    assert torch.backends.mkldnn.matmul.fp32_precision == before


def test_a_gpu_without_an_index_is_the_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    for device in (torch.device("cuda"), torch.device("cuda", 1)):
        configure_torch(RunConfig(), device)
    assert chosen == [torch.device("cuda", 1)]


def test_what_a_program_has_set_is_put_back() -> None:
    torch.set_float32_matmul_precision("high")
    with tf32_kept():
        tf32.set_tf32("highest")
    assert torch.get_float32_matmul_precision() == "high"
