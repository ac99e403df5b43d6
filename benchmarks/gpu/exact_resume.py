"""A run cut in two, compared bit for bit with the whole one."""

import shutil
from collections.abc import Iterator
from functools import partial

from benchmarks.gpu.commands import pretrain_flags, virtex
from benchmarks.gpu.jobs import Events, Job, Row
from benchmarks.gpu.photographs import captions_folder
from benchmarks.gpu.settings import Settings
from benchmarks.resume import compare
from virtex.engine.run import RunFolder


def jobs(settings: Settings, events: Events) -> list[Job]:
    """Return the jobs of the section: the recipe's precision, and fp32."""
    precisions = ["fp32"] if settings.is_toy else ["bf16", "fp32"]
    needs = 15 if settings.is_toy else 75
    return [
        Job(precision, partial(_run, settings, precision), needs=needs, limit=150)
        for precision in precisions
    ]


def _run(settings: Settings, precision: str, seconds: float) -> Iterator[Row]:
    """Yield the differences between the two runs.

    Raises:
        AssertionError: There are some.
    """
    num_steps = 4 if settings.is_toy else 40
    whole = RunFolder(settings.work / f"whole-{precision}")
    cut = RunFolder(settings.work / f"cut-{precision}")
    flags = [*pretrain_flags(settings), "--data.root", str(captions_folder(settings))]
    flags += ["--run.num_steps", str(num_steps), "--run.checkpoint_every", str(num_steps // 2)]
    flags += ["--run.batch_size", "8" if settings.is_toy else "64", "--run.log_every", "2"]
    flags += ["--run.deterministic", "true", "--run.precision", precision]
    _whole(["pretrain", *flags, "--out", str(whole.path)], seconds=seconds / 2)
    shutil.copytree(whole.path, cut.path)
    (cut.checkpoints.path / f"step_{num_steps:08}.pt").unlink()
    _whole(["pretrain", "--out", str(cut.path), "--processes", "1"], seconds=seconds / 2)
    found = compare(whole, cut)
    for run in (whole, cut):
        shutil.rmtree(run.path)
    differ = [name for names in found.values() for name in names]
    yield {
        "precision": precision,
        "steps": num_steps,
        "cut_at": num_steps // 2,
        "bit_identical": "no" if differ else "yes",
        "differ": ", ".join(differ[:3]) + (", ..." if len(differ) > 3 else ""),
    }
    assert not differ, f"{len(differ)} values differ, first {differ[0]}"


def _whole(arguments: list[str], *, seconds: float) -> None:
    """Run a command to its own end."""
    if not virtex(arguments, seconds=seconds):
        raise RuntimeError(f"a run did not end within {seconds:.0f} s")
