"""How plants and things of the sky are drawn."""

import math

from virtex.data.sources.scenes.drawing import Pen

# fmt: off


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


def pine_tree(pen: Pen) -> None:
    pen.box("bark", (34, 100, 46, 117))
    for top, bottom, half in ((58, 106, 37), (32, 80, 30), (4, 54, 22)):
        pen.polygon("main", (40, top, 40 + half, bottom, 40, bottom - 5, 40 - half, bottom))
        pen.polygon("main-", (40, top, 40 + half, bottom, 40 + half * 0.3, bottom - 4))
        pen.polygon("main+", (40, top, 40 - half * 0.45, top + (bottom - top) * 0.55, 40, top + 18))


def palm_tree(pen: Pen) -> None:
    pen.curve("bark+", (44, 118, 42, 84, 50, 56, 58, 38), width=8)
    for x, y in ((44, 106), (43, 94), (44, 82), (47, 68), (51, 54)):
        pen.line("bark", (x - 3.4, y, x + 3.4, y - 1), width=1.6)
    for name, points in (
        ("leaf-", (58, 36, 40, 22, 14, 34, 6, 56, 26, 42, 44, 38)),
        ("leaf-", (58, 36, 78, 24, 100, 38, 106, 60, 90, 44, 74, 40)),
        ("leaf", (58, 34, 40, 8, 16, 8, 4, 22, 26, 20, 44, 30)),
        ("leaf", (58, 34, 74, 8, 98, 8, 110, 24, 90, 20, 74, 30)),
        ("leaf+", (58, 36, 50, 16, 56, 2, 68, 4, 66, 20)),
        ("leaf", (58, 36, 50, 46, 36, 66, 42, 50, 50, 38)),
        ("leaf", (58, 36, 68, 46, 80, 68, 76, 50, 66, 38)),
    ):
        pen.blob(name, points)
    for x, y in ((54, 42), (62, 43), (58, 38)):
        pen.oval("umber", (x, y, 4.6, 4.6))


def flower(pen: Pen) -> None:
    pen.curve("stem", (40, 98, 38, 76, 40, 40), width=5)
    pen.blob("leaf", (39, 84, 22, 66, 8, 66, 16, 82, 34, 90))
    pen.blob("leaf", (40, 78, 54, 60, 70, 60, 64, 74, 46, 84))
    for step in range(7):
        angle = 2 * math.pi * step / 7
        x, y = 40 + 20 * math.cos(angle), 30 + 20 * math.sin(angle)
        pen.oval("main-" if step % 2 else "main", (x, y, 13, 9), turn=-math.degrees(angle))
    pen.oval("gold-", (40, 30, 11, 11))
    pen.oval("gold", (39, 29, 8, 8))


def tulip(pen: Pen) -> None:
    pen.curve("stem", (30, 98, 29, 70, 30, 38), width=5)
    pen.blob("leaf", (30, 96, 14, 76, 8, 50, 20, 62, 30, 84))
    pen.blob("leaf-", (30, 96, 46, 78, 52, 54, 40, 66, 30, 84))
    pen.blob("main-", (12, 14, 20, 14, 30, 26, 40, 14, 48, 14, 50, 34, 38, 50, 22, 50, 10, 34))
    pen.blob("main", (30, 4, 40, 20, 40, 40, 30, 50, 20, 40, 20, 20))
    pen.blob("main", (11, 10, 22, 20, 28, 48, 16, 46, 9, 32))


def cactus(pen: Pen) -> None:
    for points in ((36, 66, 14, 64, 13, 38), (44, 54, 68, 54, 68, 26)):
        pen.curve("stem-", points, width=15)
        pen.curve("stem", points, width=11)
    pen.box("stem-", (26, 4, 54, 98), radius=14)
    pen.box("stem", (29, 4, 51, 98), radius=11)
    for x in (35, 41, 46):
        pen.line("stem-", (x, 14, x, 96), width=1.4)
    for x, y in ((40, 3), (68, 18), (13, 30)):
        pen.oval("pink", (x, y + 3, 5.6, 4.6))
        pen.oval("gold", (x, y + 2, 2, 2))


def mushroom(pen: Pen) -> None:
    pen.blob("cream", (32, 46, 58, 46, 58, 70, 64, 90, 45, 95, 26, 90, 32, 70))
    pen.blob("main", (4, 48, 10, 22, 30, 6, 60, 6, 80, 22, 86, 48, 66, 55, 24, 55))
    pen.blob("cream-", (18, 51, 45, 48, 72, 51, 60, 57, 30, 57))
    for x, y, r in ((45, 18, 8), (24, 30, 6), (66, 30, 6.5), (44, 38, 5), (14, 44, 4), (76, 43, 4)):
        pen.oval("white", (x, y, r, r * 0.86))


def sun(pen: Pen) -> None:
    for step in range(12):
        angle = math.pi * step / 6
        reach = 48 if step % 2 else 42
        dx, dy = math.cos(angle), math.sin(angle)
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
        pen.oval("", (70, 42, 38, 38))
        return
    for x, y, r in ((34, 34, 9), (62, 58, 12), (58, 28, 6), (30, 64, 7), (72, 38, 5)):
        pen.oval("moon-", (x, y, r, r))
        pen.oval("moon", (x + 1.4, y + 1.4, r * 0.8, r * 0.8))


def cloud(pen: Pen) -> None:
    pen.box("cloud-", (12, 46, 126, 68), radius=11)
    for x, y, r in ((34, 44, 22), (64, 32, 28), (96, 40, 24), (116, 52, 15)):
        pen.oval("cloud", (x, y, r, r * 0.94))
    pen.box("cloud", (10, 44, 130, 63), radius=9)
    for x, y, r in ((58, 24, 12), (92, 34, 11), (30, 38, 10)):
        pen.oval("white", (x, y, r, r * 0.7))


def rainbow(pen: Pen) -> None:
    for index, name in enumerate(("red", "orange", "yellow", "green", "blue", "purple")):
        radius = 76 - index * 6
        pen.arch(name, (80, 82, radius, radius), width=6.6)


def planet(pen: Pen) -> None:
    pen.oval("second", (60, 45, 58, 14), turn=-16)
    pen.oval("", (60, 45, 47, 9), turn=-16)
    pen.oval("main", (60, 45, 32, 32))
    pen.oval("main-", (56, 57, 24, 5), turn=-16)
    pen.oval("main+", (52, 32, 18, 5), turn=-16)
    pen.curve("second", (7, 56, 28, 63, 60, 57, 96, 44, 112, 33), width=6)
