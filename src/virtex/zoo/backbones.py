"""Backbones built from an opened INIT, and records of their origin."""

import logging
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from virtex.errors import CheckpointError, ConfigError, listing, raise_all
from virtex.models.backbone import (
    Backbone,
    BackboneConfig,
    fitted_to,
    imagenet_weights,
    named_normalizations,
    published_normalization,
)
from virtex.models.backbone_config import FROM_INIT, SIZE_OPTION, STRIDE_OPTION
from virtex.models.state_dict import check_finite, check_fits, load_strictly
from virtex.zoo.foreign import backbone_state, without_prefix
from virtex.zoo.hub import resolved
from virtex.zoo.init import UNTRAINED, Opened, open_init, plain_init

log = logging.getLogger("virtex")
SAME_WEIGHTS = {STRIDE_OPTION, "img_size", "dynamic_img_size"}
"""Options with which a network has the weights that timm publishes."""


@dataclass(frozen=True)
class Initialisation:
    """Origin of a backbone, as the record of a result states it."""

    init: str
    """INIT as `plain_init` gives it."""
    backbone: BackboneConfig
    step: int | None = None
    """Training step of a run."""
    sha256: str | None = None
    """SHA-256 of the file, if INIT is one."""

    def record(self) -> dict[str, Any]:
        """Return plain values, without options that change no number or are off."""
        values = asdict(self)
        del values["backbone"]["grad_checkpointing"]
        for name in ("freeze_stages", "drop_path", "image_mean", "image_std"):
            if not values["backbone"][name]:
                del values["backbone"][name]
        return values


def load_backbone(
    init: str | Path, *, config: BackboneConfig | None = None, seed: int = 0
) -> Backbone:
    """Return the backbone that INIT names, in evaluation mode.

    It maps normalised images (B, 3, H, W) to a grid (B, C, h, w).

    Args:
        init: random, imagenet, a run folder, a checkpoint, a weights file, or a published name.
        config: Architecture, for an INIT that does not state its own.
        seed: Random seed of the weights of `random`.

    Raises:
        CheckpointError: INIT does not exist, is damaged, or holds another architecture, or weights
            that are infinite or NaN.
        ConfigError: The architecture cannot be built.
    """
    return build_backbone(open_init(init), config=config, seed=seed).eval()


def whole_architecture(config: BackboneConfig, *, image_size: int) -> BackboneConfig:
    """Return the architecture that a user names, built for square images of a size if it must be.

    Raises:
        CheckpointError: A folder that the name means cannot be read.
        ConfigError: The network does not take images of that size.
    """
    return fitted_to(resolved(config), image_size)


def architecture_to_train(
    opened: Opened, config: BackboneConfig, *, image_size: int
) -> BackboneConfig:
    """Return the architecture that starts from an INIT, with the normalization of its weights.

    Args:
        config: What the user requests; the name `init` is the network of the weights.

    Raises:
        CheckpointError: INIT holds another architecture than `config`, or an unknown one.
        ConfigError: INIT names no network, or the network takes no images of that size.
    """
    if config.name == FROM_INIT:
        config = _of_weights(opened, config)
    config = whole_architecture(config, image_size=image_size)
    if opened.kind != "random":
        return replace(config, **_normalization(architecture_of(opened, config)))
    published = published_normalization(config.name) if config.pretrained else {}
    return _with_normalization(config, published)


def _of_weights(opened: Opened, config: BackboneConfig) -> BackboneConfig:
    """Return a config with the network of an INIT in place of the name `init`."""
    problems = []
    if opened.kind in UNTRAINED:
        problems.append(
            f"init {opened.init} states no network: name weights by --init, or a network such as "
            "resnet50 by --backbone.name"
        )
    if others := config.options.keys() - {STRIDE_OPTION}:
        problems.append(
            f"backbone.options {listing(sorted(others))} belong to a network that backbone.name "
            f"names; of the network of weights only {STRIDE_OPTION} can be given"
        )
    raise_all(ConfigError, "backbone.name init takes the network of the weights", problems)
    held = architecture_of(opened)
    return replace(config, name=held.name, options={**held.options, **config.options})


def _normalization(config: BackboneConfig) -> dict[str, Any]:
    """Return the options of a backbone's own normalization; none if it states none."""
    given = {"image_mean": config.image_mean, "image_std": config.image_std}
    return given if config.image_mean is not None else {}


def _with_normalization(config: BackboneConfig, images: Mapping[str, Any]) -> BackboneConfig:
    """Return a config with the normalization of its weights, unless it states another."""
    return replace(config, **{**images, **_normalization(config)})


def start_from(opened: Opened, backbone: Backbone) -> None:
    """Load the weights of an INIT into a backbone; `random` leaves it unchanged.

    torch's global generator is left unchanged.

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
        config: The architecture, if INIT does not state it or is to be checked against it; and
            whether to freeze it.
        seed: Random seed of the weights, for INIT `random`.

    Raises:
        CheckpointError: INIT holds another architecture than `config`, an unknown one, or weights
            that are infinite or NaN.
        ConfigError: The architecture cannot be built.
    """
    architecture = architecture_of(opened, config)
    if opened.kind == "imagenet":
        log.info("imagenet: takes timm's weights %s", architecture.name)
        return Backbone(architecture)
    if opened.kind == "random":
        with torch.random.fork_rng(devices=[]):  # timm draws from the global generator
            torch.manual_seed(seed)
            return Backbone(architecture)
    empty = _without_memory(architecture, opened).cnn
    state = (
        _state_in_task(opened.state, opened.path)
        if opened.kind == "run"
        else backbone_state(opened.state, opened.path, network=empty.state_dict())
    )
    check_fits(empty, state, subject=opened.path, remedy=_remedy(opened, architecture))
    backbone = Backbone(architecture)
    load_strictly(backbone.cnn, state, subject=opened.path)
    check_finite(backbone.cnn.state_dict(), opened.path)
    return backbone


def _remedy(opened: Opened, architecture: BackboneConfig) -> str:
    """Return what to do where a run's weights do not fit a network of another stride."""
    stride = architecture.options.get(STRIDE_OPTION)
    if opened.kind != "run" or stride == opened.backbone.options.get(STRIDE_OPTION):
        return ""
    return f"Some blocks have other weights at {STRIDE_OPTION} {stride}: give that of the run."


def _without_memory(architecture: BackboneConfig, opened: Opened) -> Backbone:
    """Return a backbone on the meta device; an error is the file's, if that states the sizes."""
    try:
        with torch.device("meta"):
            return Backbone(architecture)
    except ConfigError as error:
        if opened.kind != "run" and opened.stated is None:
            raise
        raise CheckpointError(f"{opened.path}: its network cannot be built: {error}") from error


def architecture_of(opened: Opened, config: BackboneConfig | None = None) -> BackboneConfig:
    """Return the architecture of an INIT's backbone, trained as `config` says.

    Args:
        config: The architecture, if INIT does not state it or is to be checked against it.

    Raises:
        CheckpointError: INIT holds another architecture than `config`, or an unknown one.
    """
    config = config and resolved(config)
    if opened.kind == "random":
        return replace(config or BackboneConfig(), pretrained=False)
    if opened.kind == "imagenet":
        config = config or BackboneConfig()
        config = replace(config, name=imagenet_weights(config.name), pretrained=True)
        return _with_normalization(config, published_normalization(config.name))
    held = opened.backbone if opened.kind == "run" else _foreign_architecture(opened, config)
    if config is not None:
        _require_same(held, config, opened.path)
        held = replace(held, options=config.options)
    training = config or BackboneConfig()
    images = _normalization(training) or _normalization(held)
    return replace(
        held,
        **images,
        pretrained=False,
        frozen=training.frozen,
        frozen_norm=training.frozen_norm,
        freeze_stages=training.freeze_stages,
        drop_path=training.drop_path,
        grad_checkpointing=training.grad_checkpointing,
    )


def origin_of(opened: Opened, backbone: BackboneConfig | None = None) -> Initialisation:
    """Return the record of a backbone's origin.

    Args:
        backbone: The backbone's architecture; by default the one that INIT states.
    """
    architecture = backbone or architecture_of(opened)
    return Initialisation(plain_init(opened.init), architecture, opened.step, opened.sha256)


def _state_in_task(state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Return the backbone's state dict, given a task's: of `backbone`, or else of `X.backbone`."""
    matches = (re.match(r"(?:\w+\.)?backbone\.cnn\.", name) for name in state)
    prefixes = sorted({match[0] for match in matches if match}, key=len)
    if not prefixes:
        raise CheckpointError(f"{path} has no backbone among {listing(sorted(state))}")
    return without_prefix(state, prefixes[0])


def _foreign_architecture(opened: Opened, config: BackboneConfig | None) -> BackboneConfig:
    """Return the architecture of foreign weights: `config` if given, or else by their shapes."""
    published = opened.published
    if config is not None and published is None and opened.stated is None:
        return _with_named_normalization(config, opened.path)
    held = opened.backbone
    if published is not None and held != published.backbone:
        raise CheckpointError(
            f"{opened.path} holds a {held.name}, but {published.name} was published with a "
            f"{published.backbone.name}: it is another file. Remove it to download it again."
        )
    return held


def _with_named_normalization(config: BackboneConfig, path: Path) -> BackboneConfig:
    """Return the architecture of bare weights with the normalization of timm's weights of its name.

    It stays ImageNet's where the name is of weights with others each, and where options make the
    network one of which timm has none.
    """
    if config.image_mean is not None or config.options.keys() - SAME_WEIGHTS:
        return config
    known = named_normalizations(config.name)
    if len(known) > 1:
        log.warning(
            "%s: timm's weights %s were trained on images of %d normalizations, and ImageNet's is "
            "taken: name the weights, as in --backbone.name %s.TAG, or give --backbone.image_mean "
            "and --backbone.image_std",
            path, config.name, len(known), config.name,
        )  # fmt: skip
        return config
    (images,) = known
    if images:
        log.info(
            "%s: images are normalized by mean %s and deviation %s, as for timm's weights %s; "
            "--backbone.image_mean and --backbone.image_std give others",
            path, images["image_mean"], images["image_std"], config.name,
        )  # fmt: skip
    return replace(config, **images)


def _require_same(held: BackboneConfig, config: BackboneConfig, path: Path) -> None:
    """Check that two architectures have the same weights, whatever weights timm's tag names."""
    found, wanted = ((c.name.partition(".")[0], _of_weights_alone(c)) for c in (held, config))
    if found != wanted:
        raise CheckpointError(
            f"{path} holds a {found[0]} with options {found[1]}, but {wanted[0]} with options "
            f"{wanted[1]} was requested. Leave the backbone out to take the file's; in pretraining "
            f"give --backbone.name {FROM_INIT}."
        )


def _of_weights_alone(config: BackboneConfig) -> dict[str, Any]:
    """Return a network's options without the stride of its grid, and whether any size is taken."""
    free = (STRIDE_OPTION, SIZE_OPTION)
    return {name: value for name, value in config.options.items() if name not in free}
