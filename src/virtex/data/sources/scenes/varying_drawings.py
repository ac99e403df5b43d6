"""Draw the kinds that differ from object to object, or whose shapes are computed."""

import math
from collections.abc import Callable

from virtex.data.sources.scenes.drawing import Pen

# fmt: off


def _on_circle(x: float, y: float, radius: float, angle: float) -> tuple[float, float]:
    """Return the point of a circle of center x, y, `angle` radians clockwise from the right."""
    return x + radius * math.cos(angle), y + radius * math.sin(angle)


def person(pen: Pen) -> None:
    skin = pen.choose(("skin", "tan", "umber"))
    hair = pen.choose(("ink", "chocolate", "brown", "gold", "brick"), salt=1)
    trousers = pen.choose(("denim", "ink", "navy", "umber", "iron"), salt=2)
    pen.box(trousers, (17, 66, 28, 115), radius=4)
    pen.box(trousers + "-", (31, 66, 42, 115), radius=4)
    pen.box("ink", (13, 112, 28, 119), radius=3)
    pen.box("ink", (31, 112, 46, 119), radius=3)
    pen.curve("main-", (17, 40, 9, 54, 9, 68), width=9)
    pen.curve("main-", (42, 40, 50, 54, 50, 68), width=9)
    pen.oval(skin, (9, 71, 4.5, 5))
    pen.oval(skin, (50, 71, 4.5, 5))
    pen.blob("main", (29.5, 33, 42, 35, 46, 46, 43, 74, 29.5, 77, 16, 74, 13, 46, 17, 35))
    pen.box(skin, (25, 26, 34, 38), radius=3)
    if pen.look.variant % 2:
        pen.blob(hair, (29.5, 1, 43, 7, 45, 24, 42, 36, 30, 30, 17, 36, 14, 24, 16, 7))
    pen.oval(skin, (29.5, 18, 12.5, 14))
    pen.blob(hair, (17, 16, 17, 6, 29, 1, 42, 6, 42, 16, 36, 10, 24, 10))
    pen.oval("ink", (25, 18, 1.7, 2))
    pen.oval("ink", (34.5, 18, 1.7, 2))
    pen.curve("blush-", (25, 25, 29.5, 27, 34, 25), width=1.8)


def tree(pen: Pen) -> None:
    pen.polygon("bark", (44, 116, 47, 66, 57, 66, 60, 116))
    pen.line("bark", (52, 82, 68, 64), width=5)
    for x, y, r in ((28, 52, 24), (76, 52, 24), (36, 30, 24), (66, 28, 25), (52, 62, 26)):
        pen.oval("main-", (x, y + 3, r, r * 0.94))
    for x, y, r in ((30, 46, 21), (74, 46, 20), (40, 27, 20), (64, 25, 20), (52, 50, 22)):
        pen.oval("main", (x, y, r, r * 0.9))
    for x, y, r in ((36, 24, 10), (62, 18, 10), (26, 42, 8), (66, 42, 9), (46, 46, 9)):
        pen.oval("main+", (x, y, r, r * 0.7))
    if pen.look.variant % 5 == 0:
        for x, y in ((30, 56), (48, 32), (70, 56), (76, 36), (54, 66)):
            pen.oval("red", (x, y, 3.6, 3.6))


def flower(pen: Pen) -> None:
    pen.curve("stem", (40, 98, 38, 76, 40, 40), width=5)
    pen.blob("leaf", (39, 84, 22, 66, 8, 66, 16, 82, 34, 90))
    pen.blob("leaf", (40, 78, 54, 60, 70, 60, 64, 74, 46, 84))
    for step in range(7):
        angle = 2 * math.pi * step / 7
        petal = (*_on_circle(40, 30, 20, angle), 13, 9)
        pen.oval("main-" if step % 2 else "main", petal, turn=-math.degrees(angle))
    pen.oval("gold-", (40, 30, 11, 11))
    pen.oval("gold", (39, 29, 8, 8))


def sun(pen: Pen) -> None:
    for step in range(12):
        reach = 48 if step % 2 else 42
        dx, dy = _on_circle(0, 0, 1, math.pi * step / 6)
        across, along = (-8 * dy, 8 * dx), (50 + 28 * dx, 50 + 28 * dy)
        pen.polygon("sun-" if step % 2 else "sun", (
            50 + reach * dx, 50 + reach * dy, along[0] + across[0], along[1] + across[1],
            along[0] - across[0], along[1] - across[1],
        ))
    pen.oval("flame", (50, 50, 30, 30))
    pen.oval("sun", (49, 49, 27, 27))
    pen.oval("sun+", (45, 44, 17, 17))


def moon(pen: Pen) -> None:
    pen.oval("moon", (50, 50, 46, 46))
    if pen.look.variant % 2:
        pen.oval("none", (70, 42, 38, 38))
        return
    for x, y, r in ((34, 34, 9), (62, 58, 12), (58, 28, 6), (30, 64, 7), (72, 38, 5)):
        pen.oval("moon-", (x, y, r, r))
        pen.oval("moon", (x + 1.4, y + 1.4, r * 0.8, r * 0.8))


def lighthouse(pen: Pen) -> None:
    pen.blob("stone-", (4, 128, 14, 116, 32, 112, 56, 114, 66, 128, 36, 131))
    pen.polygon("white", (22, 120, 27, 34, 43, 34, 48, 120))
    for top, bottom in ((46, 62), (78, 94)):
        inset = (120 - top) * 5 / 86
        below = (120 - bottom) * 5 / 86
        pen.polygon("main", (22 + inset, top, 48 - inset, top, 48 - below, bottom, 22 + below,
                             bottom))
    pen.box("wood-", (30, 104, 40, 120), radius=3)
    pen.box("window", (32, 68, 38, 76), radius=2)
    pen.box("iron", (23, 30, 47, 36), radius=1)
    pen.box("lit", (28, 16, 42, 30))
    pen.line("iron", (35, 16, 35, 30), width=1.4)
    pen.polygon("main", (24, 17, 35, 3, 46, 17))


def windmill(pen: Pen) -> None:
    pen.polygon("main", (32, 128, 40, 56, 68, 56, 76, 128))
    pen.blob("brick", (36, 58, 42, 42, 54, 37, 66, 42, 72, 58))
    pen.box("wood-", (47, 106, 61, 128), radius=4)
    for y in (72, 90):
        pen.box("window", (49, y, 59, y + 10), radius=2)
    for degrees in (20, 110, 200, 290):
        dx, dy = _on_circle(0, 0, 1, math.radians(degrees))
        tip = (54 + 48 * dx, 50 + 48 * dy)
        pen.polygon("cream", (54 + 12 * dx, 50 + 12 * dy, *tip, tip[0] - 13 * dy, tip[1] + 13 * dx,
                              54 + 12 * dx - 13 * dy, 50 + 12 * dy + 13 * dx))
        for step in (20, 30, 40):
            along, down = 54 + step * dx, 50 + step * dy
            pen.line("sand-", (along, down, along - 12 * dy, down + 12 * dx), width=1)
        pen.line("wood-", (54, 50, *tip), width=3)
    pen.oval("wood--", (54, 50, 5, 5))


def igloo(pen: Pen) -> None:
    pen.pie("ice", (52, 76, 48, 66))
    for y in (58, 40, 25):
        half = 48 * math.sqrt(max(0.0, 1 - ((76 - y) / 66) ** 2))
        pen.line("ice-", (52 - half, y, 52 + half, y), width=1.6)
    for x, top, bottom in ((20, 58, 76), (52, 58, 76), (36, 40, 58), (66, 40, 58), (52, 25, 40),
                           (84, 58, 76), (14, 44, 58)):
        pen.line("ice-", (x, top, x, bottom), width=1.6)
    pen.pie("ice-", (92, 76, 26, 36))
    pen.pie("navy-", (96, 76, 17, 26))


def traffic_light(pen: Pen) -> None:
    pen.box("iron", (19, 70, 27, 138))
    pen.box("iron-", (12, 132, 34, 140), radius=2)
    pen.box("ink", (6, 3, 40, 82), radius=6)
    pen.box("ink+", (9, 6, 37, 79), radius=5)
    bright = pen.look.variant % 3
    for index, (lamp, y) in enumerate((("red", 18), ("yellow", 42), ("green", 66))):
        pen.oval("ink", (23, y, 11, 11))
        pen.oval(lamp + "+" if index == bright else lamp + "-", (23, y, 9, 9))
        if index == bright:
            pen.oval("lit" if lamp == "yellow" else "white", (21, y - 2, 3, 3))


def stop_sign(pen: Pen) -> None:
    pen.box("steel", (36, 60, 43, 128))
    corners = [_on_circle(39.5, 40, 37, math.pi * (step + 0.5) / 4) for step in range(8)]
    octagon = [value for corner in corners for value in corner]
    pen.polygon("white", octagon)
    pen.polygon("red", [40 + (v - 40) * 0.9 for v in octagon])
    letters = (
        (22, 34, 17, 34, 17, 40, 22, 40, 22, 47, 16, 47), (26, 33, 34, 33), (30, 33, 30, 47),
        (38, 33, 45, 33, 45, 47, 38, 47, 38, 33), (51, 47, 51, 33, 58, 33, 58, 40, 52, 40),
    )
    for points in letters:
        pen.line("white", points, width=2.6)


def vase(pen: Pen) -> None:
    for points, x, y, tone in (
        ((34, 52, 24, 34, 16, 22), 15, 18, "red"),
        ((36, 52, 37, 30, 37, 16), 37, 12, "pink"),
        ((38, 52, 48, 34, 58, 24), 60, 20, "yellow"),
    ):
        pen.curve("stem", points, width=3)
        for step in range(5):
            pen.oval(tone, (*_on_circle(x, y, 6, 2 * math.pi * step / 5), 5.6, 5.6))
        pen.oval("gold-", (x, y, 4, 4))
    pen.blob("leaf", (34, 54, 14, 48, 8, 38, 24, 40))
    pen.blob("main", (26, 50, 48, 50, 45, 62, 60, 78, 56, 104, 37, 109, 18, 104, 14, 78, 29, 62))
    pen.box("main-", (25, 48, 49, 54), radius=2)
    pen.oval("main+", (26, 82, 4, 10))


def clock(pen: Pen) -> None:
    pen.oval("main", (50, 50, 48, 48))
    pen.oval("cream", (50, 50, 38, 38))
    for step in range(12):
        pen.oval("ink", (*_on_circle(50, 50, 32, math.pi * step / 6), 2.2, 2.2))
    hour, minute = 0.4 * (pen.look.variant % 15), 0.6 * (pen.look.variant % 11)
    pen.line("ink", (50, 50, *_on_circle(50, 50, 18, hour)), width=4.4)
    pen.line("ink", (50, 50, *_on_circle(50, 50, 28, minute)), width=3)
    pen.oval("red", (50, 50, 4, 4))


def lamp(pen: Pen) -> None:
    pen.oval("wood-", (40, 114, 24, 6))
    pen.line("wood-", (40, 54, 40, 112), width=5)
    pen.oval("wood", (40, 90, 8, 14))
    if pen.look.light.dark:
        pen.oval("lit", (40, 54, 20, 7))
    pen.polygon("main", (22, 6, 58, 6, 77, 54, 3, 54))
    pen.polygon("main+", (22, 6, 36, 6, 26, 54, 3, 54))
    pen.line("main-", (3, 53, 77, 53), width=3)


def saw(pen: Pen) -> None:
    pen.polygon("steel", (36, 8, 138, 26, 138, 36, 40, 50))
    teeth = [
        value
        for x in range(44, 138, 8)
        for value in (x, 50 - (x - 40) * 0.143, x + 4, 57 - (x - 40) * 0.143)
    ]
    pen.polygon("steel", (40, 49, *teeth, 138, 34))
    pen.line("white", (44, 14, 130, 29), width=1.6)
    pen.blob("main", (6, 12, 24, 4, 42, 6, 44, 30, 42, 56, 20, 60, 4, 44))
    pen.blob("none", (16, 22, 28, 18, 32, 32, 28, 44, 17, 40))


VARYING_DRAWINGS: dict[str, Callable[[Pen], None]] = {
    "person": person, "tree": tree, "flower": flower, "sun": sun, "moon": moon,
    "lighthouse": lighthouse, "windmill": windmill, "igloo": igloo,
    "traffic light": traffic_light, "stop sign": stop_sign, "vase": vase, "clock": clock,
    "lamp": lamp, "saw": saw,
}
