"""Tasks by their names."""

from dataclasses import dataclass

import pytest

from virtex import config
from virtex.errors import ConfigError
from virtex.options.choices import find_choice
from virtex.tasks.base import TaskConfig
from virtex.tasks.registry import TASKS


@dataclass(frozen=True)
class Trained:
    task: TaskConfig


def trained(task: object) -> TaskConfig:
    return config.from_dict(Trained, {"task": task}).task


@pytest.mark.parametrize("name", TASKS)
def test_a_task_is_read_and_written_under_its_name(name: str) -> None:
    task = trained(name)
    assert type(task) is TASKS[name].config_class
    assert vars(task).items() >= TASKS[name].fixed.items()
    written = config.to_dict(Trained(task))["task"]
    assert written["name"] == name
    assert not written.keys() & TASKS[name].fixed.keys()
    assert trained(written) == task


@pytest.mark.parametrize("name", TASKS)
def test_a_task_is_read_as_older_files_have_it(name: str) -> None:
    task = trained(name)
    options = config.to_dict(task)
    for path in (type(task).__name__, f"{type(task).__module__}.{type(task).__name__}"):
        assert trained({"class_path": path, "init_args": options}) == task


def test_no_two_names_mean_the_same() -> None:
    meanings = [(choice.config_class, *choice.fixed.items()) for choice in TASKS.values()]
    assert len(set(meanings)) == len(meanings)


@pytest.mark.parametrize("name", ["DetectionConfig", "virtex.tasks.detection.DetectionConfig"])
def test_a_config_that_is_no_pretext_task_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="no task"):
        find_choice(TaskConfig, name, "task")
