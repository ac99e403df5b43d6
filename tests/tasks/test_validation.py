"""A validation's numbers do not depend on how its examples are divided into batches."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.small_run import small_config
from tests.task_options import TASKS, task_flags
from tests.tasks.small_tasks import SCENES, build
from virtex.data.example import Example
from virtex.engine.evaluation import evaluate
from virtex.engine.run import RunConfig
from virtex.tasks.base import Batch, PairwiseTask, Task, TaskOutput

CPU = torch.device("cpu")
RUN = RunConfig(precision="fp32")
UNLIKE = {"instance_segmentation", "bicaptioning_share"}
"""The first draws regions of a batch at random; the other is bicaptioning in validation."""
NAMES = [name for name in TASKS if name not in UNLIKE]
ORIGINAL = {"bicaptioning", "masked_lm"}
"""Tasks whose training may be that of the released code, with means of each process."""


def examples() -> list[Example]:
    """Scenes, of which some have no objects: their losses have fewer targets."""
    none = {"boxes": np.zeros((0, 4), np.float32), "box_labels": (), "masks": ()}
    found = [SCENES[index] for index in range(6)]
    return [one if index % 3 else replace(one, **none) for index, one in enumerate(found)]


def batch(task: Task, *indices: int) -> Batch:
    """A batch of validation."""
    found = examples()
    return task.collate(
        [task.encode_validation(found[index], np.random.default_rng(index)) for index in indices]
    )


@pytest.mark.parametrize("name", [*NAMES, *(f"{name} original" for name in sorted(ORIGINAL))])
def test_a_validation_has_the_same_numbers_in_any_batches(name: str) -> None:
    name, _, original = name.partition(" ")
    flags = [f"--task.{original}", "true"] if original else []
    task = build(small_config(Path("unused"), *task_flags(name), *flags).task)
    whole = evaluate(task, [batch(task, *range(6))], run=RUN, device=CPU)
    pieces = [batch(task, 0), batch(task, 1, 2, 3), batch(task, 4, 5)]
    run = replace(RUN, batch_size=24, accumulation_steps=3)
    assert evaluate(task, pieces, run=run, device=CPU) == pytest.approx(whole, rel=1e-4)
    if not isinstance(task, PairwiseTask):
        assert evaluate(task, pieces, run=RUN, device=CPU) == pytest.approx(whole, rel=1e-4)


def test_what_has_no_target_is_left_out() -> None:
    class Parts(torch.nn.Module):
        counts = ()

        def __call__(self, batch: Batch) -> TaskOutput:
            zero, one = torch.zeros(()), torch.ones(())
            return TaskOutput(
                one, {"seen": 3 * one, "unseen": zero}, weights={"seen": 2 * one, "unseen": zero}
            )

    numbers = evaluate(Parts(), [{"image": torch.zeros(2, 3)}], run=RUN, device=CPU)  # type: ignore[arg-type]
    assert numbers == {"loss": 1.0, "seen": 3.0}
