"""Draw the picture of README.md from a finished quickstart.

    make quickstart
    .venv/bin/python scripts/readme_picture.py quickstart

What it shows are held-out scenes, the captions that the quickstart's model writes for them, its
attention at each word, and the quickstart's scores.
"""

import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from PIL import Image

import virtex
from virtex.predict.attention_colors import overlay, scale_fractions
from virtex.predict.predictor import Predictor

OUT = Path(__file__).resolve().parent.parent / "docs" / "images" / "virtex.png"
WIDTH, HEIGHT, DPI = 12.0, 5.0, 130
DARK, BLUE, ORANGE, GRAY = "#1f2933", "#2f6fb0", "#d9822b", "#9aa5b1"
NUM_WORDS = 5
PANEL = 96
"""Side of an attention panel, in pixels."""


def main(quickstart: Path) -> None:
    """Write the picture."""
    captioner = virtex.load_captioner(quickstart / "run")
    scenes = sorted((quickstart / "scenes" / "val2017").iterdir())
    captions = json.loads((quickstart / "scenes/annotations/captions_val2017.json").read_text())
    texts = {one["image_id"]: one["caption"] for one in captions["annotations"]}
    figure = plt.figure(figsize=(WIDTH, HEIGHT), dpi=DPI, facecolor="white")
    page = figure.add_axes((0, 0, 1, 1))
    page.set(xlim=(0, WIDTH), ylim=(0, HEIGHT))
    page.axis("off")
    _draw_pretraining(page, figure, scenes, texts)
    _draw_transfer(page, figure, quickstart / "results")
    _draw_captions(page, figure, captioner, scenes[20:200])
    OUT.parent.mkdir(exist_ok=True)
    figure.savefig(OUT)
    print(OUT)


def _draw_pretraining(
    page: Axes, figure: Figure, scenes: list[Path], texts: dict[int, str]
) -> None:
    _title(page, 0.3, "1  Pretrain: read the captions of images, in both directions")
    shown = [path for path in scenes if len(texts[int(path.stem)]) < 48][:3]
    for row, path in enumerate(shown):
        bottom = 3.75 - 0.8 * row
        _image(figure, Image.open(path), 0.3, bottom, 0.72)
        page.text(1.12, bottom + 0.36, _wrapped(texts[int(path.stem)]), va="center", fontsize=8.5)
    _box(page, 3.35, 2.9, 1.25, 0.9, "backbone\n(CNN or ViT)", BLUE)
    _arrow(page, (2.85, 3.35), (3.3, 3.35))
    words = texts[int(shown[0].stem)].rstrip(".").split()
    for bottom, name, text in (
        (3.6, "Transformer, left to right", " ".join(words[:5]) + " ..."),
        (2.55, "Transformer, right to left", " ".join(words[:-6:-1]) + " ..."),
    ):
        _box(page, 5.15, bottom, 1.75, 0.5, name, GRAY)
        page.text(6.02, bottom - 0.17, text, ha="center", fontsize=7.5, style="italic")
        _arrow(page, (4.65, 3.35), (5.1, bottom + 0.25))


def _draw_transfer(page: Axes, figure: Figure, results: Path) -> None:
    _title(page, 7.4, "2  Keep the backbone, and transfer it")
    _box(page, 7.4, 3.05, 1.15, 0.6, "backbone", BLUE)
    for row, name in enumerate(("classification", "detection", "segmentation", "retrieval")):
        page.text(9.0, 3.98 - 0.42 * row, name, fontsize=9, va="center")
        _arrow(page, (8.58, 3.35), (8.95, 3.98 - 0.42 * row))
    scores = {}
    for path in results.glob("multilabel-svm*.json"):
        result = json.loads(path.read_text())
        is_random = result["initialisation"]["init"] == "random"
        scores["random" if is_random else "pretrained"] = result["numbers"]["mAP"]
    axes = figure.add_axes((10.35 / WIDTH, 2.62 / HEIGHT, 1.4 / WIDTH, 1.5 / HEIGHT))
    names = ("random", "pretrained")
    bars = axes.bar(names, [scores[name] for name in names], color=[GRAY, BLUE], width=0.6)
    axes.bar_label(bars, fmt="%.1f", fontsize=9)
    axes.set_title("mAP, drawn scenes", fontsize=8)
    axes.set(yticks=[], ylim=(0, 1.25 * max(scores.values())))
    axes.tick_params(axis="x", labelsize=7.5, length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def _draw_captions(page: Axes, figure: Figure, captioner: Predictor, scenes: list[Path]) -> None:
    _title(
        page, 0.3, "3  Or keep all of it: captions of new images, and where each word looked", 1.72
    )
    captions = captioner.caption(scenes)
    likely = np.argsort([-one.log_likelihood / len(one.tokens) for one in captions])
    seen: set[str] = set()
    chosen: list[int] = []
    for index in likely:
        words = captions[index].text.rstrip(".").split()
        if captions[index].text not in seen and len(words) in (NUM_WORDS, NUM_WORDS + 1):
            seen.add(captions[index].text)
            chosen.append(int(index))
    for column, index in enumerate(chosen[:2]):
        left = 0.3 + 5.85 * column
        (attention,) = captioner.attend(scenes[index], [captions[index]])
        maps = attention.maps()
        values, scale = scale_fractions(maps)
        photo = Image.open(scenes[index]).convert("RGB").resize((PANEL, PANEL))
        _image(figure, photo, left, 0.45, 0.95)
        page.text(left, 0.2, f"“{captions[index].text}”", fontsize=9.5, va="center")
        for number, (word, value) in enumerate(zip(attention.words[:5], values, strict=False)):
            at = left + 1.08 + 0.9 * number
            _image(figure, overlay(photo, value, scale), at, 0.58, 0.82)
            page.text(at + 0.41, 0.45, word, ha="center", va="center", fontsize=8)


def _title(page: Axes, x: float, text: str, y: float = 4.72) -> None:
    page.text(x, y, text, fontsize=12, weight="bold", color=DARK, va="center")


def _box(
    page: Axes, x: float, y: float, width: float, height: float, text: str, color: str
) -> None:
    page.add_patch(
        FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0.02", fc=color, ec="none")
    )
    page.text(
        x + width / 2, y + height / 2, text, color="white", fontsize=9, ha="center", va="center"
    )


def _arrow(page: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    page.add_patch(
        FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=10, color=DARK, lw=1)
    )


def _image(figure: Figure, image: Image.Image, x: float, y: float, side: float) -> None:
    axes = figure.add_axes((x / WIDTH, y / HEIGHT, side / WIDTH, side / HEIGHT))
    axes.imshow(image)
    axes.axis("off")


def _wrapped(text: str, length: int = 22) -> str:
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) > length:
            lines.append("")
        lines[-1] += f"{word} "
    return "\n".join(line.strip() for line in lines)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
