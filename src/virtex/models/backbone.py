"""The visual backbone, any timm network with a feature grid; the only module that imports timm."""

import inspect
import math
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, Self

import timm
import torch
from torch import Tensor, nn

from virtex.errors import CheckpointError, ConfigError, did_you_mean, raise_all
from virtex.models.batch_norm import batch_norms
from virtex.options.dependents import register_dependents

LAST_STAGES = ("layer4", "s4", "stages.3")
"""timm's names of the last stage of a ResNet, a RegNet and a ConvNeXt."""
MAX_NUMBER, MAX_LENGTH, MAX_DEPTH = 100_000, 200, 1_000
"""Largest number, list length and number of layers among a network's options."""
DEPTH = re.compile(r"depth|layers|blocks|stage")
"""Names of options that are numbers of layers."""
WORD = re.compile(r"[A-Za-z0-9_]{1,40}")
"""Names of timm's layers, the only text that an option may be; no path or address matches."""
NOT_ARCHITECTURE = {"self", "kwargs", "cfg", "cfgs", "block_cfg", "device", "dtype"}
PROBE_SIZE = 64
"""Side, in pixels, of the blank image with which a network's grid is probed."""


@dataclass(frozen=True)
class BackboneConfig:
    """Architecture and initialization of the backbone."""

    name: str = "resnet50"
    """A timm model with a feature grid, convolutional or ViT: resnet50, resnet101, wide_resnet50_2,
    convnext_tiny, vit_small_patch16_224... `resnet50.tv_in1k` also names published weights."""
    pretrained: bool = False
    """Start from timm's published weights instead of random ones."""
    frozen: bool = False
    """Train neither the weights nor BatchNorm's running statistics."""
    frozen_norm: bool = False
    """Train neither BatchNorm's weights and biases nor its running statistics, to fine-tune
    published weights with few images in a batch."""
    options: dict[str, bool | int | float | str | list[int] | None] = field(default_factory=dict)
    """Arguments of timm.create_model, e.g. {layers: [1, 1, 1, 1], channels: [32, 64, 128, 256]}.
    A flag or later file that gives another name puts back those of earlier files."""


register_dependents(BackboneConfig, {"name": lambda name, option: option != "options"})


class Backbone(nn.Module):
    """A network from normalized images (B, 3, H, W) to feature grids (B, C, h, w).

    Parameter names begin with `cnn.`; a ResNet's continue with torchvision's names. timm
    initializes the last BatchNorm of each residual block with zero, as in the paper.

    A ViT's grid is its tokens after the final norm, without class and register tokens; its position
    embeddings are resized to the image. Parameters on which the grid does not depend (those of a
    pooling head) are not trained.
    """

    cnn: Any
    """The timm network."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.config = config
        self.cnn = _create(config)
        grid, self.is_sequence = _probe(self.cnn, config.name)
        _, *cells = grid.shape
        self.channels_come_last = cells[2] == self.cnn.num_features != cells[0]
        self.num_channels = cells[2] if self.channels_come_last else cells[0]
        self.stride = _probe_size(self.cnn) // cells[1]
        self._freeze()
        self.train()

    def forward(self, images: Tensor) -> Tensor:
        """Return the grid (B, C, h, w) of images (B, 3, H, W)."""
        if self.is_sequence:
            return _grid_of_tokens(self.cnn, images)
        grid = self.cnn.forward_features(images)
        return grid.permute(0, 3, 1, 2) if self.channels_come_last else grid

    def grid_size(self, image_size: int) -> tuple[int, int]:
        """Return the numbers of rows and columns (h, w) of a square image's grid.

        Raises:
            ConfigError: The network takes no such images.
        """
        try:
            with self._evaluation():
                height, width = self(self._blank_image(image_size)).shape[2:]
        except (AssertionError, RuntimeError, ValueError) as error:
            own = _probe_size(self.cnn)
            raise ConfigError(
                f"backbone {self.config.name!r} takes no images of {image_size} px: {error}\n"
                f"Set image.size to {own}, or try backbone.options {{img_size: {image_size}}}."
            ) from error
        return height, width

    def pooled(self, images: Tensor) -> Tensor:
        """Return the mean of the grid over its cells, (B, C)."""
        return self(images).mean((2, 3))

    def train(self, mode: bool = True) -> Self:
        """Set the training mode, except of frozen parts."""
        super().train(mode and not self.config.frozen)
        if self.config.frozen_norm:
            for layer in batch_norms(self):
                layer.training = False
        return self

    def _freeze(self) -> None:
        """Exclude parameters from training that are frozen or do not influence the grid."""
        parameters = list(self.parameters())
        with torch.enable_grad():
            total = self.eval()(self._blank_image(_probe_size(self.cnn))).sum()
        gradients = torch.autograd.grad(total, parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.requires_grad_(gradient is not None)
        if self.config.frozen:
            self.requires_grad_(False)
        if self.config.frozen_norm:
            layers = batch_norms(self)
            if not layers:
                raise ConfigError(
                    f"backbone {self.config.name!r} has no BatchNorm: set frozen_norm to false"
                )
            for layer in layers:
                layer.requires_grad_(False)

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
        """Return the channels of all grids of `stages` by stride, finest first.

        Raises:
            ConfigError: The network has its last grid alone, or grids other than timm lists.
        """
        listed, found = {self.stride: self.num_channels}, dict[int, int]()
        if self.is_sequence:
            return listed
        if hasattr(self.cnn, "forward_intermediates") and hasattr(self.cnn, "feature_info"):
            stages = {stage["reduction"]: stage["num_chs"] for stage in self.cnn.feature_info}
            listed = stages | listed
            size = _probe_size(self.cnn)
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
            blank = self._blank_image(_probe_size(self.cnn))
            ramp = torch.linspace(-1, 1, blank.numel(), device=blank.device).view_as(blank)
            with self._evaluation():
                before, after = self.stages(ramp, strides[-2:])
                with suppress(RuntimeError):  # the last stages have equal strides
                    is_last = torch.equal(candidates[0](before), after)
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
        indices = [deepest[stride] for stride in strides]
        if strides[-1] != self.stride:
            return self.cnn.forward_intermediates(
                images, indices=indices, stop_early=True, intermediates_only=True
            )
        last, grids = self.cnn.forward_intermediates(images, indices=indices)
        return [*grids[:-1], last.permute(0, 3, 1, 2) if self.channels_come_last else last]


def _create(config: BackboneConfig) -> Any:
    """Return the timm network without its classifier."""
    if not timm.is_model(config.name):
        hint = did_you_mean(config.name, timm.list_models(), few=True)
        raise ConfigError(
            f"unknown backbone {config.name!r}. {hint} `timm.list_models()` lists all."
        )
    _check_options(config)
    options = dict(config.options)
    create = partial(timm.create_model, config.name, pretrained=False, num_classes=0)
    try:
        model = create(**options)
    except (TypeError, ValueError, AssertionError) as error:
        raise ConfigError(
            f"timm cannot build {config.name!r} with options {options}: {error}\n"
            "backbone.options takes the keyword arguments of timm.create_model."
        ) from error
    is_fixed = hasattr(model, "num_prefix_tokens") and model.pretrained_cfg.get("fixed_input_size")
    if is_fixed and "dynamic_img_size" not in options:
        with suppress(TypeError):  # the network takes one image size only; `grid_size` says so
            model = create(dynamic_img_size=True, **options)
            options["dynamic_img_size"] = True
    return _with_published_weights(config.name, options) if config.pretrained else model


def _check_options(config: BackboneConfig) -> None:
    """Allow only options of an architecture, none that opens a file or an address.

    Weights files contain options, and some of timm's read files (checkpoint_path) or download
    (pretrained_cfg).

    Raises:
        ConfigError: Some options are not allowed.
    """
    names = _architecture_options()
    problems = [
        f"{name} is no option of an architecture. {did_you_mean(name, names, few=True)}"
        for name in config.options.keys() - names
    ]
    problems += [
        f"{name} {value!r}: give numbers up to {MAX_NUMBER:,} (layers {MAX_DEPTH:,}), lists up to "
        f"{MAX_LENGTH} long, or a layer's name"
        for name, value in config.options.items()
        if not _is_bounded(value, MAX_DEPTH if DEPTH.search(name) else MAX_NUMBER)
    ]
    raise_all(ConfigError, f"backbone.options of {config.name!r} cannot work", sorted(problems))


@cache
def _architecture_options() -> frozenset[str]:
    """Return the names of all arguments of timm's network classes."""
    modules = [m for name, m in sys.modules.items() if name.startswith("timm.models.")]
    signatures = [
        inspect.signature(member.__init__).parameters.keys()
        for module in modules
        for member in vars(module).values()
        if inspect.isclass(member) and issubclass(member, nn.Module)
    ]
    networks = [names for names in signatures if "num_classes" in names]
    return frozenset().union(*networks) - NOT_ARCHITECTURE


def _is_bounded(value: Any, limit: int) -> bool:
    """Return whether an option's value is a bounded number, a short list of them, or a word."""
    if isinstance(value, list | tuple):
        return len(value) <= MAX_LENGTH and all(_is_bounded(item, limit) for item in value)
    if isinstance(value, str):
        return WORD.fullmatch(value) is not None
    return value is None or (math.isfinite(value) and abs(value) <= limit)


def _with_published_weights(name: str, options: dict[str, Any]) -> Any:
    try:
        return timm.create_model(name, pretrained=True, num_classes=0, **options)
    except Exception as error:  # timm's hosts raise errors of several HTTP libraries
        raise CheckpointError(
            f"cannot get the published weights of {name!r}: {error}\n"
            "They are fetched once over the network and then cached; fetch them on a machine that "
            "has a network, or set backbone.pretrained to false."
        ) from error


def _probe_size(model: Any) -> int:
    """Return an image size that the network accepts."""
    settings = model.pretrained_cfg
    return int(settings["input_size"][-1]) if settings.get("fixed_input_size") else PROBE_SIZE


@torch.no_grad()
def _probe(model: Any, name: str) -> tuple[Tensor, bool]:
    """Return the grid of one blank image, and whether it is made from a sequence of tokens.

    Raises:
        ConfigError: The network has no grid.
    """
    size = _probe_size(model)
    images = torch.zeros(1, 3, size, size)
    features = model.eval().forward_features(images)
    if isinstance(features, Tensor) and features.dim() == 4:
        return features, False
    try:
        return _grid_of_tokens(model, images), True
    except (AttributeError, AssertionError, TypeError, ValueError) as error:
        shape = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise ConfigError(
            f"backbone {name!r} gives no feature grid (B, C, h, w) but {shape}. "
            "Choose a network with a grid: a resnet, regnet, convnext, efficientnet, swin, vit..."
        ) from error


def _grid_of_tokens(model: Any, images: Tensor) -> Tensor:
    """Return a ViT's last tokens, without class and register tokens, as a grid (B, C, h, w)."""
    (grid,) = model.forward_intermediates(images, indices=1, norm=True, intermediates_only=True)
    return grid
