import math
from itertools import count

import pytest
import torch

from virtex.engine.meter import LossWindow, Speed
from virtex.errors import VirTexError

CPU = torch.device("cpu")


def fill(window: LossWindow, losses: list[float], norms: list[float] | None = None) -> None:
    for loss, norm in zip(losses, norms or [1.0] * len(losses), strict=True):
        window.add({"loss": torch.tensor(loss), "grad_norm": torch.tensor(norm)})


def test_a_window_returns_means_and_restarts() -> None:
    window = LossWindow()
    fill(window, [1.0, 2.0, 6.0])
    assert window.read(3)["loss"] == 3.0
    fill(window, [5.0])
    assert window.read(4)["loss"] == 5.0


def test_the_first_bad_step_and_its_parts_are_named() -> None:
    window = LossWindow()
    fill(window, [1.0, 2.0, math.nan, math.inf], [1.0, 1.0, math.nan, 1.0])
    with pytest.raises(VirTexError, match=r"loss and grad_norm not finite, first at step 13\."):
        window.check(14)


def test_an_infinite_gradient_is_an_error_unless_the_scaler_skips_the_step() -> None:
    window = LossWindow()
    fill(window, [1.0, 1.0], [2.0, math.inf])
    with pytest.raises(VirTexError, match="grad_norm"):
        window.read(2)
    window = LossWindow(exempt="grad_norm")
    fill(window, [1.0, 3.0, 5.0], [2.0, math.inf, 4.0])
    assert window.read(3) == {"loss": 3.0, "grad_norm": 3.0, "skipped_steps": 1.0}


def test_a_restored_window_gives_the_same_record() -> None:
    whole, saved, resumed = LossWindow(), LossWindow(), LossWindow()
    fill(whole, [1.0, 2.0, 6.0])
    fill(saved, [1.0, 2.0])
    saved.check(2)
    resumed.load_state_dict(saved.state_dict(), CPU)
    fill(resumed, [6.0])
    assert resumed.read(3) == whole.read(3)


def test_speed_excludes_pauses_and_measures_the_fraction_of_waiting() -> None:
    ticks = count()  # each look at the clock is a second later
    speed = Speed(clock=lambda: float(next(ticks)))  # began at 0
    batches = iter(range(10))
    assert speed.next(batches) == 0  # 1 to 2: a second of waiting
    speed.count(30)
    with speed.pause():  # 3 to 4
        pass
    read = speed.read()  # at 5: five seconds less a second of pause
    assert read == {"images_per_second": 30 / 4, "data_wait": 1 / 4}
