"""How people and mammals are drawn; all face right, on a canvas that `kinds` gives."""

from collections.abc import Sequence

from virtex.data.sources.scenes.drawing import Pen

# fmt: off


def legs(pen: Pen, name: str, lefts: Sequence[float], *, top: float, foot: float, width: float,
         hoof: str = "") -> None:
    """Straight legs that start at `lefts` and stand on `foot`."""
    for left in lefts:
        pen.box(name, (left, top, left + width, foot), radius=width * 0.4)
        if hoof:
            pen.box(hoof, (left, foot - width * 0.6, left + width, foot), radius=1)


def eye(pen: Pen, x: float, y: float, *, radius: float = 3.0) -> None:
    """A dark eye with a glint."""
    pen.oval("ink", (x, y, radius, radius * 1.1))
    pen.oval("white", (x + radius * 0.3, y - radius * 0.4, radius * 0.34, radius * 0.34))


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


def dog(pen: Pen) -> None:
    pen.curve("main-", (16, 54, 5, 42, 8, 24), width=8)
    legs(pen, "main-", (34, 80), top=58, foot=97, width=10)
    pen.blob("main", (10, 56, 26, 45, 60, 48, 92, 40, 100, 54, 94, 72, 60, 70, 28, 76, 12, 70))
    legs(pen, "main", (18, 86), top=58, foot=99, width=11)
    pen.blob("main", (80, 58, 84, 28, 96, 11, 112, 14, 118, 24, 129, 30, 128, 42, 112, 47, 103, 62))
    pen.line("red", (86, 50, 104, 58), width=5)
    pen.oval("gold", (99, 61, 3.4, 3.4))
    pen.blob("main--", (92, 14, 100, 13, 102, 28, 97, 45, 87, 42, 87, 24))
    pen.oval("ink", (127, 31, 4.5, 4))
    pen.curve("main--", (114, 42, 120, 43, 126, 39), width=2)
    eye(pen, 110, 24, radius=3.2)


def cat(pen: Pen) -> None:
    pen.curve("main-", (56, 92, 78, 88, 78, 66, 70, 54), width=9)
    pen.blob("main", (40, 40, 58, 54, 65, 82, 60, 97, 40, 98, 20, 97, 15, 82, 22, 54))
    pen.oval("main+", (40, 64, 11, 15))
    pen.oval("main+", (31, 94, 9, 5))
    pen.oval("main+", (49, 94, 9, 5))
    pen.line("main-", (40, 80, 40, 95), width=2)
    pen.polygon("main", (16, 26, 18, 2, 38, 14))
    pen.polygon("main", (64, 26, 62, 2, 42, 14))
    pen.polygon("rose", (21, 19, 21, 8, 31, 14))
    pen.polygon("rose", (59, 19, 59, 8, 49, 14))
    pen.oval("main", (40, 30, 25, 21))
    for x in (34, 40, 46):
        pen.line("main-", (x, 11, x, 18), width=2.4)
    pen.oval("main+", (40, 39, 11, 8))
    for x in (29, 51):
        pen.oval("cheese+", (x, 27, 5.4, 5.8))
        pen.oval("ink", (x, 27, 2.2, 5))
    pen.polygon("blush-", (36, 34, 44, 34, 40, 39))
    for x, side in ((33, -1), (47, 1)):
        pen.line("main--", (x, 39, x + side * 18, 36), width=1)
        pen.line("main--", (x, 41, x + side * 18, 43), width=1)


def _horse_shape(pen: Pen, mane: str) -> None:
    pen.curve(mane, (12, 46, 3, 58, 6, 82), width=9)
    legs(pen, "main-", (31, 80), top=58, foot=108, width=8, hoof="ink")
    pen.blob("main", (10, 50, 24, 40, 58, 44, 86, 38, 98, 50, 92, 68, 60, 68, 28, 72, 12, 66))
    legs(pen, "main", (17, 88), top=56, foot=109, width=9, hoof="ink")
    pen.blob("main", (76, 52, 90, 22, 104, 8, 116, 12, 130, 30, 128, 38, 119, 39, 108, 32, 103, 46,
                      96, 60))
    pen.polygon("main-", (101, 11, 103, -1, 109, 10))


def horse(pen: Pen) -> None:
    _horse_shape(pen, "main--")
    pen.curve("main--", (104, 5, 91, 18, 80, 44), width=9)
    pen.curve("main--", (103, 6, 110, 10, 111, 17), width=5)
    eye(pen, 111, 19, radius=2.8)
    pen.oval("ink", (125, 33, 1.8, 1.8))


def zebra(pen: Pen) -> None:
    _horse_shape(pen, "ink")
    pen.pattern("striped", "ink", over="main", period=11)
    pen.pattern("striped", "ink", over="main-", period=13)
    pen.curve("ink", (104, 5, 91, 18, 80, 44), width=7)
    pen.oval("iron-", (125, 34, 5.5, 5))
    eye(pen, 111, 19, radius=3)


def cow(pen: Pen) -> None:
    patch = "ink" if pen.look.main[0] > 200 else "white"
    pen.curve("main-", (10, 34, 3, 50, 6, 68), width=4)
    pen.oval(patch, (6, 70, 4, 6))
    legs(pen, "main-", (28, 78), top=58, foot=92, width=11, hoof="ink")
    pen.oval("rose", (36, 69, 11, 8))
    pen.blob("main", (7, 34, 24, 26, 80, 27, 100, 30, 102, 56, 86, 67, 28, 70, 8, 60))
    legs(pen, "main", (14, 88), top=56, foot=94, width=12, hoof="ink")
    pen.blob(patch, (30, 28, 48, 28, 54, 42, 42, 54, 28, 46))
    pen.blob(patch, (68, 44, 82, 40, 88, 54, 76, 63, 66, 56))
    pen.curve("cream", (99, 16, 94, 8, 98, 2), width=4)
    pen.curve("cream", (113, 16, 119, 8, 115, 2), width=4)
    pen.oval("main-", (90, 23, 9, 5), turn=20)
    pen.blob("main", (94, 24, 100, 12, 116, 14, 122, 30, 122, 44, 110, 48, 98, 40))
    pen.blob(patch, (104, 12, 116, 14, 118, 26, 108, 26))
    pen.oval("rose", (115, 43, 11, 8))
    pen.oval("ink", (119, 42, 1.6, 2))
    pen.oval("ink", (111, 43, 1.6, 2))
    eye(pen, 106, 27, radius=3)


def sheep(pen: Pen) -> None:
    legs(pen, "ink", (26, 38, 64, 76), top=58, foot=89, width=7)
    wool = ((22, 48, 16), (34, 34, 17), (52, 29, 18), (70, 32, 17), (80, 46, 16), (68, 58, 16),
            (50, 62, 16), (32, 60, 16), (50, 46, 22))
    for x, y, r in wool:
        pen.oval("main", (x, y, r, r))
    for x, y in ((30, 42), (48, 36), (66, 42), (40, 56), (60, 56)):
        pen.arch("main-", (x, y, 7, 6), width=2)
    pen.oval("ink+", (78, 32, 10, 5), turn=25)
    pen.blob("ink+", (80, 26, 92, 20, 104, 28, 106, 44, 96, 54, 84, 44))
    for x, y in ((80, 24), (88, 18), (96, 20)):
        pen.oval("main", (x, y, 8, 7))
    pen.oval("white", (95, 33, 3.6, 3.6))
    pen.oval("ink", (96, 33, 2, 2))


def pig(pen: Pen) -> None:
    pen.curve("main-", (10, 38, 2, 34, 6, 26, 10, 32), width=3)
    legs(pen, "main-", (28, 74), top=54, foot=77, width=11, hoof="main--")
    pen.oval("main", (50, 42, 43, 26))
    legs(pen, "main", (18, 64), top=54, foot=79, width=12, hoof="main--")
    pen.polygon("main-", (72, 20, 74, 3, 88, 14))
    pen.oval("main", (88, 33, 20, 20))
    pen.polygon("main-", (88, 16, 98, 4, 102, 20))
    pen.oval("main-", (105, 38, 8, 9))
    pen.oval("main--", (103, 38, 1.7, 3))
    pen.oval("main--", (108, 38, 1.7, 3))
    eye(pen, 92, 28, radius=3)
    pen.curve("main--", (92, 46, 98, 49, 102, 47), width=2)


def elephant(pen: Pen) -> None:
    pen.curve("main-", (10, 44, 3, 58, 6, 74), width=4)
    legs(pen, "main-", (32, 74), top=60, foot=106, width=17)
    pen.blob("main", (7, 50, 20, 22, 58, 14, 92, 20, 104, 46, 96, 76, 52, 80, 14, 76))
    legs(pen, "main", (13, 84), top=60, foot=109, width=18)
    pen.curve("main", (124, 40, 136, 62, 132, 90, 142, 98), width=11)
    pen.oval("main", (112, 36, 21, 24))
    pen.curve("cream", (118, 56, 124, 68, 136, 68), width=5)
    pen.blob("main-", (100, 16, 86, 14, 76, 30, 80, 52, 92, 62, 104, 52, 107, 32))
    pen.blob("rose-", (98, 22, 88, 22, 83, 34, 86, 48, 93, 53, 100, 46, 102, 32))
    eye(pen, 117, 32, radius=3)


def giraffe(pen: Pen) -> None:
    pen.curve("main-", (10, 88, 4, 100, 7, 112), width=3)
    legs(pen, "main-", (25, 56), top=96, foot=147, width=7, hoof="umber")
    pen.blob("main", (8, 88, 24, 78, 54, 74, 70, 66, 74, 86, 64, 102, 36, 104, 12, 102))
    legs(pen, "main", (12, 62), top=92, foot=149, width=8, hoof="umber")
    pen.polygon("main", (50, 80, 66, 20, 78, 22, 74, 88))
    pen.pattern("spotted", "umber+", over="main", period=12)
    pen.curve("umber", (63, 24, 56, 50, 48, 74), width=4)
    pen.line("main-", (69, 10, 67, 2), width=2.4)
    pen.line("main-", (75, 10, 75, 2), width=2.4)
    pen.oval("umber", (67, 3, 2.6, 2.6))
    pen.oval("umber", (75, 3, 2.6, 2.6))
    pen.oval("main-", (60, 15, 7, 3.5), turn=-15)
    pen.blob("main+", (64, 12, 76, 8, 92, 20, 94, 28, 84, 31, 70, 28, 63, 22))
    pen.oval("ink", (89, 23, 1.5, 1.5))
    eye(pen, 76, 16, radius=2.8)


def lion(pen: Pen) -> None:
    pen.curve("main-", (14, 56, 2, 62, 4, 40), width=5)
    pen.oval("umber", (4, 37, 5, 7))
    legs(pen, "main-", (32, 72), top=62, foot=97, width=11)
    pen.blob("main", (10, 56, 24, 45, 60, 46, 88, 44, 92, 66, 60, 72, 28, 76, 12, 70))
    legs(pen, "main", (16, 80), top=60, foot=99, width=12)
    for x, y in ((76, 30), (82, 14), (98, 6), (114, 14), (120, 32), (114, 50), (98, 58), (82, 50)):
        pen.oval("umber", (x, y, 13, 13))
    pen.oval("umber", (98, 32, 24, 26))
    pen.oval("main", (84, 16, 6, 6))
    pen.oval("main", (112, 16, 6, 6))
    pen.oval("main", (98, 33, 18, 19))
    pen.oval("main+", (98, 43, 11, 8))
    pen.polygon("ink", (93, 36, 103, 36, 98, 42))
    pen.line("ink", (98, 41, 98, 46), width=1.8)
    eye(pen, 91, 29, radius=2.8)
    eye(pen, 105, 29, radius=2.8)


def camel(pen: Pen) -> None:
    pen.curve("main-", (12, 58, 4, 68, 6, 80), width=4)
    legs(pen, "main-", (30, 76), top=66, foot=108, width=8, hoof="main--")
    pen.blob("main", (8, 58, 22, 46, 26, 24, 40, 22, 48, 42, 58, 40, 64, 22, 78, 24, 84, 46, 94,
                      58, 86, 76, 52, 76, 16, 78))
    legs(pen, "main", (16, 82), top=64, foot=109, width=9, hoof="main--")
    pen.curve("main", (86, 62, 104, 66, 110, 44, 110, 22), width=13)
    pen.blob("main", (102, 18, 108, 8, 118, 10, 132, 20, 131, 28, 118, 29, 106, 28))
    pen.oval("main-", (106, 9, 3.4, 5))
    pen.blob("red", (42, 38, 50, 34, 60, 34, 64, 42, 62, 60, 44, 60))
    pen.line("gold", (43, 58, 63, 58), width=3)
    eye(pen, 115, 17, radius=2.6)
    pen.oval("ink", (128, 22, 1.4, 1.4))


def rabbit(pen: Pen) -> None:
    pen.oval("main+", (12, 76, 9, 9))
    pen.blob("main", (14, 80, 16, 56, 36, 46, 58, 56, 64, 78, 58, 90, 30, 91))
    pen.oval("main-", (28, 78, 13, 12))
    pen.oval("main", (27, 87, 15, 5))
    pen.oval("main", (57, 87, 9, 5))
    pen.oval("main-", (48, 18, 6, 18), turn=-12)
    pen.oval("main", (60, 17, 6.5, 18), turn=8)
    pen.oval("rose", (60.5, 18, 3, 13), turn=8)
    pen.oval("main", (58, 44, 17, 15))
    pen.oval("main+", (68, 49, 7, 6))
    pen.oval("blush-", (74, 46, 2.6, 2.2))
    eye(pen, 62, 40, radius=3)


def bear(pen: Pen) -> None:
    legs(pen, "main-", (32, 78), top=56, foot=92, width=15)
    pen.oval("main", (10, 42, 6, 6))
    pen.blob("main", (8, 54, 18, 30, 50, 22, 84, 22, 100, 38, 98, 62, 60, 72, 18, 74))
    legs(pen, "main", (12, 84), top=56, foot=94, width=17)
    pen.oval("main-", (92, 12, 7, 7))
    pen.oval("main", (110, 13, 7, 7))
    pen.oval("main", (102, 30, 21, 20))
    pen.oval("main+", (115, 36, 11, 9))
    pen.oval("ink", (123, 32, 4.5, 3.6))
    pen.curve("ink", (114, 42, 118, 42, 122, 39), width=1.6)
    eye(pen, 105, 26, radius=2.8)
