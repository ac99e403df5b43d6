import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as reference

from virtex.data.sources.coco_masks import is_blank, polygon_areas

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


@pytest.mark.parametrize("covered", [[], [(0, 0)], [(5, 7)], [(0, 0), (5, 7)], "all"])
def test_run_lengths_are_blank_where_they_cover_nothing(covered: object) -> None:
    mask = np.zeros((60, 80), np.uint8, order="F")
    for place in [...] if covered == "all" else covered:  # type: ignore[attr-defined]
        mask[place] = 1
    compressed = reference.encode(mask)["counts"].decode()
    flat = mask.ravel(order="F")
    edges = [0, *(np.flatnonzero(np.diff(flat)) + 1).tolist(), flat.size]
    counts = [0] * int(flat[0]) + np.diff(edges).tolist()
    assert is_blank(compressed) == is_blank(counts) == (not mask.any())
