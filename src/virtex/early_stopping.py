"""Early stopping: the weights of the checkpoint that scores best in a transfer protocol.

The paper chose its checkpoint by VOC07 linear mAP among those of the last 200,000 of 500,000 steps,
and used it for all other tasks too; it trained to the end. `patience` ends a run before.
"""

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

import torch

from virtex import distributed
from virtex.data.source import Needs, SourceConfig, resolved
from virtex.data.source_options import check_options
from virtex.data.transforms import MAX_SIDE
from virtex.errors import CheckpointError, ConfigError, VirTexError, out_of_range, raise_all
from virtex.models.backbone import Backbone
from virtex.options.dependents import register_dependents
from virtex.transfer.choosing import choosing_data, choosing_protocol
from virtex.transfer.command import open_splits
from virtex.transfer.features import Extraction
from virtex.transfer.identities import identities_of, same_data
from virtex.transfer.protocol import Result
from virtex.zoo.backbones import origin_of
from virtex.zoo.init import Opened

log = logging.getLogger("virtex")


LABELS = Needs(labels=True)
RANGES: dict[str, tuple[float, float]] = {
    "first_step": (0, 2**40), "patience": (0, 2**40),
    "image_size": (1, MAX_SIDE), "batch_size": (1, 2**20), "num_workers": (0, 1024),
}  # fmt: skip
NO_DATA = (
    "protocol {0.protocol} has no images (data.source {0.data.source}): give their folder by "
    "--early_stopping.data.root DIR, score on drawn scenes by --early_stopping.data.source scenes, "
    "or leave the last checkpoint by --early_stopping.protocol none --early_stopping.patience 0"
)


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
    first_step: int = 0
    """First step whose checkpoint is scored; before it the last checkpoint is kept. The paper's is
    300,000."""
    patience: int = 0
    """Number of scored checkpoints without a better score after which the run ends; 0: never."""

    def __post_init__(self) -> None:
        problems = out_of_range(self, RANGES)
        if self.protocol == "none" and (self.patience or self.first_step):
            problems.append("patience and first_step need a protocol: give voc07 or linear")
        is_named = self.data.root is not None or self.data.mix or self.data.source == "scenes"
        if self.protocol != "none" and not is_named:
            problems.append(NO_DATA.format(self))
        raise_all(ConfigError, "the options of early stopping cannot work", problems)

    def with_found_layout(self) -> Self:
        """Return options with the layout that `auto` stands for in the protocol's data.

        Raises:
            ConfigError: The data have no known layout, or options that cannot work.
        """
        if self.protocol == "none":
            return self
        with _naming_options():
            data = resolved(self.data, LABELS)
            check_options(data, LABELS)
        return replace(self, data=data)


register_dependents(
    EarlyStoppingConfig, {"protocol": lambda now, option: now != "none" or option == "protocol"}
)


@contextmanager
def _naming_options() -> Iterator[None]:
    """Say in errors of the protocol's data, which name --data options, which these are here."""
    try:
        yield
    except VirTexError as error:
        about = "the data of early stopping (here --data.* is --early_stopping.data.*)"
        raise type(error)(f"{about}: {error}") from error


class EarlyStopping:
    """A transfer protocol with its data, and the scores of checkpoints in RUN/results."""

    def __init__(self, config: EarlyStoppingConfig, folder: Path, device: torch.device) -> None:
        assert config.protocol != "none"
        with _naming_options():
            self.train, self.test = open_splits(choosing_data(config.protocol, config.data))
        log.info("early stopping: %s on %s", config.protocol, self.test.identity())
        extraction = Extraction(
            image_size=config.image_size,
            batch_size=config.batch_size,
            num_workers=config.num_workers,
            device=device,
        )
        self.protocol = choosing_protocol(
            config.protocol,
            extraction,
            data=config.data,
            num_train=len(self.train),
            leave_out_rare=config.leave_out_rare,
        )
        self.protocol.check(self.train, self.test)
        self.folder = folder
        self.first_step, self.patience = config.first_step, config.patience

    def is_best(self, backbone: Backbone, *, step: int) -> bool:
        """Score a checkpoint, unless it has a score, and return whether it is the first best.

        Checkpoints before the first step are not scored, and the last one counts as the best.
        """
        self.forget_after(step)
        if step < self.first_step:
            return True
        scores = self._scores()
        if step not in scores:
            scores[step] = self._score(backbone, step)
        best = _best(scores)
        log.info(
            "step %d: %s %s %.2f; best %.2f at step %d",
            step, self.protocol.name, self.protocol.headline, scores[step], scores[best], best,
        )  # fmt: skip
        return best == step

    def forget(self, step: int) -> None:
        """Remove the score of a step whose weights are lost."""
        for path in self._paths():
            if _step_of(path) == step:
                path.unlink()

    def forget_after(self, step: int) -> None:
        """Remove the scores of later steps, whose weights a run that resumes at this step lacks."""
        for path in self._paths():
            if _step_of(path) > step:
                path.unlink()

    def begin(self, step: int) -> None:
        """Take up the scores of a run that begins or resumes at a step.

        The folders of the data may change on resume, and all checkpoints are compared on one set.

        Raises:
            ConfigError: Scores that were measured on other data.
        """
        self.forget_after(step)
        now = identities_of(self.train, self.test)
        for path in self._paths():
            before = Result.read(path).data
            if not same_data(before, now):
                raise ConfigError(
                    f"the checkpoints so far were scored on other data ({path} names {before}) "
                    f"than early_stopping.data are now ({now}), and the best of all cannot be "
                    f"told: give the same data, or remove {self.folder} to choose from here on"
                )

    def is_over(self, step: int) -> bool:
        """Return whether patience has ended at a step, as the stored scores say."""
        scores = {scored: score for scored, score in self._scores().items() if scored <= step}
        return 0 < self.patience <= num_since_best(scores)

    def best_step(self) -> int:
        """Return the step of the first best score."""
        return _best(self._scores())

    def _score(self, backbone: Backbone, step: int) -> float:
        was_training = backbone.training
        with distributed.alone():  # the main process scores, the others wait
            result = self.protocol.run(
                backbone,
                train=self.train,
                test=self.test,
                initialisation=self._origin(backbone, step),
            )
        backbone.train(was_training)
        path = self.folder / f"{self.protocol.name}-step_{step:08d}.json"
        result.write(path, error=CheckpointError)  # which does not stop training
        return result.score

    def _origin(self, backbone: Backbone, step: int) -> dict[str, Any]:
        """Return the record that `virtex transfer --init RUN` makes, without the file's SHA-256."""
        run = Opened(str(self.folder.parent), "run", step=step, stated=backbone.config)
        return origin_of(run).record()

    def _paths(self) -> list[Path]:
        """Return the files of scores; `virtex transfer` may have written others beside them."""
        form = re.compile(rf"{re.escape(self.protocol.name)}-step_[0-9]{{8,18}}\.json")
        return sorted(path for path in self.folder.glob("*.json") if form.fullmatch(path.name))

    def _scores(self) -> dict[int, float]:
        results = map(Result.read, self._paths())
        scores = {int(result.initialisation["step"]): result.score for result in results}
        return {step: score for step, score in scores.items() if step >= self.first_step}


def _step_of(path: Path) -> int:
    return int(path.stem.rpartition("_")[2])


def num_since_best(scores: Mapping[int, float]) -> int:
    """Return the number of scores, by their step, after the first best one."""
    return sum(step > _best(scores) for step in scores) if scores else 0


def _best(scores: Mapping[int, float]) -> int:
    return max(scores, key=lambda step: (scores[step], -step))
