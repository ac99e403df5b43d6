"""How crockery, tools, toys and furniture are drawn."""

import math

from virtex.data.sources.scenes.drawing import Pen

# fmt: off


def cup(pen: Pen) -> None:
    pen.ring("main-", (68, 46, 17, 19), width=7)
    pen.box("main", (10, 16, 66, 82), radius=10)
    pen.box("main", (10, 16, 66, 40), radius=2)
    pen.oval("main+", (38, 17, 28, 8))
    pen.oval("chocolate", (38, 18, 24, 6))


def bottle(pen: Pen) -> None:
    pen.box("ink", (17, 2, 33, 14), radius=2)
    pen.blob("main", (18, 12, 32, 12, 33, 32, 44, 46, 45, 80, 44, 116, 25, 119, 6, 116, 5, 80, 6,
                      46, 17, 32))
    pen.box("cream", (5, 62, 45, 94), radius=2)
    pen.line("main-", (12, 72, 38, 72), width=2.4)
    pen.line("main-", (12, 82, 30, 82), width=2.4)
    pen.line("main+", (13, 48, 12, 58), width=4)


def teapot(pen: Pen) -> None:
    pen.ring("main-", (20, 52, 19, 20), width=7)
    pen.blob("main-", (84, 66, 100, 50, 108, 30, 118, 28, 112, 58, 90, 80))
    pen.blob("main", (56, 24, 84, 30, 98, 56, 88, 84, 56, 91, 24, 84, 14, 56, 28, 30))
    pen.blob("main-", (32, 28, 56, 16, 80, 28, 56, 33))
    pen.oval("gold", (56, 14, 6, 6))
    for x in (38, 56, 74):
        pen.oval("white", (x, 60, 5, 5))
        pen.oval("gold", (x, 60, 2.4, 2.4))


def vase(pen: Pen) -> None:
    for points, x, y, tone in (
        ((34, 52, 24, 34, 16, 22), 15, 18, "red"),
        ((36, 52, 37, 30, 37, 16), 37, 12, "pink"),
        ((38, 52, 48, 34, 58, 24), 60, 20, "yellow"),
    ):
        pen.curve("stem", points, width=3)
        for step in range(5):
            angle = 2 * math.pi * step / 5
            pen.oval(tone, (x + 6 * math.cos(angle), y + 6 * math.sin(angle), 5.6, 5.6))
        pen.oval("gold-", (x, y, 4, 4))
    pen.blob("leaf", (34, 54, 14, 48, 8, 38, 24, 40))
    pen.blob("main", (26, 50, 48, 50, 45, 62, 60, 78, 56, 104, 37, 109, 18, 104, 14, 78, 29, 62))
    pen.box("main-", (25, 48, 49, 54), radius=2)
    pen.oval("main+", (26, 82, 4, 10))


def umbrella(pen: Pen) -> None:
    pen.line("wood-", (60, 20, 60, 104), width=4)
    pen.pie("main", (60, 56, 57, 50), start=180, end=360)
    pen.pie("second", (60, 56, 36, 50), start=180, end=360)
    pen.pie("main", (60, 56, 14, 50), start=180, end=360)
    pen.line("ink", (60, 1, 60, 8), width=3)
    for x in (13, 35, 60, 85, 107):
        pen.pie("", (x, 58, 12, 7), start=180, end=360)
    pen.line("wood-", (60, 54, 60, 104), width=4)


def ball(pen: Pen) -> None:
    pen.oval("main", (50, 50, 47, 47))
    pen.blob("second", (50, 3, 62, 26, 62, 74, 50, 97, 38, 74, 38, 26))
    pen.blob("second", (10, 26, 24, 40, 22, 66, 12, 78, 4, 56))
    pen.blob("second", (90, 26, 76, 40, 78, 66, 88, 78, 96, 56))
    pen.oval("white", (50, 50, 8, 8))
    pen.oval("white", (32, 22, 8, 5), turn=-40)


def book(pen: Pen) -> None:
    pen.polygon("main-", (4, 56, 92, 64, 116, 40, 30, 34))
    pen.polygon("cream", (6, 50, 92, 58, 114, 36, 30, 30))
    pen.polygon("cream-", (6, 50, 92, 58, 92, 63, 6, 55))
    pen.polygon("main", (4, 46, 92, 54, 117, 30, 30, 24))
    pen.polygon("main+", (38, 34, 84, 38, 92, 32, 46, 28))
    pen.line("main--", (5, 46, 5, 56), width=4)


def clock(pen: Pen) -> None:
    pen.oval("main", (50, 50, 48, 48))
    pen.oval("cream", (50, 50, 38, 38))
    for step in range(12):
        angle = math.pi * step / 6
        pen.oval("ink", (50 + 32 * math.cos(angle), 50 + 32 * math.sin(angle), 2.2, 2.2))
    hour, minute = 0.4 * (pen.look.variant % 15), 0.6 * (pen.look.variant % 11)
    pen.line("ink", (50, 50, 50 + 18 * math.cos(hour), 50 + 18 * math.sin(hour)), width=4.4)
    pen.line("ink", (50, 50, 50 + 28 * math.cos(minute), 50 + 28 * math.sin(minute)), width=3)
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


def chair(pen: Pen) -> None:
    for x in (12, 58):
        pen.line("main-", (x, 62, x, 96), width=7)
    for x in (20, 68):
        pen.line("main", (x, 8, x - 2, 62), width=7)
    for y in (14, 28, 42):
        pen.line("main", (20, y, 68, y), width=8)
    pen.polygon("main+", (12, 60, 66, 60, 74, 70, 4, 70))
    pen.box("main", (4, 68, 74, 75), radius=2)
    for x in (8, 70):
        pen.line("main", (x, 72, x, 108), width=7)


def sofa(pen: Pen) -> None:
    for x in (18, 122):
        pen.box("wood-", (x - 4, 72, x + 4, 84))
    pen.box("main-", (12, 6, 128, 60), radius=12)
    pen.box("main", (18, 10, 69, 52), radius=8)
    pen.box("main", (71, 10, 122, 52), radius=8)
    pen.box("main+", (18, 44, 69, 62), radius=6)
    pen.box("main+", (71, 44, 122, 62), radius=6)
    pen.box("main-", (12, 58, 128, 76), radius=5)
    for left in (3, 113):
        pen.box("main", (left, 32, left + 24, 76), radius=10)
    pen.polygon("second", (26, 28, 44, 22, 50, 42, 32, 48))


def television(pen: Pen) -> None:
    pen.line("ink", (40, 22, 26, 2), width=2)
    pen.line("ink", (60, 22, 78, 2), width=2)
    pen.line("wood--", (26, 80, 20, 94), width=5)
    pen.line("wood--", (94, 80, 100, 94), width=5)
    pen.box("main", (4, 18, 116, 84), radius=8)
    pen.box("ink", (10, 24, 88, 78), radius=8)
    pen.box("blue-", (14, 28, 84, 74), radius=7)
    pen.polygon("blue", (22, 70, 46, 30, 60, 30, 36, 70))
    for y in (36, 52):
        pen.oval("ink", (102, y, 6, 6))
        pen.line("steel", (102, y, 105, y - 3), width=2)
    for y in (64, 69, 74):
        pen.line("ink", (96, y, 108, y), width=1.6)


def guitar(pen: Pen) -> None:
    pen.box("umber", (26, 8, 34, 66))
    pen.box("wood--", (22, 1, 38, 16), radius=3)
    for y in (5, 11):
        pen.oval("gold", (20, y, 2.6, 2))
        pen.oval("gold", (40, y, 2.6, 2))
    pen.blob("main-", (30, 54, 46, 56, 50, 70, 46, 82, 58, 98, 54, 120, 30, 128, 6, 120, 2, 98, 14,
                       82, 10, 70, 14, 56))
    pen.blob("main", (30, 57, 44, 59, 47, 70, 43, 82, 55, 98, 51, 118, 30, 125, 9, 118, 5, 98, 17,
                      82, 13, 70, 16, 59))
    pen.oval("ink", (30, 84, 9, 9))
    pen.box("umber--", (20, 106, 40, 111), radius=1)
    for x in (27.5, 30, 32.5):
        pen.line("steel", (x, 14, x, 108), width=0.8)


def balloon(pen: Pen) -> None:
    pen.curve("stone", (35, 80, 31, 92, 38, 104, 33, 118), width=1.8)
    pen.blob("main", (35, 3, 58, 12, 67, 36, 56, 64, 35, 77, 14, 64, 3, 36, 12, 12))
    pen.polygon("main-", (35, 75, 42, 84, 28, 84))
    pen.oval("main+", (20, 26, 6, 12), turn=20)


def kite(pen: Pen) -> None:
    pen.curve("stone+", (44, 74, 34, 90, 50, 100, 40, 118), width=2)
    for x, y in ((38, 86), (47, 99)):
        pen.polygon("second", (x - 8, y - 4, x - 8, y + 5, x + 8, y - 5, x + 8, y + 4))
    pen.polygon("main", (44, 2, 80, 32, 44, 78, 8, 32))
    pen.polygon("second", (44, 2, 80, 32, 44, 32))
    pen.polygon("second", (8, 32, 44, 32, 44, 78))
    pen.line("ink", (44, 3, 44, 77), width=1.4)
    pen.line("ink", (9, 32, 79, 32), width=1.4)


def teddy_bear(pen: Pen) -> None:
    for side in (-1, 1):
        pen.oval("main", (45 + side * 21, 12, 11, 11))
        pen.oval("main+", (45 + side * 21, 12, 6, 6))
        pen.oval("main-", (45 + side * 29, 58, 10, 16), turn=side * -30)
        pen.oval("main", (45 + side * 20, 90, 17, 14))
        pen.oval("main+", (45 + side * 21, 91, 9, 8))
    pen.oval("main", (45, 68, 26, 26))
    pen.oval("main+", (45, 70, 15, 16))
    pen.oval("main", (45, 27, 27, 24))
    pen.oval("main+", (45, 35, 12, 9.5))
    pen.oval("ink", (45, 31, 4.5, 3.4))
    pen.line("ink", (45, 33, 45, 39), width=1.6)
    for side in (-1, 1):
        pen.oval("ink", (45 + side * 11, 22, 3, 3.4))
        pen.polygon("red", (45, 52, 45 + side * 14, 46, 45 + side * 14, 58))
    pen.oval("red-", (45, 52, 4, 4))


def snowman(pen: Pen) -> None:
    pen.line("bark", (18, 56, 1, 42), width=3)
    pen.line("bark", (62, 56, 79, 42), width=3)
    pen.oval("white", (40, 92, 30, 26))
    pen.oval("white", (40, 58, 23, 20))
    pen.box("main", (22, 42, 58, 49), radius=3)
    pen.box("main-", (48, 46, 56, 66), radius=3)
    pen.oval("white", (40, 32, 17, 16))
    pen.box("ink", (20, 16, 60, 21), radius=2)
    pen.box("ink", (27, 1, 53, 19), radius=2)
    pen.box("main", (27, 12, 53, 17))
    for x in (34, 46):
        pen.oval("ink", (x, 29, 2.2, 2.4))
    pen.polygon("orange", (40, 32, 58, 36, 40, 38))
    for y in (56, 66, 84, 96):
        pen.oval("ink", (39, y, 2.4, 2.4))


def bucket(pen: Pen) -> None:
    pen.arch("steel", (42, 28, 34, 27), width=3)
    pen.polygon("main", (6, 26, 78, 26, 68, 88, 16, 88))
    pen.oval("main", (42, 87, 26, 6))
    pen.oval("main-", (42, 27, 36, 9))
    pen.oval("main--", (42, 28, 31, 6.5))
    pen.polygon("main+", (14, 40, 20, 40, 25, 82, 21, 82))


def hammer(pen: Pen) -> None:
    pen.box("main", (40, 24, 52, 118), radius=5)
    pen.box("main-", (40, 88, 52, 118), radius=5)
    pen.box("iron", (32, 8, 74, 30), radius=3)
    pen.box("iron-", (70, 4, 84, 34), radius=3)
    pen.blob("iron", (36, 8, 20, 10, 4, 22, 2, 30, 18, 24, 36, 30))
    pen.line("steel", (36, 12, 66, 12), width=2.4)


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
    pen.blob("", (16, 22, 28, 18, 32, 32, 28, 44, 17, 40))


def wrench(pen: Pen) -> None:
    pen.box("steel", (26, 30, 40, 104), radius=4)
    pen.oval("steel", (33, 22, 20, 20))
    pen.polygon("", (25, -2, 41, -2, 41, 22, 33, 28, 25, 22))
    pen.oval("steel", (33, 106, 13, 13))
    pen.oval("", (33, 106, 6.5, 6.5))
    pen.box("steel-", (30, 40, 36, 92), radius=3)


def screwdriver(pen: Pen) -> None:
    pen.box("steel", (21, 56, 29, 112))
    pen.polygon("steel-", (21, 110, 29, 110, 31, 119, 19, 119))
    pen.box("main", (10, 2, 40, 50), radius=11)
    pen.box("main", (14, 44, 36, 60), radius=4)
    for x in (17, 24, 31):
        pen.box("main-", (x, 8, x + 3, 44), radius=1)


def potted_plant(pen: Pen) -> None:
    for name, points in (
        ("leaf-", (40, 66, 16, 58, 4, 36, 22, 40, 38, 56)),
        ("leaf-", (40, 66, 64, 58, 76, 36, 58, 40, 42, 56)),
        ("leaf", (40, 66, 22, 44, 18, 16, 34, 30, 42, 56)),
        ("leaf", (40, 66, 58, 44, 64, 18, 46, 30, 38, 56)),
        ("leaf+", (40, 66, 32, 36, 40, 4, 48, 36)),
    ):
        pen.blob(name, points)
    pen.polygon("main", (16, 68, 64, 68, 57, 106, 23, 106))
    pen.box("main-", (12, 62, 68, 74), radius=3)
    pen.polygon("main+", (22, 76, 27, 76, 31, 104, 28, 104))
