"""Score each checkpoint by a transfer protocol, and keep the weights of the best one.

The paper chose its checkpoint by VOC07 linear mAP; that one then served every other task.
"""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from virtex import distributed
from virtex.data.source import SourceConfig
from virtex.errors import CheckpointError
from virtex.models.backbone import Backbone
from virtex.transfer.command import open_splits
from virtex.transfer.features import Extraction
from virtex.transfer.linear import LinearProbe
from virtex.transfer.protocol import Protocol, Result
from virtex.transfer.voc07 import MultiLabelSvm, protocol_name, with_voc_splits

log = logging.getLogger("virtex")


@dataclass(frozen=True)
class EarlyStoppingConfig:
    """Which checkpoint becomes weights.safetensors: the last one, or the best by a protocol."""

    protocol: Literal["none", "voc07", "linear"] = "none"
    """voc07: one SVM a class on images with several labels; linear: one class an image; none: the
    last checkpoint is kept."""
    data: SourceConfig = field(default_factory=SourceConfig)
    """Where the protocol trains (train split) and tests (val split)."""
    image_size: int = 224
    """Side of the protocol's images, in pixels."""
    batch_size: int = 64
    """Images at once."""
    num_workers: int = 2
    """Processes that decode images."""
    leave_out_rare: bool = False
    """voc07: leave out classes that fewer than three training images or no test image show."""


class EarlyStopping:
    """The protocol with its data, opened up front, and the scores so far in RUN/results."""

    def __init__(self, config: EarlyStoppingConfig, folder: Path, device: torch.device) -> None:
        data = with_voc_splits(config.data) if config.protocol == "voc07" else config.data
        self.train, self.test = open_splits(data)
        log.info("early stopping: %s on %s", config.protocol, self.test.identity())
        extraction = Extraction(
            image_size=config.image_size,
            batch_size=config.batch_size,
            num_workers=config.num_workers,
            device=device,
        )
        self.protocol: Protocol = LinearProbe(extraction=extraction)
        if config.protocol == "voc07":
            self.protocol = MultiLabelSvm(
                name=protocol_name(config.data),
                extraction=extraction,
                leave_out_rare=config.leave_out_rare,
            )
        self.protocol.check(self.train, self.test)
        self.folder = folder

    def is_best(self, backbone: Backbone, *, step: int) -> bool:
        """Score a checkpoint (unless it was scored before) and say if none was better so far."""
        before = self._scores()
        if step not in before:
            before[step] = self._score(backbone, step)
        best = max(before, key=lambda scored: (before[scored], -scored))
        log.info(
            "step %d: %s %s %.2f; best %.2f at step %d",
            step, self.protocol.name, self.protocol.headline, before[step], before[best], best,
        )  # fmt: skip
        return best == step

    def _score(self, backbone: Backbone, step: int) -> float:
        was_training = backbone.training
        with distributed.alone():  # the main process scores, the others wait
            result = self.protocol.run(
                backbone,
                train=self.train,
                test=self.test,
                initialisation={"init": str(self.folder.parent), "step": step},
            )
        backbone.train(was_training)
        result.write(self._path(step), error=CheckpointError)  # training goes on after one
        return result.score

    def _scores(self) -> dict[int, float]:
        paths = self.folder.glob(self._path("*").name)
        results = [Result.read(path) for path in sorted(paths)]
        return {int(result.initialisation["step"]): result.score for result in results}

    def _path(self, step: int | str) -> Path:
        number = f"{step:08d}" if isinstance(step, int) else step
        return self.folder / f"{self.protocol.name}-step_{number}.json"
