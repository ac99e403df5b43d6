"""Each monitor on series of numbers: what it names, when, and how often."""

import json
import math
from collections.abc import Iterable

import pytest

from virtex.monitors.history import WINDOW, Chance, Facts, History
from virtex.monitors.monitors import MONITORS, NUM_QUIET, PREFIX, Alarm, Monitors

EVERY = 20
Values = list[float]


def train_records(
    losses: Iterable[float], *, every: int = EVERY, **others: Values
) -> list[dict[str, float]]:
    """Records of training, others by name without `train/`."""
    return [
        {
            "step": every * (number + 1),
            "train/loss": loss,
            **{f"train/{name}": values[number] for name, values in others.items()},
        }
        for number, loss in enumerate(losses)
    ]


def observed(monitors: Monitors, records: Iterable[dict[str, float]]) -> dict[str, list[int]]:
    """Steps of the alarms by name."""
    found: dict[str, list[int]] = {}
    for record in records:
        for alarm in monitors.observe(record):
            found.setdefault(alarm.name, []).append(alarm.step)
    return found


def validated(trained: Values, validations: Values, **others: Values) -> list[dict[str, float]]:
    """A validation after every five records of training, all of one loss."""
    records: list[dict[str, float]] = []
    for number, (loss, validation) in enumerate(zip(trained, validations, strict=True), 1):
        first = 5 * (number - 1)
        records += [{"step": EVERY * (first + i), "train/loss": loss} for i in range(1, 6)]
        extra = {f"val/{name}": values[number - 1] for name, values in others.items()}
        records.append({"step": 5 * EVERY * number, "val/loss": validation, **extra})
    return records


def falling(first: float, last: float, number: int) -> Values:
    return [last + (first - last) * math.exp(-5 * i / number) for i in range(number)]


CLIP = Facts(chance={"contrastive": Chance(math.log(32), "ln(batch)")}, warmup_steps=10)


def test_a_loss_that_stays_at_ln_batch_is_named_with_what_to_try() -> None:
    monitors = Monitors(CLIP)
    losses = [3.6, *[3.47] * 20]
    alarms = [
        alarm
        for record in train_records(losses, contrastive=losses)
        for alarm in monitors.observe(record)
    ]
    assert [alarm.name for alarm in alarms] == ["stuck_at_chance"]
    assert alarms[0].step <= 2 * WINDOW + EVERY
    assert "contrastive stays at 3.47; ln(batch) is 3.47. Try: " in alarms[0].text


def test_a_run_with_nothing_to_predict_is_named() -> None:
    monitors, zeros = Monitors(Facts()), [0.0] * 20
    records = [
        *train_records(zeros, grad_norm=zeros),
        {"step": 21 * EVERY, "val/loss": 0.0, "val/shuffled_rise": 0.0},
        {"step": 22 * EVERY, "val/loss": 0.0, "val/shuffled_rise": 0.0},
    ]
    alarms = [alarm for record in records for alarm in monitors.observe(record)]
    assert [alarm.name for alarm in alarms] == ["nothing_to_learn"]
    assert "exactly 0. Try: there is nothing to predict" in alarms[0].text
    learning = train_records([0.0, *[1e-6] * 20], grad_norm=[*zeros, 0.0])
    assert not [alarm for record in learning for alarm in Monitors(Facts()).observe(record)]


def test_a_loss_above_chance_that_falls_is_given_time() -> None:
    losses = falling(8.0, 3.4, 12)
    assert not observed(Monitors(CLIP), train_records(losses, contrastive=losses))


def test_nothing_is_judged_before_a_queue_is_full() -> None:
    chance = {"loss": Chance(4.0, "ln(queue + 1)")}
    losses = [0.1, *[4.0] * 20]
    records = train_records(losses)
    assert not observed(Monitors(Facts(chance=chance, settled_step=10**6)), records)
    assert observed(Monitors(Facts(chance=chance, settled_step=0)), records)


def test_a_loss_that_rises_after_the_warm_up_is_named() -> None:
    losses = [*falling(6.0, 4.0, 10), 4.2, 4.9, 5.3, 5.6, 5.8]
    assert list(observed(Monitors(Facts(warmup_steps=40)), train_records(losses))) == ["loss_rises"]
    assert not observed(Monitors(Facts(warmup_steps=10**6)), train_records(losses))


def test_a_single_bad_record_is_no_rise() -> None:
    losses = [*falling(6.0, 4.0, 10), 9.0, 4.0, 4.0, 4.0]
    assert not observed(Monitors(Facts()), train_records(losses))


def test_over_fitting_is_named_in_both_ways() -> None:
    records = validated([8, 6, 4, 2, 1, 0.5], [8.2, 7, 7, 7.5, 8, 9])
    found = observed(Monitors(Facts()), records)
    assert found == {"far_below_validation": [400], "validation_rises": [500]}


def test_over_fitting_is_not_named_where_the_losses_differ_anyway() -> None:
    records = validated([8, 6, 4, 2, 1, 0.5], [8.2, 7, 7, 7.5, 8, 9])
    assert not observed(Monitors(Facts(is_comparable=False)), records)


def test_validation_that_rises_with_training_is_no_over_fitting() -> None:
    assert not observed(Monitors(Facts()), validated([8, 6, 6.1, 6.2, 6.3], [8, 6, 6.3, 6.4, 6.5]))


def test_a_head_that_ignores_the_image_is_named_at_the_second_validation() -> None:
    records = validated([5, 5], [5.0, 4.99], shuffled_rise=[0.0, 0.001])
    assert observed(Monitors(Facts()), records) == {"ignores_image": [200]}


def test_a_decoder_that_learns_language_first_is_given_time() -> None:
    records = validated([6, 5, 4.5], [6.0, 5.1, 4.7], shuffled_rise=[0.0, 0.01, 0.2])
    assert not observed(Monitors(Facts()), records)


@pytest.mark.parametrize("numbers", [(0.01, 9.0), (0.4, 1.1)])
def test_features_that_collapse_are_named(numbers: tuple[float, float]) -> None:
    spreads, ranks = ([number] * 2 for number in numbers)
    records = validated([5, 4], [5.0, 4.0], feature_spread=spreads, effective_rank=ranks)
    assert observed(Monitors(Facts()), records) == {"features_collapse": [200]}


def test_steps_that_are_always_clipped_are_named() -> None:
    losses, norms = falling(6, 4, 20), [50.0] * 20
    for share, names in ((1.0, ["always_clipped"]), (0.5, [])):
        records = train_records(losses, grad_norm=norms, clipped=[share] * 20)
        assert list(observed(Monitors(Facts(max_grad_norm=1)), records)) == names


def test_adam_may_clip_each_step() -> None:
    records = train_records(falling(6, 4, 20), grad_norm=[50.0] * 20, clipped=[1.0] * 20)
    assert not observed(Monitors(Facts(max_grad_norm=1, follows_norm=False)), records)


def test_a_spike_of_the_norm_is_named() -> None:
    losses, norms = falling(6, 4, 20), [2.0] * 20
    for largest, names in ((200.0, ["norm_spikes"]), (20.0, [])):
        records = train_records(losses, grad_norm=norms, max_grad_norm=[3.0] * 19 + [largest])
        assert list(observed(Monitors(Facts()), records)) == names


def speed_records(waits: Values, use: float | None = None) -> list[dict[str, float]]:
    """Records of training with the waits for data, and the use of a GPU if there is one."""
    numbers = {} if use is None else {"speed/gpu_use": use}
    records = train_records(falling(6, 4, len(waits)))
    return [
        {**record, "speed/data_wait": wait, **numbers}
        for record, wait in zip(records, waits, strict=True)
    ]


def test_waiting_for_data_is_named_and_a_gpu_that_rests_only_without_it() -> None:
    def named(wait: float, use: float) -> list[str]:
        return list(observed(Monitors(Facts()), speed_records([wait] * 20, use)))

    assert named(0.7, 0.2) == ["waits_for_data"]
    assert named(0.1, 0.2) == ["gpu_rests"]
    assert named(0.1, 0.9) == []
    assert named(0.7, 0.95) == []  # the data come in time for a busy GPU


def test_a_run_that_rarely_waits_is_not_named_for_a_busy_moment_of_the_machine() -> None:
    usual = [0.15, 0.3, 0.2, 0.25, 0.3]
    for number_of_stalls in (0, 2):
        waits = [*usual * 3, *[1.0] * number_of_stalls, *usual * 3]
        assert not observed(Monitors(Facts(num_workers=0)), speed_records(waits))


@pytest.mark.parametrize(
    ("num_workers", "seen"),
    [
        (0, "reading and decoding images, by the training process itself"),
        (2, "waiting for data"),
        (None, "waiting for data"),
    ],
)
def test_the_advice_for_slow_data_says_which_process_decodes(
    num_workers: int | None, seen: str
) -> None:
    monitors = Monitors(Facts(num_workers=num_workers))
    alarms = [alarm for r in speed_records([0.6] * 20) for alarm in monitors.observe(r)]
    assert alarms[0].text.startswith(f"60% of the time is spent {seen}. Try: raise loader.num_")


def test_an_alarm_is_raised_again_only_after_it_was_over() -> None:
    wait = [0.9] * 8 + [0.0] * (NUM_QUIET + 8) + [0.9] * 8
    records = [
        {"step": EVERY * (number + 1), "train/loss": 4.0, "speed/data_wait": value}
        for number, value in enumerate(wait)
    ]
    assert len(observed(Monitors(Facts()), records)["waits_for_data"]) == 2


def test_a_resumed_run_says_nothing_twice() -> None:
    losses = [3.47] * 40
    records = train_records(losses, contrastive=losses)
    whole = Monitors(CLIP, {"duplicate_captions": "many are alike"})
    lines, steps = [a.record for a in whole.begin([], 0)], []
    for record in records:
        lines.append(record)
        for alarm in whole.observe(record):
            lines.append(alarm.record)
            steps.append(alarm.step)
    assert len(steps) == 1
    cut = Monitors(CLIP, {"duplicate_captions": "many are alike"})
    half = [(json.dumps(line) + "\n").encode() for line in lines if line["step"] <= 400]
    assert not cut.begin([*half, b'{"step": 1', b"[3]\n"], 400)
    assert not observed(cut, [record for record in records if record["step"] > 400])


def test_an_alarm_is_a_record_of_the_log() -> None:
    alarm = Alarm(20, "loss_rises", "it rose")
    assert alarm.record == {"step": 20, f"{PREFIX}loss_rises": "it rose"}
    assert len({monitor.name for monitor in MONITORS}) == len(MONITORS)


@pytest.mark.parametrize("every", [1, 10, 100, 1000])
def test_a_window_is_100_steps_or_three_records(every: int) -> None:
    history, values = History(), [float(i) for i in range(1, 1001)]
    for number, value in enumerate(values, 1):
        history.add({"step": number * every, "n": value})
    number = max(3, WINDOW // every)
    assert history.window("n") == values[-number:]
    assert history.window("n", before=1) == values[-2 * number : -number]
    assert history.window("n", after=every * (1000 - number)) == values[-number:]
    assert history.window("n", after=every * 998) == ()


def test_null_in_a_log_is_no_number() -> None:
    history = History()
    history.add({"step": 1, "n": None, "text": "a"})
    assert history.last("n") == []
