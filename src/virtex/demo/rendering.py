"""Answers as HTML; everything that was typed, said or found on disk is escaped."""

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib import colormaps
from matplotlib.colors import to_hex

from virtex.demo.answers import RATIO, SHARE, FoundPicture, Look
from virtex.demo.shelf import Shelf
from virtex.predict.attention_colors import Scale, ratio_scale, share_scale

FILES = Path(__file__).parent
NUM_STOPS = 9


def head(model: str) -> str:
    """The page's heading."""
    return _render("head.html", model=model)


def title(text: str, about: str) -> str:
    """The heading of a part of the page."""
    return _render("title.html", text=text, about=about)


def picker(shelf: Shelf, *, max_megabytes: int) -> str:
    """Where a photograph is dropped, chosen or picked from the examples."""
    examples = [(i, shelf.thumbnails[i], shelf.paths[i].name) for i in shelf.examples]
    return _render("picker.html", examples=examples, max_megabytes=max_megabytes)


def photo(look: Look) -> str:
    """A photograph with its captions, whose words show where the model looked."""
    return _render("look.html", look=look, colors=_scale_colors())


def labels(weights: Sequence[tuple[str, float]]) -> str:
    """Labels as bars."""
    return _render("labels.html", weights=weights)


def found(pictures: Sequence[FoundPicture], shelf: Shelf) -> str:
    """What a search found."""
    shown = [(one, shelf.thumbnails[one.index], shelf.paths[one.index].name) for one in pictures]
    return _render("found.html", shown=shown)


def asset(name: str) -> str:
    """A style sheet or script of the page."""
    return (FILES / name).read_text()


def colors_of(scale: Scale) -> str:
    """The colours of a scale as the stops of a CSS gradient."""
    places = [scale.reach * step / (NUM_STOPS - 1) for step in range(NUM_STOPS)]
    return ", ".join(to_hex(colormaps[scale.colormap](place)) for place in places)


def _scale_colors() -> dict[str, str]:
    scales = {SHARE: share_scale(np.zeros((1, 1), np.float32), num_cells=1), RATIO: ratio_scale()}
    return {kind: colors_of(scale) for kind, scale in scales.items()}


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("virtex.demo", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "percent": percent}
    return environment


def _render(template: str, **values: object) -> str:
    return _environment().get_template(template).render(values)


def number(value: float) -> str:
    """With one decimal and a true minus."""
    return f"{value:.1f}".replace("-", "−")


def percent(share: float) -> str:
    """A share of one as people say it: `38 %`, `0.4 %`, `below 0.1 %`."""
    if share < 0.001:
        return "below 0.1 %"
    return f"{100 * share:.{0 if share >= 0.0995 else 1}f} %"
