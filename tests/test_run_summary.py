"""What stands on the terminal before and after training."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.small_run import small_config
from virtex.pretrain import pretrain
from virtex.run_summary import TimedBatches, after_training, duration
from virtex.tasks.base import Batch


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (59.6, "1 min"), (725, "12 min 5 s"), (12_000, "3 h 20 min"), (86_405, "1 d")],
)
def test_a_time_is_told_in_its_two_largest_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_run_says_what_it_trains_and_what_it_has_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "my run"
    caplog.set_level("INFO", "virtex")
    flags = ["--run.num_steps", "2", "--run.validate_every", "0", "--task.head.max_tokens", "8"]
    states = ("a new run", "resuming after step 2", "complete: nothing to do")
    for number, state in zip(("2", "4", "4"), states, strict=True):
        caplog.clear()
        flags[1] = number
        if number == "4":
            config = out / "config.yaml"
            config.write_text(config.read_text().replace("num_steps: 2", "num_steps: 4"))
        pretrain(small_config(out, *flags))
        assert f"run         {out}, {state}" in caplog.text
    lines = caplog.messages[0].splitlines()
    facts = dict(line.split(maxsplit=1) for line in lines)
    assert facts["images"] == "24 for training from scenes, 8 for validation"
    assert facts["captions"].startswith("120, ")
    assert facts["captions"].endswith("% of them cut at 8 tokens")
    assert not facts["captions"].startswith("120, 0.0")
    assert facts["vocabulary"] == "250 pieces"
    assert "in the backbone resnet18, " in facts["parameters"]
    assert facts["device"].startswith("cpu")
    assert facts["device"].endswith("fp32, 1 process")
    assert facts["length"] == "4 steps of 8 images, 1.3 epochs"
    after = caplog.messages[-1]
    assert str(out / "weights.safetensors") in after
    assert f"virtex transfer voc07 --init '{out}'" in after
    assert f"virtex caption '{out}' IMAGES" in after
    assert len({line.index(line.split()[1]) for line in lines}) == 1


def test_a_task_without_captions_is_not_told_to_caption(tmp_path: Path) -> None:
    options = small_config(tmp_path / "run", "--task", "moco")
    assert "virtex caption" not in after_training(options, step=6, seconds=1)


class Stream:
    """Batches that are not looked at."""

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        return {}

    def close(self) -> None:
        """Close nothing."""


def test_the_rest_is_estimated_once_after_the_first_steps(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "virtex")
    stream = TimedBatches(Stream(), num_steps=1015, step=0, clock=lambda: stream.step / 2)
    for _ in range(40):
        next(stream)
    [message] = caplog.messages
    assert message == "time        about 8 min 20 s for the other 1,000 steps, without validation"
