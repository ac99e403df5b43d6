"""The report on attention bias, `python -m benchmarks.attention_bias`, on grids of few cells."""

import numpy as np
import pytest

from benchmarks import attention_bias
from virtex.errors import ConfigError


@pytest.mark.parametrize(
    ("shape", "cells"),
    [((7, 7), 9), ((3, 3), 1), ((2, 2), 4), ((1, 3), 1), ((2, 5), 6), ((1, 1), 1)],
)
def test_the_center_leaves_a_third_on_each_side(shape: tuple[int, int], cells: int) -> None:
    usual = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    center = attention_bias.center_of(usual)
    assert center.size == cells
    assert center.mean() == pytest.approx(usual.mean())  # it lies in the middle


def report(grid: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    maps = rng.uniform(size=(2, 3, *grid)).astype(np.float32)
    maps /= maps.sum((2, 3), keepdims=True)
    monkeypatch.setattr(attention_bias, "word_maps", lambda *arguments: list(maps))
    attention_bias.report(None, [], [], "forward")  # type: ignore[arg-type]


@pytest.mark.parametrize("grid", [(2, 2), (2, 1), (3, 3)])
def test_every_statistic_of_a_small_grid_is_a_number(
    grid: tuple[int, int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report(grid, monkeypatch)
    shown = capsys.readouterr().out
    assert "nan" not in shown
    assert "central cells 0.0%" not in shown
    if grid == (2, 2):
        assert "central cells 100.0% of attention, 100.0% of cells" in shown


def test_a_single_cell_has_no_map_to_describe(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="one cell"):
        report((1, 1), monkeypatch)
