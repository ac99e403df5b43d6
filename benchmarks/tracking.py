"""Time for which training waits for its records and sample panels.

python -m benchmarks.tracking

A record has the names and numbers of a bicaptioning run. With `trackio` its process runs beside, as
in training; trackio writes to a temporary folder. The panels are four, of 640 x 480 pixels with
captions of 12 words, over a grid of 7 x 7.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

from virtex.data.example import Example
from virtex.data.transforms import ImageConfig
from virtex.engine.run import RunConfig, RunFolder
from virtex.engine.tracking import begin_tracking
from virtex.predict.attention import CaptionAttention
from virtex.sample_panels import MOST_PANELS, PanelWriter

NAMES = ("loss", "captioning_forward", "captioning_backward", "grad_norm", "lr", "backbone_lr")


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TRACKIO_DIR"] = f"{folder}/trackio"
        for name, tensorboard, track in (
            ("log.jsonl", False, "none"),
            ("and TensorBoard", True, "none"),
            ("and trackio", True, "trackio"),
        ):
            run = RunConfig(tensorboard=tensorboard, track=track)  # type: ignore[arg-type]
            print(f"{name:<16} {time_of_record(Path(folder) / name, run) * 1e3:.3f} ms a record")
        print(f"{MOST_PANELS} panels {time_of_panels(Path(folder)) * 1e3:.0f} ms a validation")


def time_of_record(path: Path, run: RunConfig, *, num_records: int = 300) -> float:
    """Return the median time of a record, in seconds, at 50 records a second."""
    folder = RunFolder(path)
    folder.begin(0, tensorboard=run.tensorboard)
    tracker = begin_tracking(path, run, step=0, facts={})
    times = []
    for step in range(1, num_records + 1):
        time.sleep(0.02)
        start = time.perf_counter()
        folder.log({"step": step, **{f"train/{name}": 1.25 / step for name in NAMES}})
        if tracker is not None:
            tracker.check()
        times.append(time.perf_counter() - start)
    folder.close()
    if tracker is not None:
        assert tracker.finish(60.0) is None
    return median(times)


def time_of_panels(path: Path, *, repeats: int = 7) -> float:
    """Return the median time of a validation's panels, in seconds, after a first one."""
    generator = np.random.default_rng(0)
    small = generator.integers(0, 256, (48, 64, 3), dtype=np.uint8)
    example = Example("1", small.repeat(10, 0).repeat(10, 1), ("a cat on a chair",))
    maps = generator.dirichlet(np.ones(49), 12).reshape(1, 1, 12, 7, 7).astype(np.float32)
    words = ("word",) * 12
    attention = CaptionAttention(" ".join(words), words, maps, "forward", -1.0)
    folder = RunFolder(path / "panels")
    folder.begin(0, tensorboard=True)
    writer = PanelWriter(folder, RunConfig(), ImageConfig())
    names, times = [str(number) for number in range(MOST_PANELS)], []
    for step in range(repeats + 1):
        start = time.perf_counter()
        writer.write(names, [example] * MOST_PANELS, [attention] * MOST_PANELS, step=step)
        times.append(time.perf_counter() - start)
    folder.close()
    print(f"first panels {times[0] * 1e3:.0f} ms, with the import of matplotlib")
    return median(times[1:])


if __name__ == "__main__":
    main()
