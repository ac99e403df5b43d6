"""How buildings and street furniture are drawn."""

import math

from virtex.data.sources.scenes.drawing import Pen

# fmt: off


def house(pen: Pen) -> None:
    pen.box("brick-", (78, 8, 90, 34))
    pen.box("main", (14, 44, 106, 98))
    pen.box("main-", (14, 44, 106, 52))
    pen.polygon("roof", (2, 48, 34, 12, 86, 12, 118, 48))
    for y in (22, 31, 40):
        pen.line("roof-", (34 - (y - 12) * 0.8, y, 86 + (y - 12) * 0.8, y), width=1.4)
    pen.box("wood-", (50, 62, 70, 98), radius=2)
    pen.oval("gold", (66, 81, 1.8, 1.8))
    for left in (22, 78):
        pen.box("white", (left, 58, left + 20, 80), radius=1)
        pen.box("window", (left + 2, 60, left + 18, 78))
        pen.line("white", (left + 10, 60, left + 10, 78), width=1.6)
        pen.line("white", (left + 2, 69, left + 18, 69), width=1.6)
    pen.box("stone-", (12, 94, 108, 99))


def castle(pen: Pen) -> None:
    def battlements(left: float, right: float, top: float) -> None:
        width = (right - left) / 5
        for index in (0, 2, 4):
            pen.box("main", (left + index * width, top - 7, left + (index + 1) * width, top + 1))

    for left, right, top in ((4, 30, 38), (90, 116, 38), (26, 94, 54), (47, 73, 28)):
        pen.box("main" if left != 26 else "main-", (left, top, right, 99))
        battlements(left, right, top)
    for x, y in ((17, 30), (103, 30), (60, 20)):
        pen.line("wood-", (x, y, x, y - 18), width=1.8)
        pen.polygon("red", (x, y - 18, x + 14, y - 13.5, x, y - 9))
    for x, y in ((17, 54), (103, 54), (60, 42), (38, 68), (82, 68)):
        pen.box("window", (x - 3, y - 5, x + 3, y + 8), radius=3)
    pen.pie("wood--", (60, 84, 14, 16), start=180, end=360)
    pen.box("wood--", (46, 83, 74, 99))
    for x in (53, 60, 67):
        pen.line("ink", (x, 72, x, 98), width=1.2)
    for x, y in ((10, 72), (22, 86), (98, 88), (110, 74), (34, 88), (84, 90)):
        pen.box("main--", (x - 3, y - 1.4, x + 3, y + 1.4))


def barn(pen: Pen) -> None:
    pen.polygon("main", (12, 98, 12, 48, 26, 24, 56, 8, 86, 24, 100, 48, 100, 98))
    pen.line("iron-", (8, 50, 24, 23, 56, 6, 88, 23, 104, 50), width=6)
    for x in (22, 32, 80, 90):
        pen.line("main-", (x, 46, x, 97), width=1.4)
    pen.box("white", (36, 54, 76, 98))
    pen.box("main-", (39, 57, 73, 98))
    for points in ((39, 57, 55, 97), (55, 57, 39, 97), (57, 57, 73, 97), (73, 57, 57, 97)):
        pen.line("white", points, width=2.4)
    pen.line("white", (56, 57, 56, 98), width=2.4)
    pen.box("white", (46, 25, 66, 43))
    pen.box("window", (49, 28, 63, 40))


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


def tent(pen: Pen) -> None:
    pen.polygon("main", (4, 78, 40, 8, 70, 8, 116, 78))
    pen.polygon("main-", (4, 78, 40, 8, 70, 78))
    pen.polygon("ink+", (22, 78, 39, 34, 54, 78))
    pen.polygon("main+", (39, 34, 54, 78, 62, 78))
    pen.line("wood-", (40, 4, 40, 10), width=2)
    pen.line("cream", (94, 44, 118, 77), width=1.2)


def windmill(pen: Pen) -> None:
    pen.polygon("main", (32, 128, 40, 56, 68, 56, 76, 128))
    pen.blob("brick", (36, 58, 42, 42, 54, 37, 66, 42, 72, 58))
    pen.box("wood-", (47, 106, 61, 128), radius=4)
    for y in (72, 90):
        pen.box("window", (49, y, 59, y + 10), radius=2)
    for degrees in (20, 110, 200, 290):
        angle = math.radians(degrees)
        dx, dy = math.cos(angle), math.sin(angle)
        tip = (54 + 48 * dx, 50 + 48 * dy)
        pen.polygon("cream", (54 + 12 * dx, 50 + 12 * dy, *tip, tip[0] - 13 * dy, tip[1] + 13 * dx,
                              54 + 12 * dx - 13 * dy, 50 + 12 * dy + 13 * dx))
        for step in (20, 30, 40):
            along, down = 54 + step * dx, 50 + step * dy
            pen.line("sand-", (along, down, along - 12 * dy, down + 12 * dx), width=1)
        pen.line("wood-", (54, 50, *tip), width=3)
    pen.oval("wood--", (54, 50, 5, 5))


def igloo(pen: Pen) -> None:
    pen.pie("ice", (52, 76, 48, 66), start=180, end=360)
    for y in (58, 40, 25):
        half = 48 * math.sqrt(max(0.0, 1 - ((76 - y) / 66) ** 2))
        pen.line("ice-", (52 - half, y, 52 + half, y), width=1.6)
    for x, top, bottom in ((20, 58, 76), (52, 58, 76), (36, 40, 58), (66, 40, 58), (52, 25, 40),
                           (84, 58, 76), (14, 44, 58)):
        pen.line("ice-", (x, top, x, bottom), width=1.6)
    pen.pie("ice-", (92, 76, 26, 36), start=180, end=360)
    pen.pie("navy-", (96, 76, 17, 26), start=180, end=360)


def bench(pen: Pen) -> None:
    for x in (16, 96):
        pen.line("iron-", (x, 20, x, 68), width=5)
        pen.line("iron-", (x, 44, x + 6, 68), width=5)
    for y in (12, 24):
        pen.box("main", (4, y - 4, 114, y + 5), radius=2)
    pen.box("main+", (4, 38, 114, 45), radius=2)
    pen.box("main-", (4, 46, 114, 52), radius=2)


def street_lamp(pen: Pen) -> None:
    pen.box("iron-", (14, 134, 34, 140), radius=2)
    pen.line("iron-", (24, 30, 24, 136), width=4.5)
    pen.box("iron-", (19, 112, 29, 136), radius=2)
    pen.polygon("lit", (13, 12, 35, 12, 31, 34, 17, 34))
    pen.line("iron-", (24, 12, 24, 34), width=1.6)
    pen.polygon("iron-", (10, 13, 24, 2, 38, 13))
    pen.box("iron-", (16, 33, 32, 38), radius=1)


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
    octagon = [
        value
        for step in range(8)
        for value in (
            39.5 + 37 * math.cos(math.pi * (step + 0.5) / 4),
            40 + 37 * math.sin(math.pi * (step + 0.5) / 4),
        )
    ]
    pen.polygon("white", octagon)
    pen.polygon("red", [40 + (v - 40) * 0.9 for v in octagon])
    letters = (
        (22, 34, 17, 34, 17, 40, 22, 40, 22, 47, 16, 47), (26, 33, 34, 33), (30, 33, 30, 47),
        (38, 33, 45, 33, 45, 47, 38, 47, 38, 33), (51, 47, 51, 33, 58, 33, 58, 40, 52, 40),
    )
    for points in letters:
        pen.line("white", points, width=2.6)


def fire_hydrant(pen: Pen) -> None:
    pen.box("main-", (10, 86, 54, 97), radius=3)
    pen.box("main", (16, 30, 48, 90), radius=4)
    pen.pie("main", (32, 30, 18, 22), start=180, end=360)
    pen.box("main-", (11, 28, 53, 36), radius=3)
    pen.box("main-", (28, 3, 36, 12), radius=2)
    for x in (7, 57):
        pen.box("main-", (x - 6, 48, x + 6, 62), radius=3)
    pen.oval("main-", (32, 55, 11, 11))
    pen.oval("steel", (32, 55, 6.5, 6.5))
    pen.box("main+", (20, 38, 24, 84), radius=2)
