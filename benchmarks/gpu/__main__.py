"""All that a machine with a GPU can tell, in one call: `python -m benchmarks.gpu`.

    python -m benchmarks.gpu --minutes 12 --out gpu-report
    python -m benchmarks.gpu --minutes 60 --out gpu-report --captions COCO --voc VOCdevkit
    python -m benchmarks.gpu --toy --out gpu-toy

Writes OUT/gpu.json, OUT/gpu.md and OUT/gpu.log, the first two after each figure, so that a call
that is cut leaves what it measured. Needs no network. Sections run in processes of their own, the
most valuable first, each at most one and a half times as long as it should; one that fails or hangs
loses no other.
--toy does all of it at the size of a toy, without a GPU too; its figures mean nothing.
"""

import argparse
import importlib.metadata
import os
import platform
import shlex
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

from benchmarks.gpu.jobs import Events
from benchmarks.gpu.progress import Progress
from benchmarks.gpu.report import write_report
from benchmarks.gpu.runner import Section, run_section
from benchmarks.gpu.settings import Settings
from virtex.version import VERSION

PACKAGES = ("torch", "torchvision", "timm", "numpy", "simplejpeg", "triton")
ROOM = "benchmarks.gpu."
MOST = 1.5
"""Multiple of the time that a section needs which it may take."""
KEPT = 300.0
"""Seconds that are kept for a pretraining on photographs that are given, at most half of all."""
SECTIONS = (
    Section("machine", "Machine", ROOM + "machine", 15),
    Section(
        "tests", "Tests that need a GPU", ROOM + "marked_tests", 120,
        "`pytest -m gpu`, each test once.",
    ),
    Section(
        "steps", "A training step", ROOM + "steps", 90,
        "Each step is that of `virtex pretrain` without reading images: batches in pinned memory, "
        "caption lengths of COCO, vocabulary 10,000, dropout, clipping and optimizer as trained. "
        "*bare* is the timm network alone: forward and backward pass and the optimizer's update, "
        "on the same card with the same batch, precision and layout, its images on the card. "
        "Median of three windows; `of bare` is the bare step's time over that of the row.",
    ),
    Section(
        "end_to_end", "From JPEG to weights", ROOM + "end_to_end", 60,
        "`virtex pretrain`, bicaptioning with ResNet-50 and H1024 (`gpu_small`), JPEG files of "
        "640 x 480 or those given. `data wait` is the fraction of time spent waiting for a batch.",
    ),
    Section(
        "profile", "Where a step's time goes", ROOM + "step_profile", 45,
        "The operations that take most of the device's time in a step. *(host)* is the host's time "
        "within operations, which the profiler lengthens.",
    ),
    Section(
        "resume", "Resume, bit for bit", ROOM + "exact_resume", 150,
        "40 steps with run.deterministic, and again with the run taken up from step 20 by another "
        "process; weights, momenta and slow weights are compared.",
    ),
    Section(
        "loader", "The loader", ROOM + "loader", 45,
        "The same images for a network of a few channels: the speed of the workers on all cores.",
    ),
    Section(
        "two_gpus", "Two GPUs", ROOM + "two_gpus", 80,
        "The step of one GPU, and of two under DDP with as many images each.",
    ),
    Section(
        "solvers", "Decoding and SVMs", ROOM + "solvers", 35,
        "Beam search with ResNet-50, L1 H1024, beam 5; the SVMs of VOC07's size on synthetic "
        "features.",
    ),
    Section(
        "compiled", "A compiled step", ROOM + "compiled_steps", 800,
        "The steps of the section *A training step* with `run.compile`; `of bare` is the time of "
        "the bare step that is not compiled over that of the row.",
    ),
    Section(
        "real", "Pretraining", ROOM + "real", 0,
        "ResNet-50, `gpu_small` with as many steps as the minutes allow, and VOC07's SVMs with the "
        "weights before and after.",
    ),
)  # fmt: skip


def main() -> int:
    """Run all sections; return 0 if none of their jobs failed."""
    options = parse_options()
    device = "cuda" if has_gpu() else "cpu"
    if device == "cpu" and not options.toy:
        print(
            "this machine has no GPU that torch can use (torch.cuda.is_available() is false). "
            "`--toy` shows on the CPU that everything runs.",
            file=sys.stderr,
        )
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="virtex-gpu-") as work:
        settings = Settings(
            Path(work),
            device,
            is_toy=options.toy,
            captions=options.captions and options.captions.resolve(),
            voc=options.voc and options.voc.resolve(),
            batch_size=8 if options.toy else options.batch,
        )
        events = run_all(settings, options)
    return int(any(events.of(section.name, "failed") for section in SECTIONS))


def parse_options() -> argparse.Namespace:
    """Parse the options, and check what they name."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=12.0, help="time for everything (12)")
    parser.add_argument("--out", type=Path, default=Path("gpu-report"), help="folder to write")
    parser.add_argument("--captions", type=Path, help="photographs in COCO's layout")
    parser.add_argument("--voc", type=Path, help="VOCdevkit with VOC2007")
    parser.add_argument("--batch", type=int, default=256, help="images in a step (256)")
    names = [section.name for section in SECTIONS]
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="sections to run")
    parser.add_argument("--toy", action="store_true", help="everything tiny, on a CPU too")
    options = parser.parse_args()
    if not 0 < options.minutes <= 10_000:
        parser.error(f"--minutes {options.minutes} must be above 0 and at most 10,000")
    if options.batch < 2:
        parser.error(f"--batch {options.batch} must be at least 2")
    for name, below in (("captions", "annotations"), ("voc", "VOC2007")):
        folder = getattr(options, name)
        if folder and not any(path.is_dir() for path in (folder / below, folder / "VOCdevkit")):
            parser.error(f"--{name} {folder} must be a folder that holds {below}")
    return options


def has_gpu() -> bool:
    """Return whether torch finds a GPU, without taking any of its memory."""
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
    import torch

    return torch.cuda.is_available()


def run_all(settings: Settings, options: argparse.Namespace) -> Events:
    """Run the sections in turn, each with its part of the time that is left."""
    sections = [section for section in SECTIONS if section.name in options.only]
    events, began = Events(settings.work / "events.jsonl"), time.time()
    settings.write(settings.work / "settings.json")
    facts, end = facts_of_call(), began + 60 * options.minutes
    progress = Progress(
        events, end=end, report=lambda: write_report(options.out, SECTIONS, events, facts=facts)
    )
    is_kept = options.captions and "real" in options.only
    kept = min(KEPT, 30 * options.minutes) if is_kept else 0.0
    for number, section in enumerate(sections):
        seconds = part_of(end - time.time(), section, kept=kept)
        progress.begin(section, number, len(sections), seconds=seconds)
        run_section(
            section,
            events,
            settings=settings.work / "settings.json",
            log=options.out / "gpu.log",
            deadline=time.time() + seconds,
            watch=progress.watch,
        )
    progress.finish(options.out / "gpu.md")
    return events


def part_of(left: float, section: Section, *, kept: float = 0.0) -> float:
    """Return a section's part of the seconds that are left: the first ones come first.

    Args:
        kept: Seconds that all but the last one leave.
    """
    part = min(MOST * section.seconds, left - kept) if section.seconds else left
    return max(part, 0.0)


def facts_of_call() -> dict[str, str]:
    """Return date, command, versions and host of this call."""
    versions = [f"virtex {VERSION}"]
    for package in PACKAGES:
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"{package} not installed")
    return {
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": "python -m benchmarks.gpu " + shlex.join(sys.argv[1:]),
        "versions": ", ".join(versions),
        "python": platform.python_version(),
        "system": platform.platform(),
        "cores": str(len(os.sched_getaffinity(0))),
    }


if __name__ == "__main__":
    sys.exit(main())
