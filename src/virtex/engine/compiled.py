"""torch.compile of a task, and of the clipping and update of its weights.

A graph is a function of a batch's sizes alone, not of the batches before it, so that a resumed run
takes the graphs of the whole one: the sizes in `Task.dynamic` change within one graph, and each
other size has its own.
"""

import logging
from typing import Any

import torch

from virtex import distributed
from virtex.engine.run import RunConfig
from virtex.engine.state import TrainingState

log = logging.getLogger("virtex")
MAX_GRAPHS = 64
"""Graphs of one function before torch.compile gives up: images may have several sizes."""


def compile_parts(state: TrainingState, run: RunConfig) -> None:
    """Compile what `run.compile` names, at its first use; none leaves all as it is."""
    if run.compile == "none":
        return
    if distributed.is_main():
        log.info("compiling at the first steps, which takes minutes")
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, MAX_GRAPHS)
    options: dict[str, Any] = {"mode": run.compile_mode}
    state.task.compile(dynamic=False, **options)
    if run.compile == "step":
        state.clip = torch.compile(state.clip, **options)
    compile_optimizer(state, run)


def compile_optimizer(state: TrainingState, run: RunConfig) -> None:
    """Compile the optimizer, if `run.compile` names the whole step."""
    if run.compile == "step":
        step = torch.compile(state.optimizer.step, mode=run.compile_mode)
        state.optimizer.step = step  # type: ignore[method-assign, assignment]
