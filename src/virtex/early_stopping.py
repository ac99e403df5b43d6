"""Early stopping: the weights of the checkpoint that scores best in a transfer protocol.

The paper chose its checkpoint by VOC07 linear mAP, and used it for all other tasks too.
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
    """Choice of the checkpoint for weights.safetensors: the last, or the best by a protocol."""

    protocol: Literal["none", "voc07", "linear"] = "none"
    """voc07: an SVM per class, for images with several labels; linear: a linear classifier, for
    images with one label; none: keep the last checkpoint."""
    data: SourceConfig = field(default_factory=SourceConfig)
    """Data of the protocol: its train split trains, its val split tests."""
    image_size: int = 224
    """Side of the protocol's images, in pixels."""
    batch_size: int = 64
    """Images in a batch."""
    num_workers: int = 2
    """Worker processes that decode images."""
    leave_out_rare: bool = False
    """voc07: leave out classes with fewer than three training images or no test image."""


class EarlyStopping:
    """A transfer protocol with its data, and the scores of checkpoints in RUN/results."""

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
        """Score a checkpoint, unless it has a score, and return whether it is the first best."""
        scores = self._scores()
        if step not in scores:
            scores[step] = self._score(backbone, step)
        best = max(scores, key=lambda scored: (scores[scored], -scored))
        log.info(
            "step %d: %s %s %.2f; best %.2f at step %d",
            step, self.protocol.name, self.protocol.headline, scores[step], scores[best], best,
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
        path = self.folder / f"{self.protocol.name}-step_{step:08d}.json"
        result.write(path, error=CheckpointError)  # which does not stop training
        return result.score

    def _scores(self) -> dict[int, float]:
        paths = self.folder.glob(f"{self.protocol.name}-step_*.json")
        results = [Result.read(path) for path in sorted(paths)]
        return {int(result.initialisation["step"]): result.score for result in results}
