"""Monitors in a run: they change nothing, say each thing once, and may be switched off."""

import json
import logging
import time
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.engine.toy import toy_batches, toy_fit, toy_task
from tests.small_run import small_config
from tests.test_every_task import final_state
from virtex.engine.run import RunConfig, RunFolder
from virtex.engine.watching import gpu_use
from virtex.monitors.history import Facts
from virtex.monitors.monitors import Monitors
from virtex.pretrain import pretrain
from virtex.tasks.base import Batch

RUN = RunConfig(
    batch_size=8, num_steps=300, log_every=20, validate_every=100, checkpoint_every=240,
    tensorboard=False, device="cpu",
)  # fmt: skip


def toy_run(out: Path, run: RunConfig = RUN) -> Path:
    """Train the toy task, whose validation says that the image is not used."""
    numbers = {"loss": 1.0, "shuffled_rise": 0.0}
    folder = RunFolder(out)
    monitors = Monitors(Facts(), {"duplicate_captions": "many are equal. Try: others."})
    toy_fit(toy_task(), folder, run, validate=lambda step, stop: numbers, monitors=monitors)
    return out


def alarms(run: Path) -> list[tuple[int, str]]:
    """Return step and name of the alarms in a log, without those of the clock."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    found = [(line["step"], name) for line in lines for name in line if name.startswith("alarm/")]
    return [alarm for alarm in found if alarm[1] != "alarm/waits_for_data"]


def test_each_alarm_is_once_in_the_log_and_one_line_in_the_terminal(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="virtex"):
        run = toy_run(tmp_path / "run")
    assert alarms(run) == [(0, "alarm/duplicate_captions"), (200, "alarm/ignores_image")]
    said = [text for text in caplog.messages if text.startswith("step 200: with the images")]
    assert len(said) == 1
    assert "Try: " in said[0]
    assert "\n" not in said[0]


def test_a_resumed_run_has_the_alarms_of_one_that_was_not_cut(tmp_path: Path) -> None:
    cut = toy_run(tmp_path / "cut", replace(RUN, num_steps=240))
    assert len(alarms(cut)) == 2
    assert alarms(toy_run(cut)) == alarms(toy_run(tmp_path / "whole"))


def test_the_weights_are_the_same_with_and_without_monitors(tmp_path: Path) -> None:
    measured = ("shuffled_rise", "feature_spread", "max_grad_norm", "clipped")
    for monitors in ("true", "false"):
        out = tmp_path / monitors
        pretrain(small_config(out, "--run.monitors", monitors, "--num_samples", "0"))
        log = (out / "log.jsonl").read_text()
        assert [name in log for name in measured] == [monitors == "true"] * 4
    with_them, without = (final_state(tmp_path / name) for name in ("true", "false"))
    assert all(torch.equal(with_them[name], without[name]) for name in without)


def test_a_run_that_waits_for_its_data_is_told(tmp_path: Path) -> None:
    def slow(start_step: int) -> Generator[list[Batch]]:
        for batch in toy_batches(8, start_step):
            time.sleep(0.005)
            yield batch

    run, folder = replace(RUN, num_steps=160, validate_every=0), RunFolder(tmp_path / "run")
    toy_fit(toy_task(), folder, run, batches=slow, monitors=Monitors(Facts()))
    assert "alarm/waits_for_data" in folder.log_path.read_text()


@pytest.mark.gpu
def test_the_use_of_a_gpu_is_a_fraction_where_it_is_known() -> None:
    used = gpu_use(torch.device("cuda", 0))
    assert all(0 <= value <= 1 for value in used.values())
