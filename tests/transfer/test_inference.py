"""How protocols run a model: options of one kind, and what of them a result records."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from virtex.engine.inference import InferenceConfig
from virtex.engine.run import RunConfig
from virtex.errors import ConfigError
from virtex.transfer.captioning import CaptioningProtocolConfig, generation_of
from virtex.transfer.command import TransferConfig, extraction
from virtex.transfer.linear import LinearConfig
from virtex.transfer.protocol import digest
from virtex.transfer.retrieval import RetrievalConfig
from virtex.transfer.training import TrainingOptions
from virtex.transfer.voc07 import Voc07Config
from virtex.transfer.zero_shot import ZeroShotConfig

CONFIGS = [Voc07Config, LinearConfig, CaptioningProtocolConfig, RetrievalConfig, ZeroShotConfig]
NEEDED = {"init": "random", "out": Path("x")}


@pytest.mark.parametrize("config_class", CONFIGS)
def test_a_protocol_has_the_options_of_inference(config_class: type) -> None:
    assert issubclass(config_class, InferenceConfig)
    config = config_class(**NEEDED)
    for option in fields(InferenceConfig):
        assert getattr(config, option.name) == option.default


def test_settings_are_what_they_were_before_the_options_had_one_class() -> None:
    settings = extraction(TransferConfig(**NEEDED, device="cpu")).settings()
    assert settings == {"image_size": 224, "precision": "fp32"}
    generation = generation_of(
        CaptioningProtocolConfig(**NEEDED, device="cpu"), image_size=224, max_tokens=30
    )
    assert digest(settings) == "18a69c7596443592"
    assert digest(generation.settings()) == "d6754de22ba96fd2"


def test_the_precision_that_auto_stands_for_is_recorded() -> None:
    config = TransferConfig(**NEEDED, device="cpu", precision="auto")
    expected = config.resolved_precision(config.open_device())
    assert expected in ("fp32", "bf16")
    assert extraction(config).settings()["precision"] == expected
    generation = generation_of(
        CaptioningProtocolConfig(**NEEDED, device="cpu", precision="auto"),
        image_size=224,
        max_tokens=30,
    )
    assert generation.settings()["precision"] == expected


def test_the_settings_of_a_training_are_what_they_were_unless_an_option_says_otherwise() -> None:
    def settings(**options: Any) -> dict[str, Any]:
        run = RunConfig(device="cpu", **options)
        return TrainingOptions(run=run).training(Path("x")).settings()

    assert digest(settings()) == "49b9f4b364df82b6"
    free = settings(compile="step", compile_mode="max-autotune", float32_matmul="default")
    assert free == settings()
    assert settings(float32_matmul="high")["float32_matmul"] == "high"
    assert settings(precision="auto")["precision"] in ("fp32", "bf16")


def test_options_that_cannot_work_are_named_together() -> None:
    config = replace(TransferConfig(**NEEDED), image_size=0, batch_size=0, num_workers=-1)
    with pytest.raises(ConfigError, match=r"(?s)batch_size 0.*num_workers -1.*image_size 0"):
        extraction(config)
