"""State dicts of other software: torchvision, timm, MoCo, DINO, VISSL, and the released VirTex.

A checkpoint holds a state dict, bare or under keys such as `state_dict`. In it, a network's weights
have any prefix, such as `module.` or `encoder_q.`; the network's own names tell which. If there are
several, averaged weights are taken, as timm and DINO evaluate, and MoCo's query encoder.
"""

import logging
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from virtex.errors import CheckpointError, listing
from virtex.models.backbone import BackboneConfig
from virtex.models.state_dict import COUNTER

log = logging.getLogger("virtex")
WRAPPERS = (
    "state_dict_ema", "model_ema", "ema", "teacher",
    "model", "state_dict", "model_state_dict", "net", "network", "module", "student",
    "classy_state_dict", "base_model", "trunk", "backbone", "encoder",
)  # fmt: skip
"""Keys under which checkpoints hold a state dict, or further such keys; the first ones first."""
MAX_WRAPPERS = 8
"""Largest number of such keys within each other."""
DATA_PARALLEL, COMPILED = "module.", "_orig_mod."
PREFERRED = ("encoder_q", "teacher")
"""Parts of a prefix by which one of several networks is taken: MoCo's, and DINO's."""
CLASSIFIERS = ("fc.", "head.", "head_dist.", "classifier.", "projection_head.", "prototypes.")
"""Prefixes of classifiers and projection heads in torchvision, MoCo, timm and SwAV."""
RESNET_NAMES = ("conv1.weight", "layer1.0.conv1.weight", "layer4.0.conv1.weight")
"""Names that all of torchvision's ResNets have."""
KINDS = (
    "a state dict of a torchvision or timm network or of an EfficientNet-Lite of "
    "EfficientNet-PyTorch, a checkpoint of MoCo, DINO or VISSL, or a released VirTex checkpoint"
)
NAME_IT = (
    " A network of timm that is no ResNet must be named, such as --backbone.name "
    "convnext_tiny, or --pretrain.backbone.name of a study."
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
    """Return the state dict among a file's values, without the marks of torch's wrappers.

    These are `module.` of data-parallel training, and `_orig_mod.` of compiled networks.

    Raises:
        CheckpointError: The file holds no state dict.
    """
    found = _state_dicts(values)
    if not found:
        strangers = [name for name, value in values.items() if not _is_weight(name, value)]
        raise CheckpointError(
            f"{path} holds no state dict: found {listing(strangers) or 'nothing'}; expected "
            f"tensors, bare or under {', '.join(WRAPPERS)}. Allowed is {KINDS}."
        )
    taken, *others = found
    if others:
        log.info("%s: takes the weights under %s, not those under %s", path, taken, listing(others))
    state = {name.replace(COMPILED, ""): value for name, value in found[taken].items()}
    if len(state) < len(found[taken]):
        raise CheckpointError(f"{path} holds some weights twice, with and without {COMPILED}.")
    while all(name.startswith(DATA_PARALLEL) for name in state):
        state = without_prefix(state, DATA_PARALLEL)
    return state


def _state_dicts(values: Mapping[str, Any]) -> dict[str, Mapping[str, Tensor]]:
    """Return the state dicts in a checkpoint by the keys that lead to them, the best first."""
    found: dict[str, Mapping[str, Tensor]] = {}
    seen = set[int]()  # a file's values may contain themselves
    rest: list[tuple[tuple[str, ...], Mapping[str, Any]]] = [((), values)]
    while rest:
        keys, mapping = rest.pop()
        if id(mapping) in seen or len(keys) > MAX_WRAPPERS:
            continue
        seen.add(id(mapping))
        if mapping and all(_is_weight(name, value) for name, value in mapping.items()):
            found[".".join(keys)] = mapping
            continue
        inner = [(key, mapping[key]) for key in WRAPPERS if isinstance(mapping.get(key), Mapping)]
        rest += [((*keys, key), value) for key, value in reversed(inner)]
    return found


def _is_weight(name: object, value: object) -> bool:
    return isinstance(name, str) and isinstance(value, Tensor)


def backbone_state(
    state: Mapping[str, Tensor], path: Path, *, network: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Return the backbone's part of a state dict, without prefix and classifier.

    Args:
        network: State dict of the backbone, by whose names and shapes the part is found; by default
            a ResNet of any size.

    Raises:
        CheckpointError: The state dict has none of the names, or several networks that fit.
    """
    names = set(RESNET_NAMES if network is None else network)
    prefix = _prefix(state, path, {name for name in names if not name.endswith(COUNTER)}, network)
    return {
        name: value
        for name, value in without_prefix(state, prefix).items()
        if name in names or not name.startswith(CLASSIFIERS)
    }


def _prefix(
    state: Mapping[str, Tensor],
    path: Path,
    names: set[str],
    network: Mapping[str, Tensor] | None,
) -> str:
    """Return the prefix with which a state dict has all, or else most, of a network's names."""
    counts = {
        prefix: count
        for prefix, count in _prefixes(state, names).items()
        if count * 3 >= len(names)  # names such as norm.weight occur in many networks
    }
    if not counts:
        raise CheckpointError(
            f"{path} has no known backbone: its keys are {listing(list(state))}; expected "
            f"{listing(sorted(names))}. Allowed is {KINDS}.{NAME_IT if network is None else ''}"
        )
    taken = _preferred([prefix for prefix in counts if _fits(state, prefix, names, network)])
    taken = taken or _preferred([p for p, count in counts.items() if count == len(names)])
    taken = taken or [max(counts, key=lambda prefix: counts[prefix])]
    if len(taken) > 1:
        raise CheckpointError(
            f"{path} holds {len(taken)} networks that fit: {listing(f'{p}*' for p in taken)}. Save "
            "the one that you mean as a file of its own, a state dict without that prefix."
        )
    if others := [f"{prefix}*" for prefix in counts if not prefix.startswith(taken[0])]:
        log.info("%s: takes the weights %s*, not %s", path, taken[0], listing(others))
    return taken[0]


def _fits(
    state: Mapping[str, Tensor], prefix: str, names: set[str], network: Mapping[str, Tensor] | None
) -> bool:
    """Return whether a state dict has all of a network's weights with a prefix, by their shapes."""
    return network is not None and all(
        f"{prefix}{name}" in state and state[f"{prefix}{name}"].shape == network[name].shape
        for name in names
    )


def _preferred(prefixes: list[str]) -> list[str]:
    """Return the prefixes with the first part of PREFERRED that any has, or else all."""
    for part in PREFERRED:
        if having := [prefix for prefix in prefixes if part in prefix.split(".")]:
            return having
    return prefixes


def _prefixes(state: Mapping[str, Tensor], names: set[str]) -> Counter[str]:
    """Return how many of the names a state dict has with each prefix."""
    counts = Counter[str]()
    most_parts = max(name.count(".") for name in names) + 1
    for key in state:
        parts = key.split(".")
        for num_parts in range(1, min(most_parts, len(parts)) + 1):
            name = ".".join(parts[-num_parts:])
            if name in names:
                counts[key.removesuffix(name)] += 1
    return counts


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
