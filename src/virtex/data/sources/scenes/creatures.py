"""How birds, fish and small creatures are drawn; all face right."""

from virtex.data.sources.scenes.drawing import Pen
from virtex.data.sources.scenes.mammals import eye

# fmt: off


def bird(pen: Pen) -> None:
    pen.polygon("main-", (26, 50, 2, 42, 4, 58, 24, 60))
    pen.blob("main-", (50, 44, 40, 20, 44, 3, 60, 16, 70, 42))
    pen.blob("main", (20, 54, 40, 40, 72, 34, 88, 42, 86, 56, 64, 68, 36, 66))
    pen.oval("main+", (64, 58, 18, 7))
    pen.oval("main", (86, 38, 14, 13))
    pen.polygon("beak", (97, 34, 111, 40, 97, 44))
    pen.blob("main--", (38, 48, 24, 24, 12, 12, 36, 14, 62, 36, 66, 50, 52, 56))
    eye(pen, 89, 36, radius=2.8)


def duck(pen: Pen) -> None:
    pen.polygon("main-", (14, 52, 2, 36, 26, 44))
    pen.blob("main", (6, 46, 28, 46, 58, 44, 74, 48, 76, 62, 62, 76, 28, 77, 12, 66))
    pen.blob("main", (58, 56, 60, 34, 62, 18, 80, 16, 80, 36, 76, 60))
    pen.oval("main", (72, 20, 15, 14))
    pen.blob("beak", (84, 18, 98, 22, 98, 28, 84, 28))
    pen.blob("main-", (22, 52, 44, 50, 60, 56, 48, 68, 28, 66))
    pen.curve("main--", (30, 62, 42, 63, 52, 59), width=1.6)
    eye(pen, 76, 17, radius=2.8)


def chicken(pen: Pen) -> None:
    pen.line("beak", (40, 70, 40, 92), width=3.4)
    pen.line("beak", (54, 70, 54, 92), width=3.4)
    pen.line("beak", (34, 93, 48, 93), width=3)
    pen.line("beak", (48, 93, 62, 93), width=3)
    pen.blob("main-", (24, 56, 4, 48, 2, 26, 14, 22, 20, 34, 36, 46))
    pen.blob("main", (16, 50, 34, 46, 56, 36, 62, 16, 76, 12, 82, 26, 78, 56, 60, 76, 34, 76))
    pen.blob("red", (62, 12, 62, 4, 68, 7, 72, 1, 76, 7, 82, 5, 80, 14, 72, 14))
    pen.polygon("beak", (80, 18, 92, 24, 80, 28))
    pen.oval("red", (80, 32, 3.6, 6))
    pen.blob("main-", (28, 52, 46, 50, 58, 56, 44, 68, 32, 64))
    eye(pen, 74, 20, radius=2.6)


def owl(pen: Pen) -> None:
    pen.polygon("main-", (14, 26, 13, 3, 34, 14))
    pen.polygon("main-", (62, 26, 63, 3, 42, 14))
    pen.blob("main", (38, 10, 62, 18, 68, 46, 64, 80, 38, 95, 12, 80, 8, 46, 14, 18))
    pen.blob("main+", (38, 46, 54, 54, 54, 80, 38, 90, 22, 80, 22, 54))
    for y in (58, 68, 78):
        for x in (31, 38, 45):
            pen.arch("main-", (x, y, 3.4, 4), width=1.8)
    pen.blob("main--", (10, 44, 20, 54, 20, 76, 12, 82, 6, 64))
    pen.blob("main--", (66, 44, 56, 54, 56, 76, 64, 82, 70, 64))
    for x in (26, 50):
        pen.oval("cream", (x, 31, 14, 14))
        pen.oval("gold", (x, 31, 9, 9))
        pen.oval("ink", (x, 31, 5, 5))
        pen.oval("white", (x + 2, 28, 2, 2))
    pen.polygon("beak", (33, 36, 43, 36, 38, 48))
    for x in (29, 47):
        pen.oval("beak", (x, 93, 7, 4))


def penguin(pen: Pen) -> None:
    pen.oval("beak", (25, 95, 10, 5))
    pen.oval("beak", (45, 95, 10, 5))
    pen.blob("navy-", (12, 44, 2, 64, 6, 76, 18, 62))
    pen.blob("navy-", (58, 44, 68, 64, 64, 76, 52, 62))
    pen.blob("navy", (35, 3, 52, 14, 56, 40, 60, 74, 50, 94, 20, 94, 10, 74, 14, 40, 18, 14))
    pen.blob("white", (35, 36, 48, 48, 51, 72, 44, 91, 26, 91, 19, 72, 22, 48))
    pen.oval("white", (27, 24, 8, 9))
    pen.oval("white", (43, 24, 8, 9))
    pen.oval("ink", (29, 23, 2.8, 3))
    pen.oval("ink", (41, 23, 2.8, 3))
    pen.polygon("beak", (28, 29, 42, 29, 35, 38))


def fish(pen: Pen) -> None:
    pen.blob("main-", (28, 36, 8, 14, 3, 18, 12, 36, 3, 54, 8, 58))
    pen.blob("main-", (46, 20, 56, 4, 78, 8, 76, 20))
    pen.blob("main-", (52, 50, 54, 66, 66, 64, 68, 50))
    pen.blob("main", (20, 36, 40, 18, 68, 12, 96, 22, 107, 36, 96, 50, 68, 58, 40, 54))
    pen.blob("main+", (34, 46, 60, 50, 94, 44, 84, 53, 62, 57, 42, 53))
    pen.curve("main--", (84, 20, 78, 34, 84, 50), width=2.4)
    pen.blob("main-", (58, 36, 72, 34, 70, 46, 58, 46))
    pen.oval("white", (93, 30, 5.6, 5.6))
    pen.oval("ink", (94, 30, 3, 3.2))
    pen.curve("main--", (106, 38, 101, 41, 97, 41), width=2)


def whale(pen: Pen) -> None:
    pen.curve("ice", (104, 26, 102, 12, 92, 6), width=4)
    pen.curve("ice", (104, 26, 106, 12, 116, 6), width=4)
    pen.blob("main-", (18, 48, 2, 34, 2, 22, 16, 28, 24, 16, 32, 22, 30, 46))
    pen.blob("main", (16, 44, 34, 52, 60, 32, 92, 24, 124, 32, 136, 54, 126, 76, 90, 84, 50, 80,
                      24, 64))
    pen.blob("ice", (60, 78, 90, 70, 134, 62, 124, 78, 92, 85))
    for offset in (0, 6, 12):
        pen.curve("main-", (84 + offset, 82 - offset * 0.3, 104 + offset, 76, 126,
                            69 - offset * 0.1), width=1.2)
    pen.blob("main-", (82, 68, 96, 66, 92, 84, 78, 92))
    eye(pen, 116, 56, radius=3)


def turtle(pen: Pen) -> None:
    pen.polygon("leaf+", (10, 54, 1, 62, 16, 60))
    pen.blob("leaf+", (24, 52, 38, 54, 34, 72, 20, 70))
    pen.blob("leaf+", (72, 52, 88, 52, 86, 72, 72, 70))
    pen.curve("leaf+", (88, 52, 98, 46, 104, 36), width=12)
    pen.oval("leaf+", (106, 32, 12, 11))
    pen.blob("main", (8, 56, 14, 30, 36, 12, 64, 12, 84, 30, 92, 56, 50, 61))
    pen.box("main-", (8, 52, 92, 60), radius=4)
    plates = ((50, 18, 62, 26, 58, 40, 42, 40, 38, 26), (26, 28, 36, 32, 38, 46, 22, 48),
              (74, 28, 64, 32, 62, 46, 78, 48))
    for points in plates:
        pen.polygon("main--", points)
    eye(pen, 109, 29, radius=2.4)
    pen.curve("stem-", (108, 38, 113, 38, 117, 35), width=1.6)


def crab(pen: Pen) -> None:
    for side in (-1, 1):
        for reach, foot in ((34, 66), (40, 58), (42, 48)):
            pen.curve(
                "main-",
                (55 + side * 22, 46, 55 + side * reach, 42, 55 + side * (reach + 8), foot),
                width=5,
            )
        pen.curve("main", (55 + side * 26, 40, 55 + side * 42, 34, 55 + side * 42, 22), width=7)
        pen.oval("main", (55 + side * 42, 17, 12, 13))
        pen.polygon("", (55 + side * 42, 20, 55 + side * 37, 0, 55 + side * 47, 0))
        pen.line("main", (55 + side * 10, 34, 55 + side * 12, 20), width=3)
        pen.oval("white", (55 + side * 12, 17, 6, 6))
        pen.oval("ink", (55 + side * 12, 17, 3, 3.4))
    pen.blob("main", (22, 46, 32, 33, 55, 29, 78, 33, 88, 46, 76, 62, 55, 66, 34, 62))
    pen.curve("main--", (44, 52, 55, 57, 66, 52), width=2.4)
    for x in (36, 74):
        pen.oval("main+", (x, 44, 4, 3))


def octopus(pen: Pen) -> None:
    for points in ((34, 56, 18, 74, 4, 70), (38, 60, 28, 86, 12, 92), (45, 62, 42, 86, 34, 96),
                   (55, 62, 58, 86, 66, 96), (62, 60, 72, 86, 88, 92), (66, 56, 82, 74, 96, 70)):
        pen.curve("main-", points, width=10)
        pen.curve("main", points, width=7)
    pen.blob("main", (50, 4, 72, 12, 80, 36, 70, 62, 50, 68, 30, 62, 20, 36, 28, 12))
    for x, y in ((34, 22), (44, 14), (64, 20)):
        pen.oval("main+", (x, y, 4, 3.4))
    for x in (40, 60):
        pen.oval("white", (x, 42, 7, 8))
        pen.oval("ink", (x + 1, 43, 3.6, 4.4))
    pen.curve("main--", (44, 56, 50, 59, 56, 56), width=2.4)


def butterfly(pen: Pen) -> None:
    for side in (-1, 1):

        def across(*points: float, side: int = side) -> list[float]:
            """Points given as distance from the body and height."""
            return [50 + side * v if i % 2 == 0 else v for i, v in enumerate(points)]

        pen.blob("ink", across(2, 38, 14, 10, 38, 2, 48, 16, 40, 40, 14, 48))
        pen.blob("main", across(5, 38, 16, 14, 36, 7, 43, 17, 36, 36, 14, 44))
        pen.blob("ink", across(2, 46, 20, 46, 38, 54, 36, 74, 20, 82, 6, 64))
        pen.blob("main-", across(5, 49, 20, 50, 33, 56, 31, 71, 20, 76, 8, 62))
        pen.oval("white", (50 + side * 32, 18, 4.5, 4))
        pen.oval("main+", (50 + side * 20, 29, 6, 7))
        pen.oval("main+", (50 + side * 22, 62, 5, 5.5))
        pen.curve("ink", across(1, 26, 6, 12, 13, 8), width=1.8)
    pen.oval("ink", (50, 46, 4, 24))
    pen.oval("ink", (50, 24, 5, 5))


def snail(pen: Pen) -> None:
    pen.blob("sand-", (4, 66, 24, 54, 64, 52, 78, 46, 82, 28, 96, 24, 102, 36, 94, 60, 78, 68, 40,
                       69))
    pen.line("sand-", (88, 28, 84, 12), width=3)
    pen.line("sand-", (96, 27, 100, 12), width=3)
    pen.oval("ink", (84, 11, 3.2, 3.2))
    pen.oval("ink", (100, 11, 3.2, 3.2))
    pen.oval("main", (46, 36, 31, 29))
    pen.oval("main--", (46, 37, 24, 22))
    pen.oval("main", (45, 37, 20, 18))
    pen.oval("main--", (44, 38, 14, 12.5))
    pen.oval("main+", (44, 38, 10, 8.5))
    pen.oval("main--", (44, 38, 4, 3.6))
    pen.curve("sand--", (92, 46, 96, 46, 99, 43), width=1.8)
