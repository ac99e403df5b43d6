"""Draw each kind: by the strokes in `drawings/*.txt`, or by a function of `varying_drawings`.

A drawing begins with the kind's name; each line below it is one stroke of `Pen`: the verb, the
color, the options, and after a colon the coordinates of one shape or of several, with commas
between them. A line that is indented further continues the one above.

    apple
        blob main: 45 24 66 16 84 32 82 62 64 86 45 82 26 86 8 62 6 32 24 16
        oval main+ turn=-20: 26 38 8 13
"""

from collections.abc import Callable, Iterator
from functools import lru_cache
from operator import methodcaller
from pathlib import Path

from virtex.data.sources.scenes.drawing import Pen
from virtex.data.sources.scenes.varying_drawings import VARYING_DRAWINGS

Stroke = Callable[[Pen], None]

_TEXT_OPTIONS = ("style", "over")


def draw_kind(pen: Pen, name: str) -> None:
    """Draw one object of a kind; it faces right, on the canvas that `kinds` gives."""
    if name in VARYING_DRAWINGS:
        VARYING_DRAWINGS[name](pen)
        return
    for stroke in _drawings()[name]:
        stroke(pen)


@lru_cache(maxsize=1)
def _drawings() -> dict[str, list[Stroke]]:
    """Return the strokes of each kind that `drawings/*.txt` holds."""
    drawings: dict[str, list[Stroke]] = {}
    strokes: list[Stroke] = []
    for path in sorted((Path(__file__).parent / "drawings").glob("*.txt")):
        for line in path.read_text().replace("\n        ", " ").splitlines():
            if line.startswith(" "):
                strokes += _strokes(line)
            else:
                strokes = drawings[line] = []
    return drawings


def _strokes(line: str) -> Iterator[Stroke]:
    brush, _, shapes = line.partition(":")
    verb, color, *texts = brush.split()
    pairs = [text.split("=") for text in texts]
    options = {key: value if key in _TEXT_OPTIONS else float(value) for key, value in pairs}
    if not shapes:
        yield methodcaller(verb, color, **options)
        return
    for shape in shapes.split(","):
        yield methodcaller(verb, color, tuple(map(float, shape.split())), **options)
