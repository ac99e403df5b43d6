"""Draw the picture of docs/own_domain.md: scores over the number of images that were pretrained on.

    python -m scripts.pairs_picture "Product types, linear" STUDY_A/linear "VOC07" STUDY_B/result

Each panel is a title and a score of a finished `pairs_small` or `domain_pairs`: the study's folder,
and the name of the score's folder in that of a run, or `result` in a study without `scores`. Rows
without pretraining are dashed lines.
"""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean, stdev

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from virtex.transfer.protocol import Result

OUT = Path(__file__).resolve().parent.parent / "docs" / "images" / "pairs.png"
WIDTH, HEIGHT, DPI = 4.4, 3.3, 130
BLUE, GRAY = "#2f6fb0", "#9aa5b1"


def main(arguments: list[str]) -> None:
    """Write the picture."""
    if not arguments or len(arguments) % 2:
        sys.exit(__doc__)
    panels = [*zip(arguments[::2], map(Path, arguments[1::2]), strict=True)]
    figure, axes = plt.subplots(
        1, len(panels), figsize=(WIDTH * len(panels), HEIGHT), dpi=DPI, squeeze=False
    )
    for axis, (title, path) in zip(axes[0], panels, strict=True):
        draw(axis, title, path.parent, path.name)
    figure.tight_layout()
    figure.savefig(OUT, metadata={"Software": None})
    print(OUT)


def draw(axis: Axes, title: str, study: Path, score: str) -> None:
    """Draw a panel: means with standard deviations over the seeds of each row."""
    points: dict[int, list[float]] = {}
    for row in sorted(path for path in study.iterdir() if path.is_dir()):
        seeds = sorted(row.glob("seed_*"))
        assert seeds, f"{row} has no run"
        numbers = [number_of(seed, score) for seed in seeds]
        images = {images_of(seed) for seed in seeds}
        assert len(images) == 1, f"{row} has runs of {sorted(images)} images"
        if images == {0}:
            level = fmean(numbers)
            axis.axhline(level, color=GRAY, linestyle="--", linewidth=1)
            axis.text(1, level, row.name.replace("_", " "), color=GRAY, ha="right", va="bottom",
                      transform=axis.get_yaxis_transform())  # fmt: skip
        else:
            (count,) = images
            assert count not in points, f"{row} has as many images as another row"
            points[count] = numbers
    counts = sorted(points)
    means = [fmean(points[count]) for count in counts]
    axis.errorbar(counts, means, deviations(points[count] for count in counts),
                  color=BLUE, marker="o", capsize=3)  # fmt: skip
    axis.set(title=title, xlabel="images with captions", ylabel="score", xscale="log")
    axis.set_xticks(counts, [f"{count:,}" for count in counts])
    axis.minorticks_off()
    axis.spines[["top", "right"]].set_visible(False)


def number_of(run: Path, score: str) -> float:
    """Return the headline number of a run's score, the mean of its draws."""
    drawn = (run / "scores" / score).glob("draw_*.json")
    paths = [path for path in sorted(drawn) if not path.name.endswith(".options.json")]
    if score == "result":
        paths = [run / "result.json"]
    return fmean(Result.read(path).score for path in paths)


def images_of(run: Path) -> int:
    """Return the number of images that a run was pretrained on; 0 for none."""
    path = run / "data.json"
    return json.loads(path.read_text())["train"]["images"] if path.exists() else 0


def deviations(values: Iterable[list[float]]) -> list[float]:
    """Return the standard deviations over seeds, 0 for a single one."""
    return [stdev(one) if len(one) > 1 else 0.0 for one in values]


if __name__ == "__main__":
    main(sys.argv[1:])
