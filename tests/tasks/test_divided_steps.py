"""Neither pieces nor processes change what a step learns: the mean is that of the whole batch.

All tasks run on a network without BatchNorm, or with BatchNorm in groups, and without dropout.
"""

from functools import cache, partial
from pathlib import Path

import pytest
import torch

from tests.small_run import small_config
from tests.task_options import TASKS, task_flags
from tests.tasks.divided_steps import Step, save_steps, steps_of
from tests.tasks.two_processes import check_gradients, in_processes
from virtex.tasks.base import TaskConfig

LEFT_OUT = {"instance_segmentation"}
NAMES = [name for name in TASKS if name not in LEFT_OUT]
FLAGS = {
    "moco": ["--task.group_size", "2"],  # which divides each part of a batch
    **{name: ["--task.text.dropout", "0"] for name in ("clip", "siglip")},
}
PIECES = {1: [2], 2: [1, 2], 4: [1]}
"""Number of processes to the numbers of pieces of each process's part."""


@cache
def configs() -> dict[str, TaskConfig]:
    return {
        name: small_config(Path("unused"), *task_flags(name), *FLAGS.get(name, [])).task
        for name in NAMES
    }


@pytest.fixture(scope="module")
def divided(tmp_path_factory: pytest.TempPathFactory):
    """The steps of all tasks by number of processes, of which each number is started but once."""
    folder = tmp_path_factory.mktemp("divided")

    @cache
    def steps(num_processes: int) -> dict[tuple[str, int], list[Step]]:
        path = folder / f"{num_processes}.pt"
        save = partial(save_steps, path, configs(), PIECES[num_processes])
        if num_processes == 1:
            save()
        else:
            in_processes(num_processes, save)
        found = torch.load(path)
        return {key: [Step(*step) for step in steps] for key, steps in found.items()}

    return steps


@cache
def whole(name: str) -> list[Step]:
    return steps_of(configs()[name], 1)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("processes", PIECES)
def test_a_divided_batch_gives_the_step_of_the_whole(name: str, processes: int, divided) -> None:
    for pieces in PIECES[processes]:
        found = divided(processes)[name, pieces]
        for step, expected in zip(found, whole(name), strict=True):
            assert step.loss == pytest.approx(expected.loss, rel=1e-5), (pieces, "loss")
            check_gradients(step.gradients, expected.gradients)
            for key, value in expected.state.items():
                torch.testing.assert_close(
                    step.state[key], value, rtol=1e-4, atol=1e-5, msg=f"{key} in {pieces} pieces"
                )
