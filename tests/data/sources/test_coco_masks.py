import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from virtex.data.sources.coco_masks import outlines, polygon_areas

NUMBERS = st.floats(0, 600, width=32)
POLYGONS = st.lists(
    st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=8), min_size=1, max_size=5
)


def area_of(points: list[tuple[float, float]]) -> float:
    """The area of one polygon: the sum over its edges, in plain Python."""
    edges = zip(points, [*points[1:], points[0]], strict=True)
    return abs(sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in edges)) / 2


@given(POLYGONS)
def test_areas_equal_the_oracles(polygons: list[list[tuple[float, float]]]) -> None:
    starts = np.cumsum([0, *(2 * len(points) for points in polygons)])
    flat = np.asarray([number for points in polygons for point in points for number in point])
    expected = [area_of(points) for points in polygons]
    np.testing.assert_allclose(polygon_areas(flat, starts), expected, rtol=1e-6, atol=1e-6)


def test_a_line_has_no_area_wherever_it_lies() -> None:
    line = np.asarray([612.1, 433.7, 622.4, 453.9, 632.7, 474.1])
    assert polygon_areas(line, np.asarray([0, 6])) < 1e-9
    assert polygon_areas(np.zeros(0), np.zeros(1, np.int64)).shape == (0,)


@given(POLYGONS)
def test_outlines_equal_the_oracles(polygons: list[list[tuple[float, float]]]) -> None:
    starts = np.cumsum([0, *(2 * len(points) for points in polygons)])
    flat = np.asarray([number for points in polygons for point in points for number in point])
    expected = [
        sum(
            max(abs(x1 - x2), abs(y1 - y2))
            for (x1, y1), (x2, y2) in zip(points, [*points[1:], points[0]], strict=True)
        )
        for points in polygons
    ]
    np.testing.assert_allclose(outlines(flat, starts), expected, rtol=1e-6, atol=1e-6)
    assert outlines(np.zeros(0), np.zeros(1, np.int64)).shape == (0,)
