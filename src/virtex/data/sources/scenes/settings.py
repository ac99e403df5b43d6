"""Settings of scenes: the kinds that fit each, and the words of captions for it and its light."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Setting:
    """Setting of a scene, such as a beach; heights are shares of the image, from its top."""

    name: str
    weight: float
    horizon: float
    standing: tuple[str, ...]
    """Kinds that stand, lie or swim on the ground, table or water."""
    floating: tuple[str, ...]
    """Kinds that are in the air, under water or in space."""
    phrases: tuple[str, ...]
    """Phrases for the position of a standing object."""
    over: tuple[str, ...]
    """Phrases for the position of a floating object."""
    nouns: tuple[str, ...]
    """Nouns for the setting, with article."""
    lights: Mapping[str, float] = field(default_factory=dict)
    """Probability of each light of `palette.LIGHTS`."""
    near: tuple[float, float] = (0.74, 0.96)
    """Range of the feet of near objects."""
    far: tuple[float, float] = (0.62, 0.72)
    """Range of the feet of far objects."""
    air: tuple[float, float] = (0.14, 0.36)
    """Range of the middle of floating objects."""
    aloft: float = 0.42
    """Probability that a group after the first floats; above a half, the first may float too."""
    water: bool = False
    """Whether objects stand in water and are mirrored by it."""


_OPEN_AIR = {"day": 0.56, "dusk": 0.14, "night": 0.14, "fog": 0.08, "rain": 0.08}
_DRY = {"day": 0.62, "dusk": 0.2, "night": 0.18}
_INDOORS = {"day": 0.72, "lamplight": 0.28}
_TIMELESS = {"day": 1.0}


def _list(text: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in text.split(","))


_SKY = _list("sun, moon, cloud, bird, airplane")

SETTINGS: tuple[Setting, ...] = (
    Setting(
        "meadow", 15, 0.56,
        _list("""person, dog, cat, horse, cow, sheep, rabbit, tree, flower, tulip, house, windmill,
              ball, bicycle, bench, mushroom, snail, tent, castle, chicken"""),
        (*_SKY, "hot air balloon", "kite", "butterfly", "rainbow", "balloon", "helicopter"),
        ("in a meadow", "on the grass", "in a grassy field", "in the meadow"),
        ("over a meadow", "above the grass", "over a grassy field"),
        ("a meadow", "a grassy meadow", "a grassy field"),
        _OPEN_AIR,
    ),
    Setting(
        "farm", 7, 0.54,
        _list("""cow, pig, sheep, chicken, horse, tractor, barn, person, dog, tree, bucket,
              windmill"""),
        (*_SKY, "rainbow", "butterfly"),
        ("on a farm", "in a farm field", "on the farm", "in a wheat field"),
        ("over a farm", "above the fields", "over a wheat field"),
        ("a farm", "a farm field", "a wheat field"),
        _OPEN_AIR,
    ),
    Setting(
        "beach", 9, 0.42,
        _list("person, crab, turtle, umbrella, ball, palm tree, dog, bucket, lighthouse, bicycle"),
        (*_SKY, "kite", "balloon", "helicopter"),
        ("on a beach", "on the sand", "at the beach", "on a sandy beach"),
        ("over a beach", "above the sand", "over the beach"),
        ("a beach", "a sandy beach", "the seaside"),
        _OPEN_AIR, near=(0.78, 0.96), far=(0.66, 0.76),
    ),
    Setting(
        "sea", 8, 0.50, _list("sailboat, ship, whale, duck"),
        (*_SKY, "helicopter", "rainbow", "hot air balloon"),
        ("on the sea", "on the water", "on the ocean", "in the sea"),
        ("over the sea", "above the water", "over the ocean"),
        ("the sea", "the ocean", "open water"),
        _OPEN_AIR, near=(0.72, 0.9), far=(0.6, 0.66), water=True,
    ),
    Setting(
        "pond", 4, 0.40, _list("duck, tree, house, pine tree"),
        (*_SKY, "butterfly", "rainbow"),
        ("at a pond", "by a pond", "at the pond"),
        ("over a pond", "above a pond", "over the pond"),
        ("a pond", "a quiet pond", "a small lake"),
        _OPEN_AIR, near=(0.72, 0.92), far=(0.47, 0.5), water=True,
    ),
    Setting(
        "street", 15, 0.50,
        _list("""car, bus, truck, bicycle, person, house, traffic light, street lamp, stop sign,
              fire hydrant, bench, dog, cat, tree"""),
        (*_SKY, "helicopter", "balloon"),
        ("on a street", "on the street", "on a city street", "on the road"),
        ("over a street", "above the street", "over a city street"),
        ("a street", "a city street", "a road"),
        _OPEN_AIR, near=(0.74, 0.94), far=(0.64, 0.68),
    ),
    Setting(
        "snow", 7, 0.52,
        _list("penguin, snowman, igloo, pine tree, bear, rabbit, person, house, dog, owl"),
        (*_SKY, "hot air balloon"),
        ("in the snow", "on the snow", "in a snowy field", "on a snowy field"),
        ("over the snow", "above the snow", "over a snowy field"),
        ("a snowy field", "a winter landscape", "a snowy landscape"),
        {"day": 0.64, "dusk": 0.14, "night": 0.14, "fog": 0.08},
    ),
    Setting(
        "desert", 5, 0.52, _list("camel, cactus, tent, palm tree, car"),
        _list("sun, moon, cloud, airplane, hot air balloon"),
        ("in a desert", "in the desert", "on the desert sand"),
        ("over a desert", "over the desert", "above the sand dunes"),
        ("a desert", "a sandy desert", "a dry desert"),
        _DRY,
    ),
    Setting(
        "mountains", 5, 0.62,
        _list("tent, pine tree, bear, horse, sheep, train, person, owl"),
        (*_SKY, "hot air balloon", "rainbow", "helicopter"),
        ("in the mountains", "in front of the mountains", "at the foot of the mountains"),
        ("over the mountains", "above the mountains"),
        ("a mountain landscape", "the mountains", "a mountain valley"),
        _OPEN_AIR, far=(0.68, 0.74), near=(0.78, 0.96),
    ),
    Setting(
        "savanna", 5, 0.56, _list("elephant, giraffe, zebra, lion, tree"),
        _list("sun, moon, cloud, bird"),
        ("on the savanna", "on a savanna", "in the dry grass"),
        ("over the savanna", "above the dry grass"),
        ("a savanna", "the savanna", "a dry plain"),
        _DRY,
    ),
    Setting(
        "forest", 4, 0.58,
        _list("bear, rabbit, owl, mushroom, tent, snail, person, flower, fire hydrant"),
        _list("butterfly, bird"),
        ("in a forest", "in the forest", "in the woods"),
        ("in a forest", "in the woods"),
        ("a forest", "the woods", "a deep forest"),
        {"day": 0.66, "fog": 0.2, "night": 0.14},
    ),
    Setting(
        "sky", 6, 1.0, (),
        (*_SKY, "hot air balloon", "helicopter", "kite", "balloon", "rainbow", "butterfly"),
        (), ("in the sky", "high in the sky", "up in the air"),
        ("the sky", "the open sky", "a wide sky"),
        {"day": 0.66, "dusk": 0.18, "night": 0.16}, air=(0.2, 0.8),
    ),
    Setting(
        "underwater", 6, 1.0, ("crab", "turtle"),
        ("fish", "whale", "turtle", "octopus"),
        ("on the sea floor", "at the bottom of the sea", "under water"),
        ("under water", "under the sea", "in deep water"),
        ("an underwater scene", "the underwater world", "the deep sea"),
        _TIMELESS, near=(0.86, 0.97), far=(0.84, 0.9), air=(0.2, 0.68), aloft=0.78,
    ),
    Setting(
        "space", 2.2, 1.0, (), ("rocket", "planet", "moon"),
        (), ("in space", "in outer space", "among the stars"),
        ("outer space", "a space scene", "the dark of space"),
        _TIMELESS, air=(0.24, 0.76),
    ),
    Setting(
        "table", 14, 0.44,
        _list("""apple, banana, pear, strawberry, watermelon, carrot, pizza, hamburger, cake, donut,
              ice cream, cup, bottle, teapot, vase, book"""),
        (),
        ("on a table", "on the kitchen table", "on a wooden table", "on the table"),
        (), ("a kitchen table", "a wooden table", "a table"),
        _INDOORS, near=(0.72, 0.95), far=(0.60, 0.72),
    ),
    Setting(
        "workbench", 4, 0.46,
        _list("hammer, saw, wrench, screwdriver, bottle, cup, bucket, clock, lamp"), (),
        ("on a workbench", "on the workbench", "in a workshop"),
        (), ("a workbench", "a workshop", "a wooden workbench"),
        _INDOORS, near=(0.74, 0.95), far=(0.62, 0.74),
    ),
    Setting(
        "room", 12, 0.66,
        _list("""cat, dog, sofa, chair, television, lamp, potted plant, teddy bear, ball, guitar,
              clock, person, book, umbrella"""),
        ("balloon",),
        ("in a room", "in a living room", "on the floor of a room", "in the living room"),
        ("in a room", "in a living room"),
        ("a living room", "a room", "a cozy room"),
        _INDOORS, near=(0.80, 0.96), far=(0.72, 0.80), air=(0.26, 0.4),
    ),
)  # fmt: skip

LIGHT_PHRASES: dict[str, tuple[str, ...]] = {
    "day": ("in daylight", "during the day", "on a bright day", "in bright light"),
    "dusk": ("at sunset", "at dusk", "in the evening light", "at the end of the day"),
    "night": ("at night", "in the dark", "on a dark night", "during the night"),
    "fog": ("in the fog", "on a foggy day", "in thick fog", "on a misty morning"),
    "rain": ("in the rain", "on a rainy day", "in pouring rain", "while it rains"),
    "lamplight": ("in dim light", "in the evening", "in warm lamplight"),
}
"""Phrases for hour and weather; each may end a sentence."""

LIGHT_ADJECTIVES: dict[str, tuple[str, ...]] = {
    "day": ("bright",), "dusk": ("evening",), "night": ("dark",), "fog": ("foggy", "misty"),
    "rain": ("rainy", "wet"), "lamplight": ("dim",),
}  # fmt: skip
