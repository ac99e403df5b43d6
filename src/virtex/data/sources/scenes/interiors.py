"""Paint the settings without a horizon: under water, in space, indoors."""

import numpy as np

from virtex.data.sources.scenes.canvas import Canvas, Pixels, gradient, textured
from virtex.data.sources.scenes.palette import RGB


def paint_underwater(canvas: Canvas) -> None:
    size, rng = canvas.size, canvas.rng
    canvas.blend((96, 198, 222), (16, 74, 134))
    rows, columns = np.indices((size, size), dtype=np.float32) / size
    slanted = np.sin((columns + 0.5 * rows) * 14 + rng.uniform(0, 6))
    rays = slanted * np.sin((columns + 0.45 * rows) * 31)
    canvas.pixels += (np.clip(rays, 0, 1) * (1 - rows) * 34)[..., None]
    canvas.ground(
        canvas.ridge(0.84, swing=0.04, waves=0.8),
        far=(120, 166, 160), near=(196, 190, 150), start=0.82,
        texture=canvas.noise(6, size // 3), strength=0.05,
    )  # fmt: skip
    for center in rng.uniform(0, 1, 3):
        sway = center + 0.015 * np.sin(rows[:, :1] * 30)
        upright = (rows > 0.62 + 0.2 * rng.random()) * (rows < 0.88)
        weed = np.clip((0.014 - np.abs(columns - sway)) * size, 0, 1) * upright
        canvas.pixels += (np.array((38, 120, 92), np.float32) - canvas.pixels) * (
            0.75 * weed[..., None]
        )


def paint_space(canvas: Canvas) -> None:
    canvas.blend((10, 8, 30), (34, 18, 66))
    nebula = np.clip(canvas.noise(4, 4), 0, 1)[..., None]
    tint = ((70, 24, 92), (20, 50, 100))[canvas.rng.integers(2)]
    canvas.pixels += nebula * np.asarray(tint, np.float32)
    canvas.stars(canvas.size, number=70)


def paint_table(canvas: Canvas) -> None:
    size = canvas.size
    _paint_wall(
        canvas,
        ((226, 218, 204), (188, 212, 206), (206, 214, 230), (238, 222, 180), (222, 196, 190)),
    )
    step, thick = max(8, size // 7), max(1, size // 96)
    canvas.pixels[step // 2 :: step] *= 0.955
    canvas.pixels[:, step // 2 :: step] *= 0.955
    _paint_boards(canvas, ((196, 142, 88), (158, 104, 66), (214, 172, 122), (226, 216, 202)))
    edge = int(size * canvas.horizon)
    canvas.pixels[edge : edge + thick] *= 1.12


def paint_workbench(canvas: Canvas) -> None:
    size = canvas.size
    _paint_wall(canvas, ((176, 186, 190), (150, 164, 158), (196, 180, 160)))
    step, thick = max(6, size // 12), max(1, size // 64)
    for row, column in np.ndindex(thick, thick):
        holes = canvas.pixels[step // 2 + row : int(size * 0.42) : step, step // 2 + column :: step]
        holes *= 0.72
    _paint_boards(canvas, ((186, 140, 92),))


def paint_room(canvas: Canvas) -> None:
    size = canvas.size
    _paint_wall(
        canvas,
        ((234, 222, 200), (196, 214, 204), (200, 212, 230), (232, 204, 190), (220, 210, 230)),
    )
    if canvas.rng.random() < 0.5:
        stripes = (np.arange(size) // max(2, size // 24)) % 2 == 0
        canvas.pixels[:, stripes] *= 0.965
    if canvas.rng.random() < 0.6:
        _paint_window(canvas)
    _paint_boards(canvas, ((178, 126, 80), (150, 108, 76), (200, 160, 116)))
    edge = int(size * canvas.horizon)
    canvas.pixels[edge - max(2, size // 32) : edge] = canvas.lit((250, 248, 242), 0.0)


def _paint_wall(canvas: Canvas, colors: tuple[RGB, ...]) -> None:
    """Paint a plain wall in one of the colors, brighter where the light falls on it."""
    color = canvas.lit(colors[canvas.rng.integers(len(colors))], 0.0)
    rows, columns = np.indices((canvas.size, canvas.size), dtype=np.float32) / canvas.size
    center = canvas.rng.uniform(0.2, 0.8)
    glow = np.exp(-((rows - 0.2) ** 2 + (columns - center) ** 2) * 3)
    canvas.pixels = color * (0.90 + 0.16 * glow[..., None])


def _paint_boards(canvas: Canvas, colors: tuple[RGB, ...]) -> None:
    """Paint planks in one of the colors, with grain, below the horizon."""
    size, start = canvas.size, canvas.horizon
    near = colors[canvas.rng.integers(len(colors))] if len(colors) > 1 else colors[0]
    far = (near[0] * 0.86, near[1] * 0.86, near[2] * 0.86)
    grain = canvas.noise(3, size // 2) + 0.7 * canvas.noise(6, size // 3)
    wood: Pixels = textured(canvas.ground_colors(far=far, near=near, start=start), grain, 0.055)
    for share in (0.12, 0.34, 0.64):
        row = int(size * (start + (1 - start) * share))
        wood[row : row + max(1, size // 96)] *= 0.82
    canvas.fill_below(canvas.level(start), wood)


def _paint_window(canvas: Canvas) -> None:
    size, rng = canvas.size, canvas.rng
    left, top = int(size * rng.uniform(0.06, 0.6)), int(size * 0.08)
    width, height, frame = int(size * 0.3), int(size * 0.34), max(1, size // 48)
    view = canvas.pixels[top : top + height, left : left + width]
    view[:] = canvas.lit((250, 248, 244), 0.0)
    above, below = (
        ((26, 30, 66), (60, 64, 110)) if canvas.light.dark else ((132, 194, 238), (222, 240, 246))
    )
    panes = gradient(above, below, height)[frame:-frame]
    middle = width // 2
    view[frame : height - frame, frame : middle - frame // 2] = panes
    view[frame : height - frame, middle + (frame + 1) // 2 : width - frame] = panes
