"""Protocols that measure a whole model on the val split and train nothing."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch

from virtex import distributed
from virtex.data.example import Source
from virtex.data.source import Needs, SourceConfig, open_source
from virtex.engine.inference import InferenceConfig
from virtex.errors import ConfigError
from virtex.files import sha256
from virtex.transfer.command import MeasurementConfig
from virtex.transfer.protocol import Result, device_name, versions
from virtex.zoo.backbones import origin_of
from virtex.zoo.init import Opened


@dataclass(frozen=True, kw_only=True)
class WholeModelConfig(InferenceConfig, MeasurementConfig):
    """Options of every protocol that measures a whole model."""

    tokenizer: Path | None = None
    """Vocabulary of a released .pth, which holds none."""

    def problems(self) -> list[str]:
        return [*super().problems(), *self.inference_problems()]


class Measured(NamedTuple):
    """A result without what every protocol records alike."""

    protocol: str
    headline: str
    numbers: dict[str, float]
    settings: dict[str, Any]
    initialisation: dict[str, Any]
    as_in_paper: bool = False


class OnDevice(Protocol):
    """Options of a measurement on a device, whatever they are called."""

    @property
    def out(self) -> Path: ...

    @property
    def seed(self) -> int: ...

    def check_before_work(self) -> None: ...

    def open_device(self) -> torch.device: ...


def run_whole_model(
    config: OnDevice,
    open_images: Callable[[], Source],
    measure: Callable[[Source, torch.device], Measured | None],
) -> list[Result]:
    """Check the options, measure a model on images, and write the result.

    Args:
        open_images: Opens and checks the images, before the model is loaded.
        measure: Called on every process; must return its measurement on the main one.

    Returns:
        The result on the main process, none on the others.

    Raises:
        ConfigError, DataError, CheckpointError: Invalid options, data or weights.
    """
    config.check_before_work()
    device = config.open_device()
    with distributed.process_group(device):
        source = open_images()
        start = time.perf_counter()
        measured = measure(source, device)
        if measured is None or not distributed.is_main():
            return []
        result = Result(
            **measured._asdict(),
            data={"test": source.identity()},
            seed=config.seed,
            versions=versions(),
            device=device_name(device),
            seconds=round(time.perf_counter() - start, 2),
        )
        result.write(config.out)
    return [result]


def open_val_images(data: SourceConfig, needs: Needs, *, purpose: str) -> Source:
    """Open the val split.

    Args:
        purpose: Verb for what is done with the images, for the error message.

    Raises:
        ConfigError, DataError: Invalid options or data, or no val split.
    """
    source = open_source(data, split="val", needs=needs)
    if source is None:
        raise ConfigError(
            f"there are no images to {purpose}: name them with data.val_split, data.val_root or "
            f"data.val_share (source {data.source}, root {data.root})."
        )
    return source


def record_of(opened: Opened, tokenizer: Path | None) -> dict[str, Any]:
    """Return the record of a model's origin, and of a vocabulary that is given beside it."""
    record = origin_of(opened).record()
    return record if tokenizer is None else {**record, "tokenizer": sha256(tokenizer)}
