"""The visual backbone, any timm network with a feature grid; the only module that imports timm."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any, Self

import timm
import torch
from torch import Tensor, nn

from virtex.errors import CheckpointError, ConfigError, did_you_mean
from virtex.models.backbone_config import STRIDE_OPTION, BackboneConfig
from virtex.models.backbone_groups import (
    first_groups,
    has_drop_path,
    layer_groups,
    modules_of,
    norm_names,
)
from virtex.models.backbone_options import check_options
from virtex.models.batch_norm import batch_norms
from virtex.models.blind import BLIND, build_blind
from virtex.models.feature_grid import grid_of_tokens, probe, reason
from virtex.models.grad_checkpointing import checkpoint_blocks
from virtex.models.renormalization import Renormalization, own_normalization

__all__ = [
    "Backbone",
    "BackboneConfig",
    "fitted_to",
    "imagenet_weights",
    "named_normalizations",
    "native_size",
    "published_normalization",
]

log = logging.getLogger("virtex")

LAST_STAGES = ("layer4", "s4", "stages.3")
"""timm's names of the last stage of a ResNet, a RegNet and a ConvNeXt."""
PAPERS_TAG = "tv_in1k"
"""timm's tag of torchvision's first weights, from which the paper's baselines start."""
STRIDES = "output_stride is of most convolutional networks, and 8, 16 or 32: else leave it out."
"""What an error says of a network that cannot have a stride."""


class Backbone(nn.Module):
    """A network from normalized images (B, 3, H, W) to feature grids (B, C, h, w).

    Images are normalized by ImageNet's mean and deviation whatever the network; one whose config
    has others changes them itself.

    Parameter names begin with `cnn.`; a ResNet's continue with torchvision's names. timm
    initializes the last BatchNorm of each residual block with zero, as in the paper.

    A ViT's grid is its tokens after the final norm, without class and register tokens; its position
    embeddings are resized to the image. Parameters on which the grid does not depend (those of a
    pooling head) are not trained.
    """

    cnn: Any
    """The timm network."""
    own_size: int
    """Side of square images that the network takes, in pixels."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.config = config
        self.cnn = _create(config)
        self.renormalize: nn.Module = nn.Identity()
        if config.image_mean is not None and config.image_std is not None:
            self.renormalize = Renormalization(config.image_mean, config.image_std)
        grid = probe(self.cnn, name=config.name, options=config.options)
        self.own_size, self.stride = grid.image_size, grid.stride
        self.num_channels, self.channels_come_last = grid.num_channels, grid.channels_come_last
        self.is_sequence, self._idle = grid.is_sequence, grid.idle
        self.is_frozen, self._is_checkpointed = config.frozen, False
        self._norms = norm_names(self.cnn, name=config.name) if config.frozen_norm else set()
        self._held = self._held_parameters()
        self._set_learning()
        self._checkpoint_blocks()
        self.train()

    def forward(self, images: Tensor) -> Tensor:
        """Return the grid (B, C, h, w) of images (B, 3, H, W)."""
        images = self.renormalize(images)
        if self.is_sequence:
            return grid_of_tokens(self.cnn, images)
        grid = self.cnn.forward_features(images)
        return grid.permute(0, 3, 1, 2) if self.channels_come_last else grid

    def grid_size(self, image_size: int) -> tuple[int, int]:
        """Return the numbers of rows and columns (h, w) of a square image's grid.

        Raises:
            ConfigError: The network accepts no images of this size, or gives no grid.
        """
        try:
            with self._evaluation():
                height, width = self(self._blank_image(image_size)).shape[2:]
        except Exception as error:  # timm's networks raise errors of many kinds
            raise ConfigError(
                f"backbone {self.config.name!r} takes no images of {image_size} px "
                f"({reason(error)}). Set the image size to {self.own_size}, or "
                "choose a network that takes any size, such as a resnet or convnext."
            ) from error
        return height, width

    def fix_size(self, image_size: int) -> None:
        """Resize a ViT's position embeddings to an image size once, not in each forward pass."""
        if getattr(self.cnn, "dynamic_img_size", False) and hasattr(self.cnn, "set_input_size"):
            self.cnn.set_input_size(img_size=(image_size, image_size))

    def pooled(self, images: Tensor) -> Tensor:
        """Return the mean of the grid over its cells, (B, C)."""
        return self(images).mean((2, 3))

    def train(self, mode: bool = True) -> Self:
        """Set the training mode, except of frozen parts."""
        super().train(mode and not self.is_frozen)
        for module in modules_of(self.cnn, self._held):
            module.eval()
        if self.config.frozen_norm:
            for layer in batch_norms(self):
                layer.training = False
        return self

    def unfreeze(self, *, is_learned: bool = True) -> None:
        """Train from now on what `frozen` and `freeze_stages` kept; `frozen_norm` stays.

        Args:
            is_learned: Whether the weights are learned by gradient, not those of a momentum copy.
        """
        mode = self.training or self.is_frozen
        self.is_frozen, self._held = False, set()
        if is_learned:
            self._set_learning()
            self.eval()
            self._checkpoint_blocks()
        self.train(mode)

    def layer_groups(self) -> dict[str, int]:
        """Return the group of layers of each parameter by name: 0 is the stem's.

        Raises:
            ConfigError: timm knows no groups of this network.
        """
        group = timm.models.group_parameters
        groups = layer_groups(self.cnn, group, name=self.config.name, idle=self._idle)
        return {f"cnn.{name}": number for name, number in groups.items()}

    def _held_parameters(self) -> set[str]:
        """Return the names of parameters that are frozen, maybe for a time."""
        if self.config.frozen:
            return {name for name, _ in self.cnn.named_parameters()}
        if not self.config.freeze_stages:
            return set()
        groups = self.layer_groups()
        held = first_groups(groups, self.config.freeze_stages, name=self.config.name)
        return {name.removeprefix("cnn.") for name in held}

    def _set_learning(self) -> None:
        for name, parameter in self.cnn.named_parameters():
            parameter.requires_grad_(name not in self._idle | self._norms | self._held)

    def _checkpoint_blocks(self) -> None:
        """Turn gradient checkpointing on, if it is wanted and there are gradients."""
        if self.config.grad_checkpointing and not (self.is_frozen or self._is_checkpointed):
            blank = self._blank_image(self.own_size)
            checkpoint_blocks(self.cnn, lambda: self(blank), name=self.config.name)
            self._is_checkpointed = True

    @contextmanager
    def _evaluation(self) -> Iterator[None]:
        """Evaluate without gradient, then restore the training mode."""
        was_training = self.training
        try:
            with torch.no_grad():
                self.eval()
                yield
        finally:
            self.train(was_training)

    def _blank_image(self, size: int) -> Tensor:
        return torch.zeros(1, 3, size, size, device=next(self.parameters()).device)

    def stage_channels(self) -> dict[int, int]:
        """Return the channels of all grids of `stages` by stride, finest first; a ViT has one.

        Raises:
            ConfigError: The network's grids are others than timm lists.
        """
        listed, found = {self.stride: self.num_channels}, dict[int, int]()
        if self.is_sequence:
            return listed
        if hasattr(self.cnn, "forward_intermediates") and hasattr(self.cnn, "feature_info"):
            stages = {stage["reduction"]: stage["num_chs"] for stage in self.cnn.feature_info}
            listed = stages | listed
            size = self.own_size
            with self._evaluation():
                grids = self.stages(self._blank_image(size), list(listed))
            found = {size // grid.shape[2]: grid.shape[1] for grid in grids}
        if found != listed:
            raise ConfigError(
                f"backbone {self.config.name!r} does not give the grids of several strides that "
                "are needed. Choose a resnet, regnet, convnext, efficientnet, swin..."
            )
        return listed

    def last_stage(self) -> nn.Module:
        """Return the module from the second to last grid to that of `forward`.

        Raises:
            ConfigError: The network has no such module.
        """
        modules = dict(self.cnn.named_modules())
        candidates = [modules[name] for name in LAST_STAGES if name in modules]
        strides, is_last = list(self.stage_channels()), False
        if candidates and len(strides) > 1:
            blank = self._blank_image(self.own_size)
            ramp = torch.linspace(-1, 1, blank.numel(), device=blank.device).view_as(blank)
            with self._evaluation():
                before, after = self.stages(ramp, strides[-2:])
                with suppress(RuntimeError):  # the last stages have equal strides
                    is_last = after.is_meta or torch.equal(candidates[0](before), after)
        if not is_last:
            raise ConfigError(
                f"backbone {self.config.name!r} has no last stage that can be run on regions (C4). "
                "Choose a resnet, resnext, regnet or convnext with its usual stride of 32, or the "
                "architecture fpn."
            )
        return candidates[0]

    def stages(self, images: Tensor, strides: Sequence[int]) -> list[Tensor]:
        """Return grids (B, C, h, w) at several strides, finest first, in one pass.

        If several stages have a stride, the deepest counts; for `self.stride` the grid is that of
        `forward`. Deeper stages are not run.
        """
        if list(strides) == [self.stride]:
            return [self(images)]
        deepest = {stage["reduction"]: index for index, stage in enumerate(self.cnn.feature_info)}
        indices, images = [deepest[stride] for stride in strides], self.renormalize(images)
        if strides[-1] != self.stride:
            return self.cnn.forward_intermediates(
                images, indices=indices, stop_early=True, intermediates_only=True
            )
        last, grids = self.cnn.forward_intermediates(images, indices=indices)
        return [*grids[:-1], last.permute(0, 3, 1, 2) if self.channels_come_last else last]


def native_size(name: str) -> int | None:
    """Return the image size that timm states for an architecture, in pixels; None if unknown."""
    size = getattr(_published(name), "input_size", None)
    return int(size[-1]) if size else None


def _published(name: str) -> Any:
    """Return timm's config of the weights of a name, None of a network that it does not know.

    Raises:
        ConfigError: timm has no weights of that tag.
    """
    try:
        return timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    except RuntimeError as error:
        network, _, tag = name.partition(".")
        hint = did_you_mean(name, timm.list_pretrained(f"{network}.*"))
        raise ConfigError(f"timm has no weights {tag!r} of {network}. {hint}") from error


def fitted_to(config: BackboneConfig, image_size: int) -> BackboneConfig:
    """Return the architecture that takes square images of a size.

    Most networks take any size. Others, such as swin or mixer, are built for one: of these the
    option `img_size` is set, unless it is given.

    Raises:
        ConfigError: The network can be built for its own size alone, or cannot be built.
    """
    known = _published(config.name)
    if not timm.is_model(config.name) or "img_size" in config.options:
        return config
    if known is not None and not known.fixed_input_size:
        return config
    sized = replace(config, options={**config.options, "img_size": image_size})
    try:
        _check_size(config, image_size)
    except ConfigError as refusal:
        try:
            _check_size(sized, image_size)
        except ConfigError:
            raise refusal from None
        log.info("backbone %s is built for images of %d px", config.name, image_size)
        return sized
    return config


def _check_size(config: BackboneConfig, image_size: int) -> None:
    """Raise ConfigError unless an architecture takes square images of a size."""
    random = replace(config, pretrained=False, frozen_norm=False, grad_checkpointing=False)
    with torch.device("meta"):
        backbone = Backbone(random)
        backbone.grid_size(image_size)
    if not getattr(backbone.cnn, "dynamic_img_size", False):  # indices are not checked without data
        with torch.random.fork_rng(devices=[]):
            Backbone(random).grid_size(image_size)


def imagenet_weights(name: str) -> str:
    """Return timm's whole name, with a tag, of the weights for ImageNet of a network.

    A tag in the name is kept. ResNets without one get torchvision's first weights, as the paper's
    baselines have; other networks get timm's default.
    """
    (base, _, tag), known = name.partition("."), _published(name)
    if tag or known is None:
        return name
    papers = f"{base}.{PAPERS_TAG}"
    if "resne" in base and timm.list_pretrained(papers):
        return papers
    default = getattr(known, "tag", "")
    return f"{base}.{default}" if default else name


def published_normalization(name: str) -> dict[str, tuple[float, ...]]:
    """Return the options of a backbone for the images of timm's weights of a name."""
    known = _published(name)
    return own_normalization(known.mean, known.std) if known is not None else {}


def named_normalizations(name: str) -> list[dict[str, Any]]:
    """Return the options for the images of timm's weights of a name, each once; at least one.

    A name without a tag stands for all weights of the network that timm publishes.
    """
    names = [name] if "." in name else timm.list_pretrained(f"{name}.*")
    options = [published_normalization(one) for one in names or [name]]
    return [one for index, one in enumerate(options) if one not in options[:index]]


def _create(config: BackboneConfig) -> Any:
    """Return the timm network without its classifier, or the one that sees nothing."""
    if config.name == BLIND:
        has_options = bool(config.options or config.drop_path)
        return build_blind(has_options=has_options, pretrained=config.pretrained)
    if not timm.is_model(config.name):
        hint = did_you_mean(config.name, timm.list_models(), few=True)
        raise ConfigError(
            f"unknown backbone {config.name!r}. {hint} `timm.list_models()` lists all."
        )
    check_options(config.name, config.options)
    options = dict(config.options)
    if config.drop_path:
        return _with_drop_path(config)
    create = partial(timm.create_model, config.name, pretrained=False, num_classes=0)
    try:
        model = create(**options)
    except Exception as error:  # of many kinds, as the options may be anything
        of_stride = f" {STRIDES}" if STRIDE_OPTION in options else ""
        raise ConfigError(
            f"timm cannot build {config.name!r} with options {options} ({reason(error)}). "
            f"backbone.options takes the keyword arguments of timm.create_model.{of_stride}"
        ) from error
    is_fixed = hasattr(model, "num_prefix_tokens") and model.pretrained_cfg.get("fixed_input_size")
    if is_fixed and "dynamic_img_size" not in options:
        with suppress(TypeError):  # the network takes one image size only; `grid_size` says so
            model = create(dynamic_img_size=True, **options)
            options["dynamic_img_size"] = True
    return _with_published_weights(config.name, options) if config.pretrained else model


def _with_drop_path(config: BackboneConfig) -> Any:
    """Return the network with stochastic depth, which must have an effect."""
    options = {**config.options, "drop_path_rate": config.drop_path}
    refusal = (
        f"backbone {config.name!r} cannot drop residual branches (or has a single block): set "
        "backbone.drop_path to 0, or choose a resnet, convnext, vit, swin, efficientnet..."
    )
    try:
        network = _create(replace(config, drop_path=0.0, options=options))
    except ConfigError as error:
        raise ConfigError(f"{refusal} ({error})") from error
    if not has_drop_path(network):
        raise ConfigError(refusal)
    return network


def _with_published_weights(name: str, options: dict[str, Any]) -> Any:
    try:
        return timm.create_model(name, pretrained=True, num_classes=0, **options)
    except Exception as error:  # timm's hosts raise errors of several HTTP libraries
        raise CheckpointError(
            f"cannot get the published weights of {name!r}: {error}\n"
            "They are fetched once over the network and then cached; fetch them on a machine that "
            "has a network, or set backbone.pretrained to false."
        ) from error
