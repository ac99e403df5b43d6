"""Scores of a run's weights, shown where the run itself is: TensorBoard, and trackio or wandb."""

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from virtex.engine.tensorboard_events import TensorBoardEvents
from virtex.engine.tracking import send_scores
from virtex.transfer.protocol import Result
from virtex.zoo.weights_file import AVERAGED_NAME


def show_scores(results: Sequence[Result], init: str) -> None:
    """Send the scores of weights to the dashboards of the run that they belong to, if to any.

    They are named transfer/PROTOCOL/NUMBER, and are means if there are several seeds. Those of
    averaged weights, of few labels and of a layer before the last have names of their own, such as
    transfer/linear_averaged_shots_5/top1. Failures are logged.

    Args:
        init: INIT of the weights: a run folder, or a file in one.
    """
    folder = _run_folder(init)
    if folder is None or not results:
        return
    scores = _scores(results, is_averaged=Path(init).name == AVERAGED_NAME)
    step = int(results[0].initialisation.get("step") or 0)
    if (folder / "tensorboard").is_dir():
        # A folder of its own: TensorBoard reads the newest file of a folder alone, and the run may
        # still write to another.
        events = TensorBoardEvents(folder / "tensorboard" / "transfer")
        events.log_numbers(scores, step=step)
        events.close()
    send_scores(folder, scores, step=step)


def _run_folder(init: str) -> Path | None:
    """Return the run folder that INIT is, or lies in."""
    path = Path(init).expanduser()
    candidates = (path, path.parent, path.parent.parent)[0 if path.is_dir() else 1 :]
    return next((folder for folder in candidates if (folder / "log.jsonl").is_file()), None)


def _scores(results: Sequence[Result], *, is_averaged: bool) -> dict[str, float]:
    """Return the finite numbers that all results have, averaged over these."""
    first = results[0]
    variants = [
        first.protocol,
        "averaged" if is_averaged else "",
        first.data.get("train", {}).get("drawn", ""),
        first.settings.get("layer", ""),
    ]
    name = "_".join(str(part) for part in variants if part).replace(" ", "_")
    common = set.intersection(*(set(result.numbers) for result in results))
    means = {
        f"transfer/{name}/{number}": fmean(result.numbers[number] for result in results)
        for number in first.numbers
        if number in common
    }
    return {name: mean for name, mean in means.items() if math.isfinite(mean)}
