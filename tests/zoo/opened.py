"""An INIT opened and built in one go, for tests that look at both."""

from pathlib import Path

from torch import Tensor

from virtex.models.backbone import Backbone, BackboneConfig
from virtex.zoo.backbones import Initialisation, build_backbone, origin_of
from virtex.zoo.init import Opened, open_init


def open_backbone(
    init: str | Path, *, config: BackboneConfig | None = None, seed: int = 0
) -> tuple[Backbone, Initialisation]:
    """The backbone of an INIT, and the record of where it came from."""
    opened = open_init(init)
    backbone = build_backbone(opened, config=config, seed=seed)
    return backbone, origin_of(opened, backbone.config)


def foreign(state: dict[str, Tensor]) -> Opened:
    """A state dict as if it had been read from a file of others."""
    return Opened("released.pth", "foreign", Path("released.pth"), state=state)
