"""Charts: positions of points, their maximum number, and round ticks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtex.report.charts import HEIGHT, WIDTH, Series, binned, line_chart, number
from virtex.report.page import duration

VALUES = st.floats(-1e6, 1e6, allow_subnormal=False)


@given(st.lists(VALUES, min_size=1, max_size=30), st.booleans())
def test_every_point_lies_inside_the_chart(values: list[float], from_zero: bool) -> None:
    points = tuple((float(step), value) for step, value in enumerate(values))
    chart = line_chart("Loss", [Series("training", points, measured=True)], from_zero=from_zero)
    for x, y, _ in chart.lines[0].dots:
        assert chart.left <= x <= WIDTH
        assert 0 <= y <= chart.bottom < HEIGHT
    assert len({tick.label for tick in chart.y_ticks}) == len(chart.y_ticks) > 1


def test_higher_values_are_higher_up_and_later_steps_further_right() -> None:
    chart = line_chart("Loss", [Series("", ((0, 1.0), (50, 3.0), (100, 2.0)), measured=True)])
    (x0, y0, _), (x1, y1, _), (x2, y2, _) = chart.lines[0].dots
    assert x0 < x1 < x2
    assert y1 < y2 < y0


def test_binning_keeps_the_mean_and_bounds_the_number_of_points() -> None:
    points = [(float(step), float(step % 7)) for step in range(1000)]
    few = binned(points, most=100)
    assert len(few) == 100
    assert sum(value for _, value in few) / 100 == pytest.approx(sum(v for _, v in points) / 1000)
    assert binned(points[:5], most=100) == tuple(points[:5])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (2.5149, "2.51"),
        (48.92, "48.9"),
        (539.6, "540"),
        (12345.6, "12 346"),
        (0.0123, "0.0123"),
        (6.2e-6, "6.2e-6"),
        (-3.14159, "-3.14"),
        (999.7, "1000"),
    ],
)
def test_numbers_read_with_three_digits(value: float, text: str) -> None:
    assert number(value).replace("\N{NARROW NO-BREAK SPACE}", " ") == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(4.25, "4.2 s"), (59.97, "1 min 00 s"), (214.0, "3 min 34 s"), (7500, "2 h 05 min")],
)
def test_durations_are_readable(seconds: float, text: str) -> None:
    assert duration(seconds) == text
