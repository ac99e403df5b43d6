import json
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.small_disk import files_of_at_most
from virtex.engine.run import (
    RunConfig,
    RunFolder,
    choose_device,
    due,
    seed_step,
)
from virtex.errors import ConfigError, DataError


def draws(seed: int, step: int, rank: int) -> list[float]:
    seed_step(seed, step, rank)
    return torch.rand(3).tolist()


def test_a_steps_randomness_depends_on_seed_step_and_rank_alone() -> None:
    torch.rand(17)
    first = draws(1, 5, 0)
    torch.rand(3)
    assert draws(1, 5, 0) == first
    others = [draws(1, 6, 0), draws(2, 5, 0), draws(5, 1, 0), draws(1, 5, 1)]
    assert first not in others
    assert len({tuple(other) for other in others}) == 4


def test_an_interval_of_zero_steps_is_due_at_the_end_only() -> None:
    assert [step for step in range(1, 11) if due(step, 4, 10)] == [4, 8, 10]
    assert [step for step in range(1, 11) if due(step, 0, 10)] == [10]


def test_numbers_that_are_too_small_are_reported_at_once() -> None:
    message = r"num_steps 0 must be at least 1\n- log_every -1 must be at least 1"
    with pytest.raises(ConfigError, match=message):
        RunConfig(num_steps=0, log_every=-1)


@pytest.mark.parametrize("name", ["gpu", "cuda:99"])
def test_a_missing_device_is_refused_and_the_available_ones_are_named(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}(.|\n)*This machine has cpu"):
        choose_device(name)


def begin(path: Path, step: int, *, tensorboard: bool = False) -> RunFolder:
    folder = RunFolder(path)
    folder.begin(step, tensorboard=tensorboard)
    return folder


@pytest.mark.parametrize("torn", ['{"step": 20, "trai', '{"step": 20}'])
def test_on_resume_later_records_and_a_truncated_line_are_removed(
    tmp_path: Path, torn: str
) -> None:
    folder = begin(tmp_path, 0)
    for step in (10, 20, 30):
        folder.log({"step": step, "train/loss": 1 / step})
    with folder.log_path.open("a") as file:
        file.write(torn)
    begin(tmp_path, 20)
    steps = [json.loads(line)["step"] for line in folder.log_path.read_text().splitlines()]
    assert steps == [10, 20]


def test_a_record_that_does_not_fit_on_the_disk_is_reported_and_the_next_is_whole(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = begin(tmp_path, 0)
    with files_of_at_most(40):
        for step, loss in ((1, 0.5), (2, 1 / 3), (3, 0.5)):
            folder.log({"step": step, "loss": loss})
    records = [json.loads(line) for line in folder.log_path.read_text().splitlines()]
    assert records == [{"step": 1, "loss": 0.5}]
    assert "cannot write the record of step 2" in caplog.text
    folder.log({"step": 4, "loss": 0.5})
    assert folder.log_path.read_text().splitlines()[1:] == ['{"step": 4, "loss": 0.5}']


def test_a_config_that_cannot_be_written_is_a_data_error(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_config({"a": 1})
    with files_of_at_most(10), pytest.raises(DataError, match=r"cannot write .*config\.yaml"):
        folder.write_config({"a": "more than ten bytes"})
    assert folder.config_path.read_text() == "a: 1\n"


def test_numbers_that_json_lacks_become_null(tmp_path: Path) -> None:
    folder = begin(tmp_path, 0)
    folder.log({"step": 1, "a": float("nan"), "b": 2})
    assert json.loads(folder.log_path.read_text()) == {"step": 1, "a": None, "b": 2}


def test_tensorboard_shows_a_resumed_run_without_duplicates(tmp_path: Path) -> None:
    folder = begin(tmp_path, 0, tensorboard=True)
    for step in (10, 20, 30):
        folder.log({"step": step, "train/loss": 1.0})
    folder.close()
    folder = begin(tmp_path, 20, tensorboard=True)
    folder.log({"step": 30, "train/loss": 2.0})
    folder.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("train/loss")
    assert [(event.step, event.value) for event in events] == [(10, 1.0), (20, 1.0), (30, 2.0)]


def test_the_config_is_written_as_yaml(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.write_config({"b": 1, "a": {"c": [1, 2]}})
    assert folder.config_path.read_text() == "b: 1\na:\n  c:\n  - 1\n  - 2\n"


@pytest.mark.parametrize(("before", "now"), [(True, "task"), (False, "none"), ("step", "step")])
def test_what_is_compiled_was_once_yes_or_no(before: bool | str, now: str) -> None:
    assert RunConfig(compile=before).compile == now
