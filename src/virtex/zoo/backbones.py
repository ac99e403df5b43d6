"""From an opened INIT to a backbone, and the record of where it came from."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from virtex.errors import CheckpointError, listing
from virtex.models.backbone import Backbone, BackboneConfig
from virtex.models.state_dict import check_fits, load_strictly
from virtex.zoo.foreign import backbone_state
from virtex.zoo.init import Opened, open_init

IMAGENET = BackboneConfig(name="resnet50.tv_in1k", pretrained=True)
"""torchvision's ResNet-50, which the paper compares with, as timm publishes it."""


@dataclass(frozen=True)
class Initialisation:
    """The origin of a backbone, for the record of a result."""

    init: str
    """The INIT that the user gave."""
    backbone: BackboneConfig
    step: int | None = None
    """The training step, where it is one of our runs."""
    sha256: str | None = None
    """Digest of the file, where there is one."""


def load_backbone(
    init: str | Path, *, config: BackboneConfig | None = None, seed: int = 0
) -> Backbone:
    """Return the backbone that INIT names, in evaluation mode.

    It takes normalised images (B, 3, H, W) to a grid (B, C, h, w). Args and Raises as of
    `open_init` and `build_backbone`.
    """
    return build_backbone(open_init(init), config=config, seed=seed).eval()


def start_from(opened: Opened, backbone: Backbone) -> None:
    """Put an INIT's weights into a backbone; `random` leaves it as it is.

    The global generator is left as it was: what is built next starts as it would have anyway.

    Raises:
        CheckpointError: INIT holds another architecture.
    """
    if opened.kind == "random":
        return
    with torch.random.fork_rng(devices=[]):
        built = build_backbone(opened, config=backbone.config)
    backbone.load_state_dict(built.state_dict())


def build_backbone(
    opened: Opened, *, config: BackboneConfig | None = None, seed: int = 0
) -> Backbone:
    """Return the backbone of an INIT, in training mode.

    Args:
        config: The architecture, where INIT does not say it, or to insist on it; and whether to
            freeze it.
        seed: Random seed of the weights, for INIT `random`.

    Raises:
        CheckpointError: INIT holds another architecture than `config`, or none that is known.
    """
    if opened.kind == "random":
        return _random(replace(config or BackboneConfig(), pretrained=False), seed)
    if opened.kind == "imagenet":
        return Backbone(replace(config or IMAGENET, pretrained=True))
    architecture = architecture_of(opened, config)
    with opened.trying():
        empty = Backbone(architecture).cnn
    state = (
        _part_of_task(opened.state, opened.path)
        if opened.kind == "run"
        else backbone_state(opened.state, opened.path, names=empty.state_dict())
    )
    check_fits(empty, state, subject=opened.path)
    backbone = Backbone(architecture)
    load_strictly(backbone.cnn, state, subject=opened.path)
    return backbone


def architecture_of(opened: Opened, config: BackboneConfig | None = None) -> BackboneConfig:
    """Return the architecture of an INIT's backbone; whether it is frozen is the caller's to say.

    Args:
        config: The architecture, where INIT does not say it, or to insist on it.

    Raises:
        CheckpointError: INIT holds another architecture than `config`, or none that is known.
    """
    if opened.kind == "random":
        return replace(config or BackboneConfig(), pretrained=False)
    if opened.kind == "imagenet":
        return replace(config or IMAGENET, pretrained=True)
    held = opened.backbone if opened.kind == "run" else _foreign_architecture(opened, config)
    if config is not None:
        _require_same(held, config, opened.path)
    frozen, frozen_norm = (config.frozen, config.frozen_norm) if config else (False, False)
    return replace(held, pretrained=False, frozen=frozen, frozen_norm=frozen_norm)


def origin_of(opened: Opened, backbone: BackboneConfig | None = None) -> Initialisation:
    """Return the record of where a backbone came from.

    Args:
        backbone: Its architecture; by default the one that INIT says.
    """
    backbone = architecture_of(opened) if backbone is None else backbone
    return Initialisation(opened.init, backbone, opened.step, opened.sha256)


def _random(config: BackboneConfig, seed: int) -> Backbone:
    """timm initialises from the global generator, which is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Backbone(config)


def _part_of_task(task_state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The backbone's part of a task's state dict, which lies at the top or in one of its parts."""
    matches = (re.match(r"(?:\w+\.)?backbone\.cnn\.", name) for name in task_state)
    prefixes = sorted({match[0] for match in matches if match}, key=len)
    if not prefixes:
        raise CheckpointError(f"{path} has no backbone among {listing(sorted(task_state))}")
    own = prefixes[0]
    return {
        name.removeprefix(own): value for name, value in task_state.items() if name.startswith(own)
    }


def _foreign_architecture(opened: Opened, config: BackboneConfig | None) -> BackboneConfig:
    """The network of others' weights: as the caller says, or as its names and shapes tell."""
    published = opened.published
    if config is not None and published is None:
        return config
    held = opened.backbone
    if published is not None and held != published.backbone:
        raise CheckpointError(
            f"{opened.path} holds a {held.name}, but {published.name} was published with a "
            f"{published.backbone.name}: it is another file. Remove it to fetch it again."
        )
    return held


def _require_same(held: BackboneConfig, config: BackboneConfig, path: Path) -> None:
    """The published weights that a name's tag stands for do not make another architecture."""
    found, wanted = ((c.name.partition(".")[0], c.options) for c in (held, config))
    if found != wanted:
        raise CheckpointError(
            f"{path} holds a {found[0]} with options {found[1]}, but {wanted[0]} with options "
            f"{wanted[1]} was requested. Leave the backbone out to take the file's."
        )
