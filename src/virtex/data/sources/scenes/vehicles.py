"""How vehicles are drawn; all face right."""

from virtex.data.sources.scenes.drawing import Pen

# fmt: off


def wheel(pen: Pen, x: float, y: float, *, radius: float, hub: str = "steel") -> None:
    """A tyre with a hub."""
    pen.oval("tire", (x, y, radius, radius))
    pen.oval(hub, (x, y, radius * 0.56, radius * 0.56))
    pen.oval("iron", (x, y, radius * 0.2, radius * 0.2))


def car(pen: Pen) -> None:
    pen.blob("main", (26, 34, 40, 12, 54, 7, 80, 7, 96, 14, 112, 34, 112, 44, 24, 44))
    pen.polygon("window", (36, 31, 46, 14, 62, 12, 62, 31))
    pen.polygon("window", (67, 31, 67, 12, 82, 12, 92, 16, 104, 31))
    pen.polygon("ice", (70, 28, 76, 14, 82, 14, 76, 28))
    pen.blob("main", (4, 46, 8, 34, 30, 31, 66, 31, 110, 31, 132, 36, 137, 48, 134, 57, 70, 59, 6,
                      57))
    pen.box("main-", (6, 50, 134, 57), radius=3)
    pen.line("main--", (65, 33, 65, 50), width=1.4)
    pen.line("main--", (70, 38, 77, 38), width=2)
    pen.oval("lamp", (131, 41, 4.5, 4))
    pen.box("red", (4, 38, 9, 45), radius=2)
    for x in (34, 107):
        pen.oval("ink", (x, 55, 15.5, 15.5))
        wheel(pen, x, 56, radius=13)


def bus(pen: Pen) -> None:
    pen.box("main", (3, 4, 137, 72), radius=9)
    pen.box("main-", (3, 56, 137, 72), radius=5)
    pen.box("white", (3, 44, 137, 49))
    for left in (10, 31, 52, 73):
        pen.box("window", (left, 13, left + 17, 37), radius=3)
        pen.polygon("ice", (left + 4, 34, left + 10, 16, left + 13, 16, left + 7, 34))
    pen.box("window-", (94, 13, 111, 70), radius=2)
    pen.line("iron", (102.5, 14, 102.5, 70), width=1.5)
    pen.box("window", (116, 13, 137, 40), radius=3)
    pen.oval("lamp", (133, 61, 4, 4))
    pen.box("white", (20, 6, 80, 10), radius=2)
    for x in (24, 114):
        wheel(pen, x, 72, radius=12)


def truck(pen: Pen) -> None:
    pen.box("iron-", (4, 58, 134, 70), radius=2)
    pen.box("cream", (3, 4, 86, 60), radius=3)
    pen.box("main", (3, 30, 86, 38))
    for x in (22, 44, 66):
        pen.line("sand-", (x, 7, x, 28), width=1)
    pen.blob("main", (90, 64, 90, 18, 96, 14, 116, 15, 126, 36, 136, 42, 137, 64, 112, 67))
    pen.polygon("window", (101, 34, 101, 20, 114, 20, 121, 35))
    pen.line("main--", (98, 40, 98, 62), width=1.4)
    pen.oval("lamp", (134, 51, 3.6, 4.4))
    pen.box("steel", (124, 62, 139, 69), radius=2)
    for x in (22, 48, 114):
        wheel(pen, x, 69, radius=12)


def train(pen: Pen) -> None:
    pen.box("iron-", (6, 56, 132, 66))
    pen.box("main", (8, 8, 52, 60), radius=3)
    pen.box("main--", (4, 3, 56, 12), radius=4)
    pen.box("window", (16, 19, 42, 36), radius=3)
    pen.box("main", (48, 26, 122, 58), radius=12)
    pen.box("main+", (52, 30, 116, 35), radius=2)
    for x in (66, 88):
        pen.box("gold", (x, 26, x + 4, 58))
    pen.polygon("ink", (100, 28, 98, 6, 116, 6, 114, 28))
    pen.box("gold", (96, 3, 118, 9), radius=2)
    pen.oval("main--", (78, 26, 9, 8))
    pen.oval("lamp", (122, 38, 5, 6))
    pen.polygon("red", (118, 58, 139, 74, 118, 74))
    for x, radius in ((22, 13), (50, 13), (80, 10), (104, 10)):
        wheel(pen, x, 77 - radius, radius=radius, hub="red")
    pen.line("steel", (22, 66, 80, 68), width=3)


def tractor(pen: Pen) -> None:
    pen.line("iron", (88, 32, 88, 8), width=4)
    pen.box("main--", (30, 4, 74, 11), radius=3)
    pen.polygon("window", (36, 42, 40, 11, 68, 11, 70, 42))
    pen.line("main--", (52, 11, 52, 42), width=2.4)
    pen.blob("main", (34, 42, 64, 38, 108, 38, 116, 44, 116, 66, 60, 70, 36, 66))
    pen.box("main-", (88, 46, 114, 62), radius=2)
    for y in (49, 54, 59):
        pen.line("ink", (92, y, 110, y), width=1.6)
    pen.oval("lamp", (116, 44, 3.4, 3.4))
    pen.oval("tire", (36, 66, 30, 30))
    pen.oval("gold", (36, 66, 17, 17))
    pen.oval("iron", (36, 66, 6, 6))
    wheel(pen, 98, 80, radius=16, hub="gold")


def bicycle(pen: Pen) -> None:
    for x in (28, 96):
        pen.ring("tire", (x, 56, 25, 25), width=4)
        for dx, dy in ((21, 0), (0, 21), (15, 15), (15, -15)):
            pen.line("steel", (x - dx, 56 - dy, x + dx, 56 + dy), width=0.9)
    for points in ((28, 56, 46, 24, 84, 24, 58, 56, 28, 56), (46, 20, 58, 56), (80, 12, 96, 56)):
        pen.line("main", points, width=5)
    pen.line("ink", (34, 15, 54, 15), width=6)
    pen.line("ink", (46, 17, 47, 24), width=3)
    pen.curve("ink", (80, 12, 90, 8, 96, 14), width=4)
    pen.oval("iron", (58, 56, 7, 7))
    pen.line("ink", (58, 56, 62, 70), width=3)


def sailboat(pen: Pen) -> None:
    pen.line("wood-", (52, 4, 52, 84), width=3.4)
    pen.polygon("white", (56, 8, 96, 72, 56, 72))
    pen.polygon("cream", (48, 14, 48, 72, 14, 72))
    pen.polygon("main", (56, 44, 78, 44, 87, 58, 56, 58))
    pen.polygon("main", (48, 44, 31, 44, 22.5, 58, 48, 58))
    pen.polygon("main", (52, 3, 52, 12, 68, 8))
    pen.blob("main", (6, 80, 30, 83, 70, 83, 104, 77, 90, 100, 70, 104, 24, 102))
    pen.curve("white", (8, 85, 50, 89, 100, 82), width=3)


def ship(pen: Pen) -> None:
    for x in (50, 74):
        pen.box("main", (x, 6, x + 14, 34))
        pen.box("ink", (x, 4, x + 14, 11))
    pen.box("white", (30, 30, 108, 48), radius=3)
    pen.box("cream", (20, 46, 116, 64), radius=3)
    for x in (36, 50, 64, 78, 92):
        pen.box("window", (x, 35, x + 8, 43), radius=1)
    for x in (28, 42, 56, 70, 84, 98):
        pen.oval("window", (x + 2, 55, 3.4, 3.4))
    pen.polygon("main-", (2, 62, 138, 58, 122, 92, 16, 92))
    pen.polygon("white", (4, 66, 136, 62, 134, 66, 6, 70))
    for x in (30, 50, 70, 90, 110):
        pen.oval("window-", (x, 78, 3, 3))


def airplane(pen: Pen) -> None:
    pen.polygon("main", (6, 6, 22, 6, 40, 34, 16, 36))
    pen.polygon("steel", (58, 30, 44, 8, 56, 8, 86, 32))
    pen.blob("white", (8, 36, 22, 30, 70, 26, 118, 27, 137, 38, 132, 46, 90, 50, 40, 48, 12, 42))
    pen.blob("main", (12, 42, 40, 45, 90, 45, 135, 40, 130, 47, 90, 51, 40, 49))
    for x in range(38, 112, 9):
        pen.box("window", (x, 32, x + 4.6, 38), radius=2)
    pen.blob("window-", (118, 31, 127, 32, 131, 36, 119, 37))
    pen.polygon("steel-", (60, 42, 88, 42, 52, 68, 38, 68))
    pen.oval("iron", (66, 56, 9, 4.5))
    pen.polygon("steel-", (10, 36, 28, 37, 12, 48, 3, 48))


def helicopter(pen: Pen) -> None:
    pen.polygon("main-", (60, 30, 8, 24, 6, 30, 56, 46))
    pen.polygon("main", (2, 12, 12, 12, 18, 28, 6, 30))
    pen.ring("steel", (8, 24, 8, 8), width=1.8)
    pen.line("iron", (82, 22, 82, 10), width=4)
    pen.line("iron", (26, 8, 138, 8), width=3)
    pen.oval("ink", (82, 8, 5, 4))
    pen.blob("main", (52, 34, 66, 22, 96, 20, 122, 34, 130, 52, 116, 64, 76, 64, 56, 52))
    pen.blob("window", (98, 24, 114, 30, 125, 46, 98, 48))
    pen.box("window", (76, 27, 92, 44), radius=3)
    pen.line("iron", (78, 64, 74, 76), width=2.4)
    pen.line("iron", (110, 64, 112, 76), width=2.4)
    pen.line("iron", (60, 77, 128, 77), width=3)


def hot_air_balloon(pen: Pen) -> None:
    pen.line("umber", (26, 78, 34, 104), width=1.4)
    pen.line("umber", (54, 78, 46, 104), width=1.4)
    pen.blob("main", (40, 2, 66, 12, 77, 38, 66, 64, 52, 84, 28, 84, 14, 64, 3, 38, 14, 12))
    pen.blob("second", (40, 2, 53, 14, 57, 38, 52, 64, 46, 84, 34, 84, 28, 64, 23, 38, 27, 14))
    pen.blob("main+", (40, 2, 44, 14, 46, 38, 44, 64, 42, 84, 38, 84, 36, 64, 34, 38, 36, 14))
    pen.polygon("main--", (26, 80, 54, 80, 52, 87, 28, 87))
    pen.polygon("wood", (31, 102, 49, 102, 47, 117, 33, 117))
    pen.line("wood--", (31, 103, 49, 103), width=3)
    pen.line("wood--", (33, 110, 47, 110), width=1.2)


def rocket(pen: Pen) -> None:
    pen.blob("flame", (30, 94, 42, 104, 30, 129, 18, 104))
    pen.blob("sun", (30, 94, 36, 102, 30, 116, 24, 102))
    pen.blob("main-", (18, 62, 2, 84, 4, 100, 20, 90))
    pen.blob("main-", (42, 62, 58, 84, 56, 100, 40, 90))
    pen.blob("white", (30, 2, 44, 24, 48, 56, 42, 94, 30, 97, 18, 94, 12, 56, 16, 24))
    pen.blob("main", (30, 2, 41, 18, 44, 27, 30, 30, 16, 27, 19, 18))
    pen.oval("iron", (30, 48, 10, 10))
    pen.oval("window", (30, 48, 7, 7))
    pen.box("main", (15, 78, 45, 86))
