"""Mappings of options, merged by depth."""

import pytest

from virtex import config
from virtex.options.mappings import merged
from virtex.study import StudyConfig


@pytest.mark.parametrize(
    ("first", "second", "both"),
    [
        ({"task": "cappa"}, {"task": {"head": {}}}, {"task": {"name": "cappa", "head": {}}}),
        ({"task": "cappa"}, {"task": {"name": "clip"}}, {"task": {"name": "clip"}}),
        (
            {"run": {"num_steps": 400, "batch_size": 8}},
            {"run": {"num_epochs": 2}},
            {"run": {"num_epochs": 2, "batch_size": 8}},
        ),
        (
            {"run": {"num_epochs": 2}},
            {"run": {"num_steps": 400}},
            {"run": {"num_steps": 400}},
        ),
    ],
)
def test_the_second_mapping_wins(first: dict, second: dict, both: dict) -> None:
    assert merged(first, second) == both


def test_a_chain_of_files_keeps_a_task_that_is_given_by_its_name() -> None:
    layers = ["pretrain: {task: cappa}\n", "pretrain: {task: {head: {num_layers: 2}}}\n"]
    flags = ["--config", "rows: []\n", *(part for text in layers for part in ("--config", text))]
    found = config.parse(StudyConfig, [*flags, "--out", "x"], prog="study")
    assert found.pretrain == {"task": {"name": "cappa", "head": {"num_layers": 2}}}
