"""How food is drawn."""

from virtex.data.sources.scenes.drawing import Pen

# fmt: off


def apple(pen: Pen) -> None:
    pen.blob("main", (45, 24, 66, 16, 84, 32, 82, 62, 64, 86, 45, 82, 26, 86, 8, 62, 6, 32, 24, 16))
    pen.oval("main+", (26, 38, 8, 13), turn=-20)
    pen.curve("bark", (45, 26, 44, 14, 50, 4), width=4.5)
    pen.blob("leaf", (48, 16, 60, 4, 76, 6, 66, 18))


def banana(pen: Pen) -> None:
    pen.blob("yellow", (10, 16, 18, 12, 34, 36, 62, 46, 92, 36, 104, 28, 108, 34, 92, 58, 58, 70,
                        26, 54))
    pen.curve("yellow-", (16, 26, 34, 48, 62, 57, 98, 38), width=2.6)
    pen.blob("bark", (9, 18, 10, 4, 17, 4, 19, 14))
    pen.oval("umber", (106, 30, 4, 4))


def pear(pen: Pen) -> None:
    pen.blob("main", (40, 12, 52, 22, 56, 42, 72, 60, 70, 86, 40, 96, 10, 86, 8, 60, 24, 42, 28,
                      22))
    pen.oval("main+", (26, 62, 7, 13))
    pen.curve("bark", (40, 16, 40, 8, 46, 2), width=4)
    pen.blob("leaf", (42, 12, 52, 2, 66, 6, 56, 15))


def strawberry(pen: Pen) -> None:
    pen.blob("red", (40, 22, 62, 18, 74, 34, 64, 66, 40, 94, 16, 66, 6, 34, 18, 18))
    for x, y in ((24, 36), (40, 38), (56, 36), (30, 52), (48, 53), (40, 68), (62, 48), (18, 48)):
        pen.oval("gold+", (x, y, 2, 3))
    pen.blob("leaf", (40, 16, 56, 8, 68, 20, 54, 24, 46, 34, 40, 24, 34, 34, 26, 24, 12, 20, 24, 8))
    pen.curve("stem", (40, 16, 40, 8, 44, 3), width=4)


def watermelon(pen: Pen) -> None:
    pen.pie("leaf-", (60, 12, 57, 56), start=0, end=180)
    pen.pie("leaf+", (60, 12, 53, 51), start=0, end=180)
    pen.pie("cream", (60, 12, 49, 46), start=0, end=180)
    pen.pie("melon", (60, 12, 46, 42), start=0, end=180)
    for x, y in ((28, 22), (44, 24), (60, 22), (76, 24), (92, 22), (38, 36), (54, 40), (70, 38),
                 (82, 34)):
        pen.oval("ink", (x, y, 2, 3.4))


def carrot(pen: Pen) -> None:
    for points in ((84, 22, 98, 4), (86, 26, 112, 12), (86, 30, 112, 28)):
        pen.curve("leaf", points, width=6)
    pen.blob("orange", (4, 60, 40, 30, 74, 12, 90, 20, 90, 36, 76, 44, 44, 54))
    rings = ((66, 18, 72, 26), (50, 27, 56, 34), (74, 42, 70, 34), (34, 37, 38, 43),
             (58, 48, 54, 42))
    for points in rings:
        pen.line("orange-", points, width=2)


def pizza(pen: Pen) -> None:
    pen.oval("crust-", (60, 44, 57, 38))
    pen.oval("crust", (60, 41, 57, 38))
    pen.oval("melon-", (60, 41, 49, 32))
    pen.oval("cheese", (60, 40, 46, 29))
    for x, y in ((40, 30), (68, 24), (84, 42), (58, 46), (34, 50), (74, 60), (52, 62)):
        pen.oval("brick", (x, y, 8, 6))
        pen.oval("red", (x - 0.6, y - 0.8, 6, 4.4))
    for x, y in ((54, 32), (78, 34), (46, 42), (70, 50), (90, 52), (28, 40)):
        pen.oval("leaf", (x, y, 3.6, 1.8), turn=30)


def hamburger(pen: Pen) -> None:
    pen.box("crust", (8, 58, 92, 78), radius=9)
    pen.blob("leaf+", (4, 52, 20, 48, 50, 50, 80, 48, 96, 52, 84, 60, 68, 54, 50, 61, 32, 54, 16,
                       60))
    pen.box("chocolate", (7, 42, 93, 55), radius=6)
    pen.polygon("cheese", (8, 41, 92, 41, 76, 52, 62, 44, 36, 44, 24, 52))
    pen.box("red", (10, 36, 90, 42), radius=3)
    pen.blob("crust", (7, 36, 12, 16, 34, 5, 66, 5, 88, 16, 93, 36, 50, 39))
    pen.blob("dough", (18, 22, 32, 11, 60, 9, 46, 16, 28, 22))
    for x, y in ((34, 18), (50, 12), (64, 18), (48, 25), (76, 25)):
        pen.oval("cream", (x, y, 2.6, 1.7), turn=20)


def cake(pen: Pen) -> None:
    pen.oval("steel+", (55, 84, 53, 10))
    pen.box("dough", (14, 42, 96, 84), radius=5)
    pen.oval("dough", (55, 82, 41, 8))
    pen.box("main-", (14, 60, 96, 66))
    pen.box("main", (12, 34, 98, 50), radius=7)
    for x, drop in ((20, 58), (34, 54), (48, 60), (64, 55), (78, 60), (91, 54)):
        pen.line("main", (x, 44, x, drop), width=10)
    pen.oval("main+", (55, 36, 42, 8))
    for x, stick in ((32, "blue"), (55, "white"), (78, "red")):
        pen.box(stick, (x - 2.4, 16, x + 2.4, 36), radius=1)
        pen.blob("flame", (x, 3, x + 4, 11, x, 16, x - 4, 11))


def donut(pen: Pen) -> None:
    pen.oval("crust", (50, 40, 47, 34))
    pen.blob("main", (50, 5, 80, 12, 95, 34, 90, 52, 76, 58, 66, 66, 50, 62, 34, 67, 22, 56, 10,
                      52, 6, 34, 20, 12))
    pen.oval("crust-", (50, 36, 16, 11))
    pen.oval("", (50, 38, 12, 7.6))
    sprinkles = (
        (24, 28, 30, "white"), (40, 16, -40, "sun"), (62, 16, 20, "blue"), (78, 28, 60, "white"),
        (22, 44, -20, "sun"), (78, 46, 10, "leaf+"), (40, 56, 70, "blue"), (62, 55, -30, "white"),
    )
    for x, y, turn, tone in sprinkles:
        pen.oval(tone, (x, y, 5, 1.9), turn=turn)


def ice_cream(pen: Pen) -> None:
    pen.polygon("crust", (12, 48, 56, 48, 34, 108))
    for x in (22, 32, 42):
        pen.line("crust-", (x - 6, 50, x + 6, 84 - abs(x - 32)), width=1.4)
        pen.line("crust-", (x + 10, 50, x - 2, 82 - abs(x - 30)), width=1.4)
    pen.oval("main-", (24, 40, 20, 18))
    pen.oval("main", (46, 40, 19, 18))
    pen.oval("main+", (34, 23, 20, 20))
    pen.box("crust-", (9, 46, 59, 53), radius=3)
    pen.oval("red", (36, 4.6, 4.5, 4.5))
