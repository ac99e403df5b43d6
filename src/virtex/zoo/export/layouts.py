"""A backbone's weights under the names of other libraries.

The names for detectron2 are those of its tools/convert-torchvision-to-d2.py. That tool writes a
pickle; this module writes a torch file, which detectron2 reads as well and which runs no code.
"""

import logging
import re
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from virtex.errors import CheckpointError, ConfigError
from virtex.imagenet import IMAGENET_MEAN, IMAGENET_STD
from virtex.models.backbone import Backbone, named_normalizations
from virtex.models.renormalization import own_normalization
from virtex.models.state_dict import check_finite
from virtex.models.textual_head import HeadConfig
from virtex.models.transformer_sizes import HEAD_CHANNELS
from virtex.tasks.locca import LocCaConfig
from virtex.zoo.export.model import Model
from virtex.zoo.foreign import RESNETS, infer_resnet
from virtex.zoo.released import load_released, load_released_classifier, released_kind, to_released

PROBE_SIZE = 64
TOLERANCE = 1e-4
"""Largest allowed difference from torchvision's network, absolute and relative."""
log = logging.getLogger("virtex")
BLOCK = re.compile(r"layer(\d)\.(\d+)\.(.+)")
PARTS = {
    r"^bn(\d)\.": r"conv\1.norm.",
    r"^downsample\.0\.": "shortcut.",
    r"^downsample\.1\.": "shortcut.norm.",
}
"""Names of parts of a stem or block in torchvision, and in detectron2."""


def timm_state(backbone: Backbone) -> dict[str, Tensor]:
    """Return the state dict of timm.create_model(name, num_classes=0, **options)."""
    return {name: value.detach() for name, value in backbone.cnn.state_dict().items()}


def bare_state(backbone: Backbone) -> dict[str, Tensor]:
    """Return `timm_state` for a file of its own, which states no normalization.

    A warning names one that is not what the network's name implies.
    """
    config = backbone.config
    own = own_normalization(config.image_mean, config.image_std)
    if [own] != named_normalizations(config.name):
        log.warning(
            "this network's images are normalized by mean %s and deviation %s, which bare weights "
            "do not state: give --backbone.image_mean and --backbone.image_std with them, or "
            "export --format huggingface",
            config.image_mean or IMAGENET_MEAN, config.image_std or IMAGENET_STD,
        )  # fmt: skip
    return timm_state(backbone)


def torchvision_state(backbone: Backbone) -> dict[str, Tensor]:
    """Return the state dict of torchvision's ResNet of the same name, without `fc`.

    Raises:
        ConfigError: The backbone is none of torchvision's ResNets, or its features differ.
    """
    state = timm_state(backbone)
    name, reference = _torchvision_resnet(backbone, state)
    images = torch.randn(2, 3, PROBE_SIZE, PROBE_SIZE, generator=torch.Generator().manual_seed(0))
    reference.load_state_dict(state, assign=True)
    with torch.no_grad():
        expected, found = reference.eval()(images), backbone.eval().pooled(images)  # (2, C)
    if not torch.allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE):
        raise ConfigError(
            f"{_described(backbone)} has the weights of torchvision's {name}, but its options make "
            "it compute something else. `--format timm` takes every backbone."
        )
    return state


def detectron2_checkpoint(backbone: Backbone) -> dict[str, Any]:
    """Return the checkpoint of a ResNet for detectron2.

    Raises:
        ConfigError: The backbone is none of torchvision's ResNets.
    """
    state = torchvision_state(backbone)
    return {
        "model": {detectron2_name(name): value for name, value in state.items()},
        "__author__": "virtex",
        "matching_heuristics": True,  # its names are suffixes of those in a detector
    }


def released_checkpoint(model: Model) -> dict[str, Any]:
    """Return the checkpoint for the released VirTex code: a task, a released model, or a backbone.

    Raises:
        ConfigError: The backbone is none of torchvision's ResNets, or the released code would
            assume another number of attention heads, which the layout does not hold.
        CheckpointError: The task has parts that were never released, or a released file is
            incomplete.
    """
    torchvision_state(model.backbone)
    if not model.is_run:
        return {"model": to_released(_foreign_state(model))}
    task = model.opened.trained.task
    if isinstance(task, LocCaConfig):
        raise CheckpointError(
            f"{model.opened.init} was trained with LocCa, whose vocabulary has location tokens "
            "that the released code does not know. `--format safetensors` holds it."
        )
    head = getattr(task, "head", None)
    if isinstance(head, HeadConfig):
        _check_heads(head)
    return {"model": to_released(model.opened.state)}


def _foreign_state(model: Model) -> dict[str, Tensor]:
    """Return the state dict, under our names, of a released model or else of the backbone.

    Raises:
        CheckpointError: The released model is incomplete, or a weight is not finite.
    """
    state, path = model.opened.state, model.opened.path
    if not any(name.startswith("textual.") for name in state):
        return model.backbone.state_dict()
    is_classifier = released_kind(state, path) == "classification"
    load = load_released_classifier if is_classifier else load_released
    whole: dict[str, Tensor] = load(model.opened).state_dict()
    check_finite(whole, model.opened.init)
    return whole


def _check_heads(head: HeadConfig) -> None:
    if head.heads * HEAD_CHANNELS != head.hidden_size:
        raise ConfigError(
            f"the head has {head.heads} attention heads; the released code takes hidden_size / "
            f"{HEAD_CHANNELS} = {head.hidden_size / HEAD_CHANNELS:g} and would compute something "
            "else. `--format safetensors` holds any head."
        )


def detectron2_name(name: str) -> str:
    """Return detectron2's name for torchvision's name of a weight; its stages begin with 2."""
    block = BLOCK.fullmatch(name)
    prefix = f"res{int(block[1]) + 1}.{block[2]}." if block else "stem."
    part = block[3] if block else name
    for pattern, replacement in PARTS.items():
        part = re.sub(pattern, replacement, part)
    return prefix + part


def _torchvision_resnet(backbone: Backbone, state: dict[str, Tensor]) -> tuple[str, Any]:
    """Return the name of torchvision's network with the same shapes, and it without values."""
    try:
        name = infer_resnet(state, Path(backbone.config.name)).name
    except CheckpointError as error:
        raise ConfigError(_not_torchvision(backbone)) from error
    with torch.device("meta"):
        resnet = getattr(torchvision.models, name)()
        resnet.fc = nn.Identity()
    if _shapes(resnet.state_dict()) != _shapes(state):
        raise ConfigError(_not_torchvision(backbone))
    return name, resnet


def _shapes(state: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in state.items()}


def _not_torchvision(backbone: Backbone) -> str:
    return (
        f"{_described(backbone)} is none of torchvision's ResNets ({', '.join(RESNETS.values())}), "
        "which --format torchvision, detectron2 and original demand. `--format timm` takes every "
        "backbone."
    )


def _described(backbone: Backbone) -> str:
    options = backbone.config.options
    return f"backbone {backbone.config.name!r}" + (f" with options {options}" if options else "")
