"""The visual backbone: any timm network that gives a feature grid. The only door to timm."""

import functools
import inspect
import math
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import timm
import torch
from torch import Tensor, nn

from virtex.errors import CheckpointError, ConfigError, did_you_mean, raise_all
from virtex.models.batch_norm import batch_norms

LAST_STAGES = ("layer4", "s4", "stages.3")
"""What timm calls the last stage of a ResNet, a RegNet and a ConvNeXt."""
MAX_NUMBER, MAX_LENGTH, MAX_DEPTH = 100_000, 200, 1_000
"""Largest number, longest list, and most layers, among a network's options."""
DEPTH = re.compile(r"depth|layers|blocks|stage")
"""Names of options that say how many layers there are."""
WORD = re.compile(r"[A-Za-z0-9_]{1,40}")
"""An option that is text names a layer that timm knows; no path and no address looks like this."""
NOT_ARCHITECTURE = {"self", "kwargs", "cfg", "cfgs", "block_cfg", "device", "dtype"}
PROBE_SIZE = 64
"""Side, in pixels, of the blank image that shows what grid a network gives."""


@dataclass(frozen=True)
class BackboneConfig:
    """Which network turns images into feature grids, and how it starts."""

    name: str = "resnet50"
    """A timm model that gives a feature grid, convolutional or ViT: resnet50, resnet101,
    wide_resnet50_2, convnext_tiny, vit_small_patch16_224... `resnet50.tv_in1k` also names published
    weights."""
    pretrained: bool = False
    """Start from timm's published weights instead of at random."""
    frozen: bool = False
    """Train neither the weights nor BatchNorm's running statistics."""
    frozen_norm: bool = False
    """Of BatchNorm alone, train neither weights and biases nor running statistics: for fine-tuning
    published weights with few images in a batch."""
    options: dict[str, bool | int | float | str | list[int] | None] = field(default_factory=dict)
    """Passed to timm.create_model, e.g. {layers: [1, 1, 1, 1], channels: [32, 64, 128, 256]}."""


class Backbone(nn.Module):
    """Images (B, 3, H, W), normalised, to a feature grid (B, C, h, w).

    Parameters lie under `cnn` and, for ResNets, bear torchvision's names. timm starts the last
    BatchNorm of each residual block at zero, as the paper does.

    A ViT's grid is its tokens after the final norm, without class and register tokens; its position
    embeddings are resized to the image. What the grid does not depend on (a pooling head) stays
    untrained.
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
        self._leave_out_what_the_grid_does_not_need()
        self._freeze()
        self.train()

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) to their grid (B, C, h, w)."""
        if self.is_sequence:
            return _grid_of_tokens(self.cnn, images)
        grid = self.cnn.forward_features(images)
        return grid.permute(0, 3, 1, 2) if self.channels_come_last else grid

    @torch.no_grad()
    def grid_size(self, image_size: int) -> tuple[int, int]:
        """Rows and columns (h, w) of the grid of a square image.

        Raises:
            ConfigError: The network takes no such images.
        """
        was_training = self.training
        blank = torch.zeros(1, 3, image_size, image_size, device=next(self.parameters()).device)
        try:
            height, width = self.eval()(blank).shape[2:]
        except (AssertionError, RuntimeError, ValueError) as error:
            own = _probe_size(self.cnn)
            raise ConfigError(
                f"backbone {self.config.name!r} takes no images of {image_size} px: {error}\n"
                f"Set image.size to {own}, or try backbone.options {{img_size: {image_size}}}."
            ) from error
        finally:
            self.train(was_training)
        return height, width

    def pooled(self, images: Tensor) -> Tensor:
        """The mean of the grid over its cells, (B, C)."""
        return self(images).mean((2, 3))

    @torch.enable_grad()
    def _leave_out_what_the_grid_does_not_need(self) -> None:
        parameters = list(self.parameters())
        size = _probe_size(self.cnn)
        total = self.eval()(torch.zeros(1, 3, size, size)).sum()
        gradients = torch.autograd.grad(total, parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.requires_grad_(gradient is not None)

    def train(self, mode: bool = True) -> Self:
        """As nn.Module's, except that frozen statistics stay where they are."""
        super().train(mode and not self.config.frozen)
        if self.config.frozen_norm:
            for layer in batch_norms(self):
                layer.training = False
        return self

    def _freeze(self) -> None:
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

    @torch.no_grad()
    def stage_channels(self) -> dict[int, int]:
        """Channels of the grids that `stages` can give, by stride, finest first.

        Raises:
            ConfigError: The network gives its last grid alone, or others than it tells of.
        """
        if self.is_sequence:
            return {self.stride: self.num_channels}
        told, seen = {self.stride: self.num_channels}, dict[int, int]()
        if hasattr(self.cnn, "forward_intermediates") and hasattr(self.cnn, "feature_info"):
            told = {stage["reduction"]: stage["num_chs"] for stage in self.cnn.feature_info} | told
            was_training, size = self.training, _probe_size(self.cnn)
            blank = torch.zeros(1, 3, size, size, device=next(self.parameters()).device)
            grids = self.eval().stages(blank, list(told))
            self.train(was_training)
            seen = {size // grid.shape[2]: grid.shape[1] for grid in grids}
        if seen != told:
            raise ConfigError(
                f"backbone {self.config.name!r} does not give the grids of several strides that "
                "are needed. Choose a resnet, regnet, convnext, efficientnet, swin..."
            )
        return told

    @torch.no_grad()
    def last_stage(self) -> nn.Module:
        """What makes the grid of the last stride but one into that of the last, as in `forward`.

        Raises:
            ConfigError: No part of the network does that alone.
        """
        modules = dict(self.cnn.named_modules())
        candidates = [modules[name] for name in LAST_STAGES if name in modules]
        strides = list(self.stage_channels())
        if not candidates or len(strides) < 2:
            raise self._no_last_stage()
        was_training, size = self.training, _probe_size(self.cnn)
        ramp = torch.linspace(-1, 1, 3 * size**2, device=next(self.parameters()).device)
        before, after = self.eval().stages(ramp.view(1, 3, size, size), strides[-2:])
        try:
            is_whole = torch.equal(candidates[0](before), after)
        except RuntimeError:  # the strides of the last stages are one
            is_whole = False
        finally:
            self.train(was_training)
        if not is_whole:
            raise self._no_last_stage()
        return candidates[0]

    def _no_last_stage(self) -> ConfigError:
        return ConfigError(
            f"backbone {self.config.name!r} has no last stage that can be run on regions (C4). "
            "Choose a resnet, resnext, regnet or convnext with its usual stride of 32, or the "
            "architecture fpn."
        )

    def stages(self, images: Tensor, strides: Sequence[int]) -> list[Tensor]:
        """Grids (B, C, h, w) at several strides, finest first, in one pass.

        Of several stages of one stride it is the deepest, and for `self.stride` what `forward`
        gives. Stages deeper than the last one are not run.
        """
        if list(strides) == [self.stride]:
            return [self(images)]
        places = {stage["reduction"]: place for place, stage in enumerate(self.cnn.feature_info)}
        indices = [places[stride] for stride in strides]
        if strides[-1] != self.stride:
            return self.cnn.forward_intermediates(
                images, indices=indices, stop_early=True, intermediates_only=True
            )
        last, grids = self.cnn.forward_intermediates(images, indices=indices)
        return [*grids[:-1], last.permute(0, 3, 1, 2) if self.channels_come_last else last]


def _create(config: BackboneConfig) -> Any:
    """The timm network without its classifier."""
    if not timm.is_model(config.name):
        hint = did_you_mean(config.name, timm.list_models(), few=True)
        raise ConfigError(
            f"unknown backbone {config.name!r}. {hint} `timm.list_models()` lists what there is."
        )
    _check_options(config)
    options = dict(config.options)
    try:
        model = timm.create_model(config.name, pretrained=False, num_classes=0, **options)
    except (TypeError, ValueError, AssertionError) as error:
        raise ConfigError(
            f"timm cannot build {config.name!r} with options {options}: {error}\n"
            "backbone.options takes the keyword arguments of timm.create_model."
        ) from error
    if _is_sequence_of_fixed_size(model) and "dynamic_img_size" not in options:
        try:
            model = timm.create_model(
                config.name, pretrained=False, num_classes=0, dynamic_img_size=True, **options
            )
            options["dynamic_img_size"] = True
        except TypeError:
            pass  # it takes images of its own size alone; `grid_size` says so
    return _with_published_weights(config.name, options) if config.pretrained else model


def _check_options(config: BackboneConfig) -> None:
    """Take options that describe an architecture, and nothing that opens a file or an address.

    Weights files bring options along, and timm has some that read files (checkpoint_path) or fetch
    (pretrained_cfg).

    Raises:
        ConfigError: All that are refused.
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


@functools.cache
def _architecture_options() -> frozenset[str]:
    """Return the arguments of all networks' classes in timm."""
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
    """Whether an option's value is a number, a list of numbers or a word, and none absurd."""
    if isinstance(value, list | tuple):
        return len(value) <= MAX_LENGTH and all(_is_bounded(item, limit) for item in value)
    if isinstance(value, str):
        return WORD.fullmatch(value) is not None
    return value is None or (math.isfinite(value) and abs(value) <= limit)


def _is_sequence_of_fixed_size(model: Any) -> bool:
    return hasattr(model, "num_prefix_tokens") and bool(
        model.pretrained_cfg.get("fixed_input_size")
    )


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
    """A resolution that the network accepts."""
    settings = model.pretrained_cfg
    return int(settings["input_size"][-1]) if settings.get("fixed_input_size") else PROBE_SIZE


@torch.no_grad()
def _probe(model: Any, name: str) -> tuple[Tensor, bool]:
    """The network's grid of one blank image, and whether it is made of a sequence of tokens.

    Raises:
        ConfigError: There is no grid.
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
    """The last tokens of a ViT, less class and register tokens, as a grid (B, C, h, w)."""
    (grid,) = model.forward_intermediates(images, indices=1, norm=True, intermediates_only=True)
    return grid
