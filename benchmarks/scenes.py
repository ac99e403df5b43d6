"""Scenes per minute: drawn with captions on one core, and written to disk by several processes.

python benchmarks/scenes.py [--image_size 96] [--num_scenes 1000] [--num_processes 2]
"""

import argparse
import tempfile
import time
from pathlib import Path

from virtex.data.layouts import write_scenes
from virtex.data.sources.scenes import ScenesSource


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image_size", type=int, default=96)
    parser.add_argument("--num_scenes", type=int, default=1000)
    parser.add_argument("--num_processes", type=int, default=2)
    options = parser.parse_args()

    source = ScenesSource(options.num_scenes, image_size=options.image_size)
    cpu, wall = time.process_time(), time.perf_counter()
    for index in range(options.num_scenes):
        source[index]
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    print(
        f"drawn at {options.image_size} px: {60 * options.num_scenes / cpu:,.0f} scenes a minute "
        f"of one core ({1000 * cpu / options.num_scenes:.2f} ms each; wall {wall:.1f} s)"
    )
    with tempfile.TemporaryDirectory() as folder:
        wall = time.perf_counter()
        write_scenes(
            "coco",
            Path(folder),
            num_train=options.num_scenes,
            num_val=0,
            image_size=options.image_size,
            num_processes=options.num_processes,
        )
        wall = time.perf_counter() - wall
    print(
        f"written as COCO by {options.num_processes} processes: {options.num_scenes} scenes in "
        f"{wall:.1f} s, {60 * options.num_scenes / wall:,.0f} a minute"
    )


if __name__ == "__main__":
    main()
