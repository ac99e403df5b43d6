"""A pretraining on photographs for the minutes that are left, and VOC07 before and after."""

import json
import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.gpu.commands import num_cores, pretrain_flags, records, speeds, virtex
from benchmarks.gpu.end_to_end import step_alone
from benchmarks.gpu.jobs import Events, Job, Row, Skipped
from benchmarks.gpu.photographs import captions_folder
from benchmarks.gpu.settings import Settings

START_SECONDS = 30.0
"""Seconds of a run before its first step: imports, captions, vocabulary, workers."""
SVM_SECONDS = 60.0
"""Seconds of one VOC07 evaluation, for which time is kept."""
MARGIN = 0.9
"""Part of the measured speed with which the number of steps is chosen."""
FEWEST_STEPS = 200


def jobs(settings: Settings, events: Events) -> list[Job]:
    """Return the jobs of the section."""
    weights = {"after": str(_run_of(settings)), "before (random weights)": "random"}
    scored = [
        Job(f"VOC07 {when}", partial(_voc07, settings, when, init), needs=20, limit=600)
        for when, init in weights.items()
    ]
    needs = 10 if settings.is_toy else 150
    pretraining = partial(_pretrain, settings, events)
    return [Job("pretraining", pretraining, needs=needs, limit=math.inf), *scored]


def _run_of(settings: Settings) -> Path:
    return settings.work / "real"


def _pretrain(settings: Settings, events: Events, seconds: float) -> Iterator[Row]:
    """Yield the length, speed and losses of a run whose schedule ends when time is up."""
    if settings.captions is None and not settings.is_toy:
        raise Skipped("no --captions folder is given")
    kept = 2 * SVM_SECONDS if settings.voc and not settings.is_toy else 0.0
    limit = seconds - kept
    num_steps = steps_in(limit - START_SECONDS, _speed(events), settings)
    flags = [*pretrain_flags(settings), "--data.root", str(captions_folder(settings))]
    flags += ["--run.num_steps", str(num_steps), "--run.log_every", str(max(2, num_steps // 100))]
    virtex(["pretrain", *flags, "--out", str(_run_of(settings))], seconds=limit)
    log = records(_run_of(settings))
    speed = speeds(log[1:] or log)
    yield {
        "what": "bicaptioning R-50 H1024",
        "steps": int(log[-1]["step"]),
        "of": num_steps,
        "images_seen": int(log[-1]["step"]) * settings.batch_size,
        "first_loss": log[0]["train/loss"],
        "last_loss": log[-1]["train/loss"],
        "images_per_second": speed["images_per_second"],
        "data_wait": speed["data_wait"],
    }


def _speed(events: Events) -> float:
    """Return the images/s that the run will reach, as measured before."""
    end_to_end = [float(row["images_per_second"]) for row in events.rows("end_to_end")[:1]]
    return end_to_end[0] if end_to_end else step_alone(events) or 1000.0


def steps_in(seconds: float, speed: float, settings: Settings) -> int:
    """Return the number of steps that fit into some seconds.

    Raises:
        Skipped: They are too few to learn anything.
    """
    if settings.is_toy:
        return 6
    num_steps = int(MARGIN * seconds * speed / settings.batch_size)
    if num_steps < FEWEST_STEPS:
        raise Skipped(f"no time left: {num_steps} steps would fit, at least {FEWEST_STEPS} are due")
    return num_steps


def _voc07(settings: Settings, when: str, init: str, seconds: float) -> Iterator[Row]:
    """Yield VOC07's mean average precision with some weights."""
    run = _run_of(settings)
    if not (run / "checkpoints").exists():
        raise Skipped("there is no pretraining to compare")
    voc = settings.voc or (_drawn_voc(settings) if settings.is_toy else None)
    if voc is None:
        raise Skipped("no --voc folder is given")
    out = settings.work / f"voc07-{Path(init).name}.json"
    flags = ["--init", init, "--data.root", str(voc), "--out", str(out)]
    flags += ["--backbone_from", str(run)] if init == "random" else []
    flags += ["--image_size", str(settings.image_size), "--device", settings.device]
    flags += ["--num_workers", str(num_cores())]
    flags += ["--leave_out_rare", "true"] if settings.is_toy else []
    virtex(["transfer", "voc07", *flags], seconds=seconds)
    result = json.loads(out.read_text())
    name = result["headline"]
    yield {"what": f"VOC07 {when}", name: result["numbers"][name]}


def _drawn_voc(settings: Settings) -> Path:
    """Return a few scenes in VOC's layout."""
    folder = settings.work / "voc"
    if not folder.exists():
        sizes = ["--num_train", "80", "--num_val", "60", "--image_size", "96"]
        virtex(["scenes", "--layout", "voc", "--out", str(folder), *sizes], seconds=60)
    return folder
