"""The kinds of object that scenes show: how each is called, drawn and dressed."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Kind:
    """One kind of object."""

    name: str
    canvas: tuple[float, float]
    """Width and height in the units of its drawing."""
    height: float
    """Usual height, as a share of the picture's."""
    family: str = ""
    synonyms: tuple[str, ...] = ()
    """Other words for one of it."""
    plural: str = ""
    """Where adding an s does not make it."""
    weight: float = 1.0
    """How often it is chosen, relative to what else may stand in the same place."""
    colours: tuple[str, ...] = ()
    """Colours it comes in, named by captions; empty where it always looks the same."""
    patterned: bool = False
    """Whether it may be striped or spotted."""
    verb: str = "standing"
    """What it does when it does not swim under water."""
    most: int = 3
    """How many of it may stand together."""
    far: bool = False
    """Whether its place is in the background."""
    tilt: float = 0.0
    """Its largest turn to either side, in degrees."""


BRIGHT = ("red", "yellow", "green", "blue", "purple", "pink", "orange")
SOLID = (*BRIGHT, "white", "black", "brown")
FUR = ("brown", "black", "white", "gray", "orange")
VEHICLE = ("red", "blue", "yellow", "green", "white", "black", "orange")

# fmt: off
_ANIMALS = (
    Kind("dog", (132, 100), 0.36, plural="dogs", weight=8,
         colours=FUR, most=4),
    Kind("cat", (80, 100), 0.36, weight=7, colours=FUR,
         verb="sitting", most=4),
    Kind("horse", (132, 110), 0.44, weight=5,
         colours=("brown", "white", "black", "gray")),
    Kind("cow", (130, 96), 0.40, weight=4, colours=("brown", "white", "black"),
         most=4),
    Kind("sheep", (110, 90), 0.32, plural="sheep", weight=3,
         colours=("white", "white", "gray"), most=5),
    Kind("pig", (116, 80), 0.28, weight=1.5, colours=("pink", "pink", "black")),
    Kind("elephant", (148, 110), 0.48, weight=4, colours=("gray",)),
    Kind("giraffe", (98, 150), 0.64, weight=3.4, colours=("yellow",)),
    Kind("zebra", (134, 110), 0.42, weight=2.6, colours=("white",)),
    Kind("lion", (136, 100), 0.38, weight=1.6, colours=("orange",)),
    Kind("camel", (136, 110), 0.46, weight=4, colours=("brown",)),
    Kind("rabbit", (80, 92), 0.28, synonyms=("bunny",), weight=1.2,
         colours=("white", "gray", "brown"), verb="sitting", most=4),
    Kind("bear", (126, 95), 0.42, weight=1.6, colours=("brown", "black", "white")),
    Kind("bird", (112, 80), 0.22, weight=5, verb="flying", most=6, tilt=12,
         colours=("blue", "red", "yellow", "white", "black", "brown")),
    Kind("duck", (100, 80), 0.26, weight=5, verb="swimming", most=5,
         colours=("yellow", "white", "brown")),
    Kind("chicken", (94, 96), 0.27, synonyms=("hen",), weight=1.4, most=5,
         colours=("white", "brown", "red")),
    Kind("owl", (76, 98), 0.32, weight=1.2, colours=("brown", "gray", "white"),
         verb="sitting"),
    Kind("penguin", (70, 100), 0.36, weight=3.2, most=6),
    Kind("fish", (110, 70), 0.24, plural="fish", weight=6, colours=BRIGHT,
         patterned=True, most=7, tilt=8),
    Kind("whale", (142, 92), 0.38, weight=1.8, colours=("blue", "gray", "black"),
         verb="swimming", most=2),
    Kind("turtle", (120, 76), 0.28, weight=1.4, colours=("green", "brown"),
         verb="resting"),
    Kind("crab", (110, 75), 0.25, weight=1.4, colours=("red", "orange", "blue")),
    Kind("octopus", (100, 100), 0.36, plural="octopuses", weight=1.2,
         colours=("purple", "red", "pink", "orange"), most=2),
    Kind("butterfly", (100, 84), 0.22, plural="butterflies", weight=1,
         colours=("orange", "blue", "yellow", "pink", "purple"), verb="flying", most=4, tilt=25),
    Kind("snail", (106, 72), 0.22, weight=0.5, verb="resting",
         colours=("brown", "red", "yellow")),
)

_VEHICLES = (
    Kind("car", (140, 72), 0.30, synonyms=("automobile",), weight=8, colours=VEHICLE,
         verb="parked", most=4),
    Kind("bus", (140, 86), 0.40, plural="buses", weight=4, verb="parked", most=2,
         colours=("red", "yellow", "blue", "green", "orange")),
    Kind("truck", (140, 83), 0.38, synonyms=("lorry",), plural="trucks", weight=2.6,
         colours=VEHICLE, verb="parked", most=2),
    Kind("bicycle", (122, 82), 0.34, synonyms=("bike",), weight=2.8,
         colours=("red", "blue", "green", "yellow", "black", "pink"), verb="parked"),
    Kind("train", (140, 78), 0.38, weight=3, verb="standing", most=1,
         colours=("red", "green", "blue", "black")),
    Kind("tractor", (122, 98), 0.40, weight=2, verb="parked", most=2,
         colours=("red", "green", "blue", "orange")),
    Kind("sailboat", (110, 106), 0.46, synonyms=("boat",), weight=6,
         colours=("red", "blue", "green", "orange", "yellow"), verb="sailing", most=4),
    Kind("ship", (140, 93), 0.40, weight=2.4, verb="sailing", most=2,
         colours=("blue", "red", "black", "green")),
    Kind("airplane", (140, 70), 0.25, synonyms=("plane",), weight=4.5,
         colours=("red", "blue", "green", "orange", "yellow"), verb="flying", tilt=12),
    Kind("helicopter", (140, 80), 0.26, weight=1.4, verb="flying", tilt=8,
         colours=("red", "blue", "yellow", "green", "black"), most=2),
    Kind("hot air balloon", (80, 118), 0.38, weight=1.8, verb="floating",
         colours=BRIGHT, most=4),
    Kind("rocket", (60, 130), 0.44, weight=3, colours=("red", "blue", "orange"),
         verb="flying", most=2, tilt=35),
)

_BUILDINGS = (
    Kind("house", (120, 100), 0.50, synonyms=("cottage",), weight=4, far=True,
         colours=("white", "yellow", "blue", "pink", "green", "red")),
    Kind("castle", (120, 100), 0.56, weight=1, colours=("gray", "brown", "pink"),
         far=True, most=1),
    Kind("barn", (112, 99), 0.50, weight=2.4, colours=("red", "red", "brown",
                                                                       "white"),
         far=True, most=1),
    Kind("lighthouse", (70, 132), 0.62, weight=1.5, far=True, most=1,
         colours=("red", "blue", "black")),
    Kind("tent", (120, 80), 0.36, weight=1.8, verb="pitched",
         colours=("orange", "green", "blue", "red", "yellow")),
    Kind("windmill", (110, 130), 0.60, weight=0.7, far=True, most=2,
         colours=("white", "yellow", "gray")),
    Kind("igloo", (122, 78), 0.34, weight=1.2, most=2),
)

_STREET = (
    Kind("bench", (118, 72), 0.28, plural="benches", weight=1.6, most=2,
         colours=("brown", "green", "red", "blue")),
    Kind("street lamp", (48, 141), 0.58, synonyms=("lamp post",), weight=1.3,
         most=2, far=True),
    Kind("traffic light", (46, 141), 0.54, synonyms=("stoplight",),
         weight=2, most=2),
    Kind("stop sign", (79, 130), 0.50, weight=1.4, most=1),
    Kind("fire hydrant", (64, 98), 0.30, synonyms=("hydrant",), weight=1,
         colours=("red", "yellow", "blue"), most=2),
)

_PLANTS = (
    Kind("tree", (104, 117), 0.56, weight=6, far=True, most=4, verb="growing",
         colours=("green", "green", "green", "orange", "yellow")),
    Kind("pine tree", (80, 118), 0.54, synonyms=("fir tree",), weight=3, far=True,
         colours=("green",), most=5, verb="growing"),
    Kind("palm tree", (116, 120), 0.60, weight=3, most=3,
         far=True, verb="growing"),
    Kind("flower", (80, 100), 0.34, weight=2.6, most=6, verb="growing",
         colours=("red", "pink", "purple", "white", "blue", "orange")),
    Kind("tulip", (60, 100), 0.32, weight=1, colours=("red", "yellow", "pink",
                                                                    "purple"),
         most=6, verb="growing"),
    Kind("cactus", (80, 100), 0.46, plural="cacti", weight=4, most=4,
         verb="growing"),
    Kind("mushroom", (90, 96), 0.30, weight=1.6, verb="growing", most=5,
         colours=("red", "brown", "orange")),
    Kind("potted plant", (80, 108), 0.42, synonyms=("houseplant",), weight=1.6,
         colours=("brown", "white", "blue", "red"), most=2),
)

_FOOD = (
    Kind("apple", (90, 90), 0.30, weight=5, colours=("red", "green", "yellow"),
         verb="lying", most=6, tilt=12),
    Kind("banana", (112, 72), 0.26, weight=4, colours=("yellow",), verb="lying",
         most=4, tilt=15),
    Kind("pear", (80, 98), 0.33, weight=1.6, colours=("green", "yellow"), verb="lying",
         most=5, tilt=10),
    Kind("strawberry", (80, 96), 0.25, plural="strawberries", weight=1.4,
         colours=("red",), verb="lying", most=6, tilt=20),
    Kind("watermelon", (120, 70), 0.28, weight=1.1, verb="lying", most=2),
    Kind("carrot", (116, 64), 0.24, weight=1.2, colours=("orange",), verb="lying",
         most=5, tilt=15),
    Kind("pizza", (120, 84), 0.34, weight=3, verb="lying", most=2),
    Kind("hamburger", (100, 80), 0.33, synonyms=("burger",), weight=2,
         verb="lying"),
    Kind("cake", (110, 96), 0.42, weight=2.6, most=1,
         colours=("pink", "white", "brown", "blue", "purple")),
    Kind("donut", (100, 76), 0.28, synonyms=("doughnut",), weight=2, verb="lying",
         colours=("pink", "white", "brown", "blue"), most=5, tilt=10),
    Kind("ice cream", (68, 110), 0.38, synonyms=("ice cream cone",),
         plural="ice creams", weight=0.9, colours=("pink", "white", "brown", "green")),
)

_HOUSEHOLD = (
    Kind("cup", (88, 86), 0.28, synonyms=("mug",), weight=4, colours=SOLID,
         patterned=True, most=4),
    Kind("bottle", (50, 120), 0.48, weight=2.4, colours=("green", "brown", "blue",
                                                                        "red"),
         most=4),
    Kind("teapot", (120, 94), 0.34, weight=1.4, most=1,
         colours=("blue", "white", "red", "green", "pink")),
    Kind("vase", (76, 112), 0.48, weight=1.4, patterned=True, most=2,
         colours=("blue", "white", "purple", "green", "yellow")),
    Kind("umbrella", (120, 106), 0.44, synonyms=("parasol",), weight=2.2,
         colours=BRIGHT, most=3),
    Kind("ball", (100, 100), 0.23, weight=2.4, colours=BRIGHT, verb="lying", most=4,
         tilt=30),
    Kind("book", (120, 70), 0.24, weight=1.8, colours=("red", "blue", "green", "brown",
         "purple"), verb="lying", most=3),
    Kind("clock", (100, 100), 0.30, weight=1, colours=("red", "blue", "green",
                                                                     "black",
         "brown"), most=2),
    Kind("lamp", (80, 120), 0.52, weight=2, most=2,
         colours=("yellow", "red", "blue", "green", "white")),
    Kind("chair", (82, 112), 0.46, weight=3, most=3,
         colours=("brown", "red", "blue", "green", "white")),
    Kind("sofa", (140, 86), 0.42, synonyms=("couch",), weight=3.4, most=1, far=True,
         colours=("red", "blue", "green", "gray", "brown", "purple", "orange")),
    Kind("television", (120, 96), 0.40, synonyms=("tv",), weight=1.8, most=1,
         colours=("brown", "red", "gray", "white")),
    Kind("guitar", (60, 130), 0.52, weight=1, most=2,
         colours=("orange", "red", "brown", "blue")),
    Kind("balloon", (70, 120), 0.36, weight=1.2, colours=BRIGHT, verb="floating",
         most=6),
    Kind("kite", (88, 120), 0.34, weight=1.4, colours=BRIGHT, verb="flying", most=3,
         tilt=20),
    Kind("teddy bear", (90, 106), 0.36, weight=1.6, colours=("brown", "white",
         "pink"), verb="sitting"),
    Kind("snowman", (80, 119), 0.50, plural="snowmen", weight=2.6,
         colours=(), most=3),
    Kind("bucket", (84, 95), 0.27, weight=0.9, colours=("red", "blue", "yellow",
                                                                       "green")),
)

_TOOLS = (
    Kind("hammer", (86, 120), 0.48, weight=2.4, colours=("brown", "red", "blue"),
         verb="lying", most=2, tilt=40),
    Kind("saw", (140, 62), 0.30, weight=1.4, colours=("brown", "red", "blue", "orange"),
         verb="lying", most=2, tilt=12),
    Kind("wrench", (60, 120), 0.46, synonyms=("spanner",), plural="wrenches",
         weight=1.2, verb="lying", tilt=45),
    Kind("screwdriver", (50, 120), 0.42, weight=1.2, verb="lying", most=2,
         tilt=40,
         colours=("red", "yellow", "green", "blue")),
)

_SKY = (
    Kind("sun", (100, 100), 0.30, weight=5, verb="shining", most=1),
    Kind("moon", (100, 100), 0.24, weight=6, verb="shining", most=1),
    Kind("cloud", (138, 72), 0.24, weight=4, verb="floating", most=4),
    Kind("rainbow", (160, 84), 0.40, weight=1, verb="shining", most=1),
    Kind("planet", (120, 88), 0.40, weight=3, verb="floating", most=3,
         colours=("red", "orange", "blue", "green", "purple")),
)

_PEOPLE = (
    Kind("person", (58, 120), 0.50, plural="people", weight=8, most=4,
         colours=("red", "blue", "green", "yellow", "white", "pink", "orange")),
)
# fmt: on

_FAMILIES = {
    "animal": _ANIMALS,
    "vehicle": _VEHICLES,
    "building": _BUILDINGS,
    "street furniture": _STREET,
    "plant": _PLANTS,
    "food": _FOOD,
    "household": _HOUSEHOLD,
    "tool": _TOOLS,
    "sky": _SKY,
    "people": _PEOPLE,
}

KINDS: tuple[Kind, ...] = tuple(
    replace(kind, family=family) for family, kinds in _FAMILIES.items() for kind in kinds
)
CATEGORIES: tuple[str, ...] = tuple(kind.name for kind in KINDS)
KIND_IDS: dict[str, int] = {name: index for index, name in enumerate(CATEGORIES)}
