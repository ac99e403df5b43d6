import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.small_run import small_config
from virtex.data.example import Example
from virtex.data.transforms import ImageConfig
from virtex.engine.run import RunConfig, RunFolder
from virtex.predict.attention import CaptionAttention
from virtex.pretrain import pretrain
from virtex.sample_panels import MOST_STEPS, PanelWriter, with_text

PANELS = ["samples/0", "samples/1"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three steps with TensorBoard, validated at each."""
    out = tmp_path_factory.mktemp("panels") / "run"
    options = ("--run.num_steps", "3", "--run.validate_every", "1", "--run.tensorboard", "true")
    pretrain(small_config(out, *options))
    return out


def test_tensorboard_shows_captions_and_attention_at_each_validation(run: Path) -> None:
    events = EventAccumulator(str(run / "tensorboard"), {"images": 0}).Reload()
    assert sorted(events.Tags()["images"]) == PANELS
    for tag in PANELS:
        images = events.Images(tag)
        assert [image.step for image in images] == [1, 2, 3]
        assert all(len(image.encoded_image_string) < 150_000 for image in images)
    samples = json.loads((run / "samples.json").read_text())["samples"]
    last = (run / samples[0]["panel"]).read_bytes()
    assert last == events.Images("samples/0")[-1].encoded_image_string


def test_tensorboard_has_options_and_environment_as_hyper_parameters(run: Path) -> None:
    from tensorboard.plugins.hparams.metadata import (
        SESSION_START_INFO_TAG,
        parse_session_start_info_plugin_data,
    )

    events = EventAccumulator(str(run / "tensorboard")).Reload()
    content = events.PluginTagToContent("hparams")[SESSION_START_INFO_TAG]
    options = parse_session_start_info_plugin_data(content).hparams
    assert options["optim.lr"].number_value == 0.003
    assert options["task.name"].string_value == "bicaptioning"
    assert options["environment.device"].string_value == "cpu"


def test_a_long_run_draws_at_few_validations(tmp_path: Path) -> None:
    def num_drawn(validate_every: int, num_steps: int = 500_000) -> int:
        run = RunConfig(validate_every=validate_every, num_steps=num_steps)
        writer = PanelWriter(RunFolder(tmp_path), run, ImageConfig())
        steps = range(validate_every, num_steps + 1, validate_every) if validate_every else ()
        return len({step for step in (*steps, num_steps) if writer.is_due(step)})

    assert num_drawn(0) == 1
    assert num_drawn(100_000) == 5
    assert num_drawn(10_000) == MOST_STEPS
    assert MOST_STEPS // 2 < num_drawn(2000) <= MOST_STEPS + 1
    assert num_drawn(7, num_steps=1000) <= MOST_STEPS + 1


def test_nothing_is_drawn_that_nobody_sees(tmp_path: Path) -> None:
    writer = PanelWriter(RunFolder(tmp_path), RunConfig(tensorboard=False), ImageConfig())
    assert not writer.is_due(2000)


def test_no_panel_is_begun_after_the_time_is_over(tmp_path: Path) -> None:
    times: Iterator[int] = count()
    image = ImageConfig(size=32)
    writer = PanelWriter(RunFolder(tmp_path), RunConfig(), image, clock=lambda: float(next(times)))
    attention = CaptionAttention("a cat", ("a", "cat"), np.ones((1, 1, 2, 2, 2), np.float32) / 4,
                                 "forward", -1.0)  # fmt: skip
    example = Example("1", np.zeros((40, 40, 3), np.uint8), ("the cat",))
    written = writer.write(["a", "b", "c", "d"], [example] * 4, [attention] * 4, step=1)
    assert written == {"a": "panels/a.jpg"}


def test_a_long_reference_is_broken_into_lines() -> None:
    image = Image.new("RGB", (200, 50), "red")
    short, long = with_text(image, "a cat"), with_text(image, "a cat and a dog " * 5)
    assert (short.width, long.width) == (200, 200)
    assert long.height > short.height > 50
    assert long.getpixel((0, long.height - 1)) == (255, 255, 255)
