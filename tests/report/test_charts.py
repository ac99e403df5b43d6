"""Charts: positions of points, their maximum number, and round ticks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtex.report.charts import HEIGHT, WIDTH, Series, binned, line_chart, number
from virtex.report.dot_charts import Measured, dot_chart
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


@given(
    st.lists(st.integers(1, 10**9), min_size=1, max_size=10, unique=True),
    st.floats(0, 100, allow_subnormal=False),
)
def test_a_logarithmic_axis_has_few_ticks_and_room_for_deviations(
    numbers: list[int], deviation: float
) -> None:
    points = tuple((float(number), 50.0) for number in sorted(numbers))
    series = Series("a", points, measured=True, deviations=(deviation,) * len(points))
    chart = line_chart("Score", [series], over="images", logarithmic=True)
    places = [x for x, _, _ in chart.lines[0].dots]
    assert places == sorted(places)
    assert all(chart.left <= x <= chart.right for x in places)
    assert all(0 <= y <= chart.bottom for _, *ends in chart.lines[0].whiskers for y in ends)
    assert 2 <= len({tick.label for tick in chart.x_ticks}) == len(chart.x_ticks) <= 7


def test_a_dot_chart_leaves_out_what_has_no_score_and_marks_the_best() -> None:
    measured = [Measured("a", 20.0, 5.0), Measured("b", None), Measured("c", 30.0)]
    chart = dot_chart("Score", measured, best={"c"})
    assert chart is not None
    first, second = chart.dots
    assert (first.text, first.is_best, second.text, second.is_best) == (
        "20.00 ± 5.00", False, "30.00", True,
    )  # fmt: skip
    assert first.reach is not None
    assert 0 <= first.reach[0] < first.at < first.reach[1] < second.at <= 100
    assert second.reach is None
    assert dot_chart("Score", measured[1:2], best=()) is None


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


def test_a_loss_is_written_with_three_digits_and_a_percentage_with_two_decimals() -> None:
    texts = [Measured("a", 0.0312, 0.004, in_nats=nats).text for nats in (False, True)]
    assert texts == ["0.03 ± 0.00", "0.0312 ± 4.0e-3"]
