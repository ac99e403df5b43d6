"""State dicts of other software: torchvision, timm, MoCo, and the released VirTex."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from virtex.errors import CheckpointError, listing
from virtex.models.backbone import BackboneConfig

WRAPPERS = ("model", "state_dict")
"""Keys under which training checkpoints hold a state dict."""
DATA_PARALLEL = "module."
PREFIXES = ("encoder_q.", "visual.cnn.", "")
"""Prefixes of a network's names in files of MoCo, VirTex, and all others."""
CLASSIFIERS = ("fc.", "head.", "head_dist.", "classifier.")
"""Prefixes of classifiers and projection heads in torchvision, MoCo and timm."""
KINDS = (
    "a state dict of a torchvision or timm network, a MoCo checkpoint, or a released VirTex "
    "checkpoint"
)
RESNETS: dict[tuple[bool, int, tuple[int, ...]], str] = {
    # whether blocks are bottlenecks, width of the first block, number of blocks in each stage
    (False, 64, (2, 2, 2, 2)): "resnet18",
    (False, 64, (3, 4, 6, 3)): "resnet34",
    (True, 64, (3, 4, 6, 3)): "resnet50",
    (True, 64, (3, 4, 23, 3)): "resnet101",
    (True, 64, (3, 8, 36, 3)): "resnet152",
    (True, 128, (3, 4, 6, 3)): "wide_resnet50_2",
    (True, 128, (3, 4, 23, 3)): "wide_resnet101_2",
}


def unwrap(values: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """Return the state dict among a file's values, without the prefix of data-parallel training.

    Raises:
        CheckpointError: The file holds no state dict.
    """
    for wrapper in WRAPPERS:
        if isinstance(values.get(wrapper), Mapping):
            values = values[wrapper]
    strangers = [
        name
        for name, value in values.items()
        if not isinstance(name, str) or not isinstance(value, Tensor)
    ]
    if strangers or not values:
        raise CheckpointError(
            f"{path} holds no state dict: found {listing(strangers) or 'nothing'}; expected "
            f"tensors, bare or under {' or '.join(WRAPPERS)}. Allowed is {KINDS}."
        )
    if all(name.startswith(DATA_PARALLEL) for name in values):
        return without_prefix(values, DATA_PARALLEL)
    return dict(values)


def backbone_state(
    state: Mapping[str, Tensor], path: Path, *, names: Iterable[str] = ("conv1.weight",)
) -> dict[str, Tensor]:
    """Return the backbone's part of a state dict, without prefix and classifier.

    Args:
        names: Names of the backbone's weights, by which the part is found; by default a ResNet's.

    Raises:
        CheckpointError: The state dict has none of the names, with any of the known prefixes.
    """
    names = set(names)
    found = {prefix: sum(f"{prefix}{name}" in state for name in names) for prefix in PREFIXES}
    prefix = max(found, key=lambda prefix: found[prefix])
    if not found[prefix]:
        raise CheckpointError(
            f"{path} has no known backbone: its keys are {listing(list(state))}; expected "
            f"{listing(sorted(names))}. Allowed is {KINDS}."
        )
    return {
        name: value
        for name, value in without_prefix(state, prefix).items()
        if name in names or not name.startswith(CLASSIFIERS)
    }


def without_prefix(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the part of a state dict whose names begin with `prefix`, which is removed."""
    return {
        name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)
    }


def infer_resnet(state: Mapping[str, Tensor], path: Path) -> BackboneConfig:
    """Return the architecture of a ResNet, by the names and shapes of its state dict.

    Raises:
        CheckpointError: The network is none of torchvision's ResNets.
    """
    blocks = tuple(
        len({name.split(".")[1] for name in state if name.startswith(f"layer{stage}.")})
        for stage in (1, 2, 3, 4)
    )
    first = state.get("layer1.0.conv1.weight")
    width = len(first) if first is not None and first.dim() else 0
    name = RESNETS.get(("layer1.0.conv3.weight" in state, width, blocks))
    if name is None:
        raise CheckpointError(
            f"{path}: a network of {blocks} blocks of width {width} is none of torchvision's "
            f"ResNets ({', '.join(RESNETS.values())}). Name its architecture: backbone.name."
        )
    return BackboneConfig(name=name)
