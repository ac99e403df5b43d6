"""A compiled run learns what an uncompiled one does, and resumes bit for bit."""

from collections.abc import Generator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from tests.engine.test_resume import assert_identical, content, train_and_die
from tests.engine.toy import toy_batches, toy_fit, toy_task
from virtex.engine.optim import OptimConfig
from virtex.engine.run import RunConfig, RunFolder
from virtex.errors import ConfigError
from virtex.tasks.base import Batch

RUN = RunConfig(num_steps=6, batch_size=8, device="cpu", checkpoint_every=3, tensorboard=False)
OPTIM = OptimConfig(lr=0.05, backbone_lr=0.1, lookahead_steps=2, ema_decay=0.5)


@pytest.fixture(autouse=True)
def fresh_graphs() -> None:
    torch._dynamo.reset()


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_compiled_step_is_the_plain_one(tmp_path: Path, optimizer: str) -> None:
    optim, weights = replace(OPTIM, optimizer=optimizer, lr=0.01, backbone_lr=0.01), []
    for parts in ("none", "task", "step"):
        task = toy_task(dropout=0.0, batch_norm=False)
        toy_fit(task, RunFolder(tmp_path / parts), replace(RUN, compile=parts), optim=optim)
        weights.append(task.state_dict())
    for other in weights[1:]:
        torch.testing.assert_close(other, weights[0], rtol=1e-4, atol=1e-6)


def test_a_compiled_run_resumes_bit_for_bit_and_with_fused_kernels(tmp_path: Path) -> None:
    run = replace(RUN, compile="step")
    whole, cut = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "cut")
    toy_fit(toy_task(), whole, run, optim=OPTIM)
    train_and_die(toy_task(), cut, run, at=4, optim=OPTIM)
    toy_fit(toy_task(), cut, run, optim=OPTIM)
    for part in ("task", "ema"):
        assert_identical(content(whole, 6)[part], content(cut, 6)[part])
    assert toy_fit(toy_task(), cut, replace(RUN, num_steps=8), optim=OPTIM).step == 8


@pytest.mark.parametrize(("parts", "most_graphs"), [("task", 2), ("step", 6)])
def test_a_compiled_run_that_unfreezes_is_the_plain_one_and_soon_has_all_its_graphs(
    tmp_path: Path, parts: str, most_graphs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Traced and differentiated as by the default backend; that one's kernels take a minute."""
    counter = CompileCounterWithBackend("aot_eager")
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=counter))
    optim = replace(OPTIM, unfreeze_at=3)
    run, weights, graphs = replace(RUN, num_steps=8, checkpoint_every=0), [], []

    def batches(start: int) -> Generator[list[Batch]]:
        for batch in toy_batches(run.batch_size, start):
            graphs.append(counter.frame_count)  # a batch ahead: two steps are not taken yet
            yield batch

    for compiled in ("none", parts):
        task = toy_task(dropout=0.0, frozen_stages=2)
        stem = task.state_dict()["backbone.cnn.conv1.weight"].clone()
        folder, own = RunFolder(tmp_path / compiled), replace(run, compile=compiled)
        toy_fit(task, folder, own, optim=optim, batches=batches)
        weights.append(task.state_dict())
        assert not torch.equal(weights[-1]["backbone.cnn.conv1.weight"], stem)
    torch.testing.assert_close(weights[1], weights[0], rtol=1e-4, atol=1e-5)
    assert 2 <= counter.frame_count <= most_graphs
    assert counter.frame_count == graphs[-1]


def test_a_compiled_update_with_a_loss_scaler_is_refused() -> None:
    with pytest.raises(ConfigError, match="compile step compiles the update"):
        replace(RUN, compile="step", precision="fp16")
