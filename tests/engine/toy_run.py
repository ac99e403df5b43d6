"""Training of the toy task in its own process: `python tests/engine/toy_run.py --out RUN`."""

import argparse
import os
import signal
import sys
import time
from collections.abc import Generator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from tests.engine.toy import toy_batch, toy_batches, toy_fit, toy_task
from virtex import distributed
from virtex.data.workers import WorkerError
from virtex.engine import signals
from virtex.engine.evaluation import evaluate
from virtex.engine.optim import OptimConfig
from virtex.engine.run import RunConfig, RunFolder, choose_device
from virtex.engine.signals import StopSignals
from virtex.tasks.base import Batch


def toy_config(*, num_steps: int = 40) -> RunConfig:
    """Return the options of the run."""
    return RunConfig(
        num_steps=num_steps,
        batch_size=8,
        log_every=4,
        checkpoint_every=6,
        tensorboard=False,
        device="cpu",
    )


def toy_optim(*, ema_decay: float = 0.0, unfreeze_at: int | None = None) -> OptimConfig:
    """Return the options of the optimizer."""
    return OptimConfig(lr=0.05, backbone_lr=0.1, ema_decay=ema_decay, unfreeze_at=unfreeze_at)


def train(
    out: Path,
    *,
    num_steps: int = 40,
    width: int = 8,
    sleep: float = 0.0,
    plain: bool = False,
    fails_at: int | None = None,
    validation: Literal["none", "fails", "signalled", "slow"] = "none",
    last_step: int = 0,
    ema_decay: float = 0.0,
    frozen_stages: int = 0,
    unfreeze_at: int | None = None,
    environment: dict[str, str] | None = None,
) -> int:
    """Train, save this process's weights in the run folder, and return the exit code.

    Args:
        sleep: Seconds before each batch.
        fails_at: Step at which the last process has no batch.
        validation: fails: the last process has no second batch; signalled: the first one gets a
            signal in a validation that takes longer than a step may; slow: the main process goes on
            alone for longer than a step may.
        last_step: Step at which the main process ends the run; 0 for none.
        frozen_stages: See `ToyTask`.
        unfreeze_at: Step at which they are trained, too.
        plain: Omit dropout and BatchNorm, so that two processes compute the same as one.
        environment: Environment variables to set, as torchrun does.
    """
    os.environ.update(environment or {})
    torch.set_num_threads(1)
    run = toy_config(num_steps=num_steps)
    run = replace(run, validate_every=0 if validation == "none" else 8)
    if validation == "signalled":
        signals.BOUND = 0.5
    if validation == "slow":
        distributed.STEP_TIMEOUT = timedelta(seconds=1)

    def batches(start_step: int) -> Generator[list[Batch]]:
        for step, batch in enumerate(toy_batches(run.batch_size, start_step), start_step):
            time.sleep(sleep)
            if step == fails_at and distributed.rank() == distributed.world_size() - 1:
                raise WorkerError("a worker was killed")
            yield batch

    def validate(step: int, stop: StopSignals) -> dict[str, float]:
        def read() -> Generator[Batch]:
            for index in range(6):
                yield toy_batch(index, batch_size=run.batch_size)
                if validation == "fails" and distributed.rank() == distributed.world_size() - 1:
                    raise WorkerError("a worker was killed")
                if validation == "signalled":
                    time.sleep(0.4)
                    if index == 0 and distributed.is_main():
                        os.kill(os.getpid(), signal.SIGTERM)

        numbers = evaluate(task, stop.each(read()), run=run, device=choose_device(run.device))
        if validation == "slow" and distributed.is_main():
            time.sleep(2.5)
        return numbers

    with distributed.process_group(choose_device(run.device)):
        dropout = 0.0 if plain else 0.1
        task = toy_task(
            width=width, batch_norm=not plain, dropout=dropout, frozen_stages=frozen_stages
        )
        ends = last_step if distributed.is_main() else 0
        result = toy_fit(
            task,
            RunFolder(out),
            run,
            optim=toy_optim(ema_decay=ema_decay, unfreeze_at=unfreeze_at),
            batches=batches,
            validate=None if validation == "none" else validate,
            is_over=lambda step: 0 < ends <= step,
        )
        torch.save(task.state_dict(), out / f"state_of_rank_{distributed.rank()}.pt")
        weights = torch.cat([parameter.detach().flatten() for parameter in task.parameters()])
        torch.save(weights, out / f"weights_of_rank_{distributed.rank()}.pt")
    return result.exit_code


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--num_steps", type=int, default=40)
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--sleep", type=float, default=0.0)
    parser.add_argument("--plain", action="store_true")
    options = vars(parser.parse_args())
    return train(options.pop("out"), **options)


if __name__ == "__main__":
    sys.exit(main())
