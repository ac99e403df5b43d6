"""What INIT holds, as an export sees it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from virtex.config import from_dict
from virtex.data.transforms import ImageConfig
from virtex.errors import CheckpointError, ConfigError, listing
from virtex.models.backbone import Backbone, BackboneConfig
from virtex.tasks import registry  # noqa: F401 (a config names its task's class)
from virtex.tasks.base import TaskConfig
from virtex.zoo.weights import Initialisation, open_backbone, read_trained, trained_file
from virtex.zoo.weights_file import Weights


@dataclass(frozen=True)
class Model:
    """A backbone, in evaluation mode, and the run that trained it, where that is known."""

    backbone: Backbone
    initialisation: Initialisation
    image: ImageConfig
    """How images became network inputs in training."""
    trained: Weights | None = None
    """The whole task, where INIT is one of our runs."""
    run: Path | None = None
    """The run's folder, where INIT is one of our runs."""

    def writes_captions(self) -> bool:
        """Whether the trained task is one that load_captioner takes.

        Raises:
            CheckpointError: The run's config has no task that this package knows.
        """
        if self.trained is None:
            return False
        try:
            values = {"task": self.trained.config["task"]}
            return from_dict(_Trained, values).task.writes_captions
        except (ConfigError, KeyError) as error:
            raise CheckpointError(
                f"{self.initialisation.init}: its config has no readable task: {error}"
            ) from error


@dataclass(frozen=True)
class _Trained:
    """The part of a run's config that says what was trained."""

    task: TaskConfig


def open_model(init: str, *, config: BackboneConfig | None = None) -> Model:
    """The model that INIT names.

    Args:
        config: The architecture, where INIT does not say it.

    Raises:
        CheckpointError: INIT cannot be found or read, or holds weights that are not finite.
    """
    backbone, initialisation = open_backbone(init, config=config)
    backbone.eval()
    check_finite(backbone.cnn.state_dict(), init)
    if initialisation.step is None:
        return Model(backbone, initialisation, ImageConfig())
    path = trained_file(init)
    trained = read_trained(path)
    check_finite(trained.state, init)
    try:
        image = from_dict(ImageConfig, trained.config.get("image", {}))
    except ConfigError as error:
        raise CheckpointError(f"{path}: its config has no readable image: {error}") from error
    in_checkpoints = path.parent.name == "checkpoints"
    run = path.parent.parent if in_checkpoints else path.parent
    return Model(backbone, initialisation, image, trained, run)


def check_finite(state: Mapping[str, Tensor], init: str) -> None:
    """Refuse weights that are no numbers, which no layout makes better.

    Raises:
        CheckpointError: Names them.
    """
    broken = [name for name, value in state.items() if not value.isfinite().all()]
    if broken:
        raise CheckpointError(
            f"{init} holds weights that are infinite or no numbers: {listing(sorted(broken))}. "
            "Its training diverged, or the file is broken: export an earlier checkpoint."
        )
