"""Processor time that the monitors of a run add to its steps and validations.

python -m benchmarks.monitors

Runs of 200 steps of bicaptioning at 64 px, with and without monitors in turn; the time of the
process does not depend on what else the machine does.
"""

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

import torch

from virtex.monitors.history import Facts
from virtex.monitors.monitors import Monitors
from virtex.pretrain import parse_pretrain, pretrain

OPTIONS = """
data: {num_images: 256, num_val_images: 256, image_size: 64}
run: {num_steps: 200, validate_every: 0, checkpoint_every: 0, tensorboard: false}
num_samples: 0
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="runs of each kind")
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    seconds: dict[str, list[float]] = {"true": [], "false": []}
    with tempfile.TemporaryDirectory() as folder:
        time_of_run(Path(folder) / "first", "false")  # fills caches of drawings
        for number in range(rounds):
            for monitors, times in seconds.items():
                times.append(time_of_run(Path(folder) / f"{monitors}_{number}", monitors))
                print(f"monitors {monitors:<5} {times[-1]:.2f} s", flush=True)
    added = median(seconds["true"]) / median(seconds["false"]) - 1
    print(f"with monitors {added:+.1%}, the last validation included")
    print(f"a record {time_of_record() * 1e6:.0f} microseconds, after 10,000 others")


def time_of_run(out: Path, monitors: str) -> float:
    """Return the seconds of processor time that a run takes."""
    options = ["--config", "quickstart", "--config", OPTIONS, "--run.monitors", monitors]
    config = parse_pretrain([*options, "--out", str(out)])
    start = time.process_time()
    assert pretrain(config).reason == "finished"
    return time.process_time() - start


def time_of_record(*, before: int = 10_000, number: int = 200) -> float:
    """Return the median time in which the monitors look at a record."""
    names = ("loss", "captioning_forward", "captioning_backward", "grad_norm", "max_grad_norm")
    monitors, times = Monitors(Facts()), []
    for step in range(1, before + number + 1):
        record = {"step": 20 * step, **{f"train/{name}": 1 + 1 / step for name in names}}
        start = time.perf_counter()
        monitors.observe({**record, "speed/data_wait": 0.1})
        times.append(time.perf_counter() - start)
    return median(times[-number:])


if __name__ == "__main__":
    main()
