"""What INIT holds, as an export sees it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from virtex.data.transforms import ImageConfig
from virtex.errors import CheckpointError, listing
from virtex.models.backbone import Backbone, BackboneConfig
from virtex.zoo.backbones import Initialisation, build_backbone, origin_of
from virtex.zoo.init import Opened, open_init


@dataclass(frozen=True)
class Model:
    """A backbone in evaluation mode, and the INIT that it comes from."""

    backbone: Backbone
    opened: Opened

    @property
    def is_run(self) -> bool:
        """Whether INIT is one of our runs, so that the whole task is there."""
        return self.opened.kind == "run"

    @property
    def origin(self) -> Initialisation:
        """The record of where the backbone came from."""
        return origin_of(self.opened, self.backbone.config)

    @property
    def image(self) -> ImageConfig:
        """How images became network inputs in training."""
        return self.opened.trained.image if self.is_run else ImageConfig()

    @property
    def writes_captions(self) -> bool:
        """Whether the trained task is one that load_captioner takes."""
        return self.is_run and self.opened.trained.task.writes_captions

    @property
    def run_folder(self) -> Path:
        """The folder of the run whose file INIT is."""
        folder = self.opened.path.parent
        return folder.parent if folder.name == "checkpoints" else folder


def open_model(init: str, *, config: BackboneConfig | None = None) -> Model:
    """Return the model that INIT names.

    Args:
        config: The architecture, where INIT does not say it.

    Raises:
        CheckpointError: INIT cannot be found or read, has a config that cannot be read, or holds
            weights that are not finite.
    """
    opened = open_init(init)
    backbone = build_backbone(opened, config=config).eval()
    check_finite(backbone.cnn.state_dict(), init)
    if opened.kind == "run":
        check_finite(opened.state, init)
        opened.trained  # noqa: B018 (a config that cannot be read is told before anything is written)
    return Model(backbone, opened)


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
