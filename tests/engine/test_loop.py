import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.amp import GradScaler

from tests.engine.toy import ToyTask, split, toy_batch, toy_batches, toy_fit, toy_task
from virtex.engine import checkpoint
from virtex.engine.device_batches import to_device
from virtex.engine.evaluation import evaluate
from virtex.engine.optim import OptimConfig, lr_scale
from virtex.engine.run import RunConfig, RunFolder
from virtex.engine.signals import StopSignals
from virtex.engine.state import TrainingState
from virtex.engine.step import train_step
from virtex.errors import ConfigError, VirTexError
from virtex.tasks.base import Batch, TaskOutput

CPU = torch.device("cpu")
RUN = RunConfig(
    num_steps=12, batch_size=8, device="cpu", log_every=4, checkpoint_every=4, tensorboard=False
)


def records(folder: RunFolder) -> list[dict]:
    return [json.loads(line) for line in folder.log_path.read_text().splitlines()]


def same_weights(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run")


def test_the_loss_falls(folder: RunFolder) -> None:
    run = replace(RUN, num_steps=60, log_every=10)
    result = toy_fit(toy_task(), folder, run)
    assert (result.step, result.reason, result.exit_code) == (60, "finished", 0)
    losses = [record["train/loss"] for record in records(folder)]
    assert losses[-1] < losses[0] / 2


def test_a_record_holds_losses_rates_and_speed(folder: RunFolder) -> None:
    optim = OptimConfig(lr=0.05, backbone_lr=0.1, warmup_steps=2)
    toy_fit(toy_task(), folder, RUN, optim=optim)
    first, *_, last = records(folder)
    names = ["loss", "toy_square", "toy_absolute", "grad_norm", "lr", "backbone_lr"]
    assert list(first) == [
        "step",
        *[f"train/{name}" for name in names],
        "speed/images_per_second",
        "speed/data_wait",
    ]
    assert last["step"] == 12
    assert last["train/lr"] == pytest.approx(0.05 * lr_scale(optim, step=11, num_steps=12))
    assert last["train/backbone_lr"] == pytest.approx(2 * last["train/lr"])


def test_pieces_of_a_batch_give_the_gradient_of_the_whole(tmp_path: Path) -> None:
    tasks = [toy_task(dropout=0.0, batch_norm=False) for _ in range(2)]
    for task, pieces in zip(tasks, (1, 4), strict=True):
        run = replace(RUN, accumulation_steps=pieces)
        toy_fit(task, RunFolder(tmp_path / str(pieces)), run)
    for whole, cut in zip(tasks[0].parameters(), tasks[1].parameters(), strict=True):
        torch.testing.assert_close(whole, cut)


def test_split_cuts_every_tensor_alike() -> None:
    batch = {"image": torch.arange(8).view(4, 2), "target": torch.arange(4)}
    pieces = split(batch, 2)
    assert [piece["target"].tolist() for piece in pieces] == [[0, 1], [2, 3]]
    assert torch.equal(torch.cat([piece["image"] for piece in pieces]), batch["image"])


def test_a_batch_that_cannot_be_cut_equally_is_refused(folder: RunFolder) -> None:
    with pytest.raises(ConfigError, match="multiple of 3"):
        toy_fit(toy_task(), folder, replace(RUN, accumulation_steps=3))


def test_after_step_counts_finished_steps(folder: RunFolder) -> None:
    task = toy_task()
    toy_fit(task, folder, RUN)
    assert task.steps_seen == list(range(1, 13))


def test_images_and_convolutions_are_channels_last_on_request(folder: RunFolder) -> None:
    class Watching(ToyTask):
        def forward(self, batch: Batch) -> TaskOutput:
            self.layouts = [
                tensor.is_contiguous(memory_format=torch.channels_last)
                for tensor in (batch["image"], self.backbone[0].weight)
            ]
            return super().forward(batch)

    for requested in (True, False):
        task = Watching()
        toy_fit(
            task, RunFolder(folder.path / str(requested)), replace(RUN, channels_last=requested)
        )
        assert task.layouts == [requested, requested]


def test_bf16_stays_near_fp32(tmp_path: Path) -> None:
    low, full = toy_task(dropout=0.0), toy_task(dropout=0.0)
    toy_fit(low, RunFolder(tmp_path / "low"), replace(RUN, precision="bf16"))
    toy_fit(full, RunFolder(tmp_path / "full"), RUN)
    assert not same_weights(low, full)
    assert low.head.weight.dtype == torch.float32
    torch.testing.assert_close(low.head.weight, full.head.weight, rtol=0.1, atol=0.02)


def test_fp16_finds_its_scale_and_learns(folder: RunFolder) -> None:
    task = toy_task()
    toy_fit(task, folder, replace(RUN, num_steps=60, precision="fp16"))
    first, *_, last = records(folder)
    assert first["train/skipped_steps"] > 0
    assert last["train/skipped_steps"] == 0
    assert last["train/loss"] < first["train/loss"] / 2
    assert task.head.weight.dtype == torch.float32


def test_lookahead_does_not_count_the_steps_that_fp16_skips() -> None:
    run, device = RunConfig(precision="fp16", batch_size=8), torch.device("cpu")
    task, optim = toy_task(), OptimConfig(lookahead_steps=3)
    state = TrainingState(task, run=run, optim=optim, device=device)
    state.scaler = GradScaler("cpu", init_scale=8.0)
    counters = []
    for step in range(6):
        batch = toy_batch(step, batch_size=8)
        if step in (0, 3):
            batch["target"] /= 0
        train_step(task, [batch], state, run=run, optim=optim)
        counters.append(state.lookahead.state_dict()["counter"])
    assert counters == [0, 1, 2, 2, 0, 1]


def test_validation_runs_in_evaluation_mode_and_changes_nothing(tmp_path: Path) -> None:
    watched, plain = toy_task(), toy_task()
    folder = RunFolder(tmp_path / "watched")
    modes = []

    def validate(step: int, stop: StopSignals) -> dict[str, float]:
        modes.append((step, watched.training))
        return evaluate(watched, stop.each([toy_batch(99, batch_size=8)]), run=run, device=CPU)

    run = replace(RUN, validate_every=5)
    toy_fit(watched, folder, run, validate=validate)
    toy_fit(plain, RunFolder(tmp_path / "plain"), run)
    assert modes == [(5, False), (10, False), (12, False)]
    assert watched.training
    assert same_weights(watched, plain)
    assert [r["step"] for r in records(folder) if "val/toy_absolute" in r] == [5, 10, 12]


def test_evaluation_weighs_batches_by_their_size() -> None:
    task = toy_task()
    batch = toy_batch(0, batch_size=10)
    whole = evaluate(task, [batch], run=RUN, device=CPU)
    uneven = [
        {name: value[part] for name, value in batch.items()} for part in (slice(7), slice(7, 10))
    ]
    parts = evaluate(task, uneven, run=RUN, device=CPU)
    assert list(parts) == ["loss", "toy_square", "toy_absolute"]
    assert parts == pytest.approx(whole, rel=1e-5)
    assert task.training


def test_a_bad_loss_stops_before_anything_bad_is_saved(folder: RunFolder) -> None:
    def batches(start: int) -> object:
        for step, (batch,) in enumerate(toy_batches(8, start), start=start):
            yield [{**batch, "target": batch["target"] / (step != 9)}]  # infinite in step 10

    run = replace(RUN, checkpoint_every=1, log_every=100, keep_checkpoints=0)
    with pytest.raises(VirTexError, match=r"toy_square and toy_absolute .*first at step 10"):
        toy_fit(toy_task(), folder, run, batches=batches)
    assert folder.checkpoints.steps() == list(range(1, 10))


def test_weights_that_overflow_are_not_saved(folder: RunFolder) -> None:
    class Overflowing(ToyTask):
        def after_step(self, step: int, kept: object) -> None:
            if step == 6:
                self.backbone[0].weight.data[0] = torch.inf

    run = replace(RUN, checkpoint_every=3, num_steps=6)
    with pytest.raises(VirTexError, match=r"after step 6 in backbone\.0\.weight"):
        toy_fit(Overflowing(), folder, run)
    assert folder.checkpoints.steps() == [3]


def test_checkpoints_are_kept_and_passed_to_the_hook_as_configured(folder: RunFolder) -> None:
    steps = []
    run = replace(RUN, checkpoint_every=2, keep_checkpoints=2, keep_every=4)
    toy_fit(toy_task(), folder, run, on_checkpoint=steps.append)
    assert steps == [2, 4, 6, 8, 10, 12]
    assert folder.checkpoints.steps() == [4, 8, 10, 12]


def test_a_checkpoint_holds_the_config(folder: RunFolder) -> None:
    toy_fit(toy_task(), folder, RUN)
    assert checkpoint.load(folder.checkpoints.at(12))["config"] == {"toy": True}


def test_training_works_outside_of_the_main_thread(folder: RunFolder) -> None:
    results = []
    thread = threading.Thread(target=lambda: results.append(toy_fit(toy_task(), folder, RUN)))
    thread.start()
    thread.join()
    assert results[0].reason == "finished"


def test_the_stream_of_batches_is_closed(folder: RunFolder) -> None:
    streams = []

    def batches(start: int) -> object:
        streams.append(toy_batches(8, start))
        return streams[0]

    toy_fit(toy_task(), folder, RUN, batches=batches)
    assert next(streams[0], None) is None


@pytest.mark.parametrize("requested", [True, False])
def test_deterministic_kernels_are_used_on_request(folder: RunFolder, requested: bool) -> None:
    before = torch.are_deterministic_algorithms_enabled()
    try:
        toy_fit(toy_task(), folder, replace(RUN, deterministic=requested))
        assert torch.are_deterministic_algorithms_enabled() == requested
    finally:
        torch.use_deterministic_algorithms(before)


def test_all_of_a_batch_goes_to_the_device():
    batch = {"image": torch.zeros(2, 3, 4, 4), "rows": torch.zeros(2, dtype=torch.int64)}
    moved = to_device(batch, torch.device("meta"), channels_last=True)
    assert {value.device.type for value in moved.values()} == {"meta"}
    assert moved["image"].is_contiguous(memory_format=torch.channels_last)


def test_logs_of_a_validation_weigh_as_the_task_says() -> None:
    class Weighed(ToyTask):
        counts = ("targets",)

        def forward(self, batch: Batch) -> TaskOutput:
            logs = {"common": batch["common"], "rare": batch["rare"]}
            loss = logs["common"] + 2 * logs["rare"]
            weights = {"rare": batch["rare_targets"]}
            return TaskOutput(loss, logs, weights=weights, terms={"common": 1.0, "rare": 2.0})

    names = ("targets", "common", "rare_targets", "rare")
    batches = [
        dict(zip(names, map(torch.tensor, values), strict=True))
        for values in ((10.0, 1.0, 0.0, 0.0), (30.0, 2.0, 4.0, 5.0))
    ]
    assert evaluate(Weighed(), batches, run=RUN, device=CPU) == {
        "loss": 1.75 + 2 * 5, "common": 1.75, "rare": 5,
    }  # fmt: skip
