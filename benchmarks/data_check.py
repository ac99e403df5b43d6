"""Time of `virtex data check` on a million made-up captions: `python -m benchmarks.data_check`."""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tests.data.sources.layouts import jpeg

WORDS = ("a", "the", "red", "small", "dog", "cat", "on", "under", "table", "tree", "two", "birds")


def main() -> None:
    """Write the table, check it, and print the time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--captions", type=int, default=1_000_000)
    parser.add_argument("--images", type=int, default=20_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        table = write_table(Path(folder), options.captions, options.images)
        command = ["data", "check", "--data.root", str(table), "--decode", "0.0001"]
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "virtex.cli", *command], check=True, stdout=subprocess.DEVNULL
        )
        print(f"{options.captions:,} captions: {time.perf_counter() - start:.1f} s")


def write_table(folder: Path, num_captions: int, num_images: int) -> Path:
    """Write a table of made-up captions and its images, all of the same content."""
    rng = np.random.default_rng(0)
    content = jpeg(0)
    for number in range(num_images):
        (folder / f"{number}.jpg").write_bytes(content)
    lines = ["image\tcaption"]
    for number in range(num_captions):
        words = rng.choice(WORDS, 8)
        lines.append(f"{number % num_images}.jpg\t{' '.join(words)} {number % 40_000}")
    path = folder / "table.tsv"
    path.write_text("\n".join(lines) + "\n")
    return path


if __name__ == "__main__":
    main()
