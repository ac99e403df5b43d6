"""The model that is exported."""

from dataclasses import dataclass
from pathlib import Path

from virtex.data.transforms import ImageConfig
from virtex.models.backbone import Backbone, BackboneConfig
from virtex.models.state_dict import check_finite
from virtex.zoo.backbones import build_backbone
from virtex.zoo.init import Opened, open_init


@dataclass(frozen=True)
class Model:
    """A backbone in evaluation mode, and its opened INIT."""

    backbone: Backbone
    opened: Opened

    @property
    def is_run(self) -> bool:
        """Whether INIT is a run, which holds the whole task."""
        return self.opened.holds_task

    @property
    def image(self) -> ImageConfig:
        """How images became network inputs in training."""
        return self.opened.image

    @property
    def writes_captions(self) -> bool:
        """Whether load_captioner loads the trained task."""
        return self.is_run and self.opened.trained.task.writes_captions

    @property
    def run_folder(self) -> Path:
        """Folder of the run."""
        folder = self.opened.path.absolute().parent
        return folder.parent if folder.name == "checkpoints" else folder


def open_model(init: str, *, config: BackboneConfig | None = None) -> Model:
    """Return the model that INIT names.

    Args:
        config: The architecture, if INIT does not state it.

    Raises:
        CheckpointError: INIT cannot be found, its weights or config cannot be read, or a weight is
            not finite.
    """
    opened = open_init(init)
    backbone = build_backbone(opened, config=config).eval()
    if opened.kind == "run":
        check_finite(opened.state, init)
    if opened.holds_task:
        opened.trained  # noqa: B018 (raises an error, before anything is written, if it cannot be read)
    return Model(backbone, opened)
