"""Backbones that others published: torchvision's, timm's, MoCo's, the released VirTex's.

A torch file is read with weights_only=True: one that holds more than weights is refused, not run.
"""

import pickle
import re
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from virtex.errors import CheckpointError, listing
from virtex.models.backbone import BackboneConfig

WRAPPERS = ("model", "state_dict")
"""Keys under which a training checkpoint keeps its state dict."""
DATA_PARALLEL = "module."
PREFIXES = ("encoder_q.", "visual.cnn.", "")
"""What stands before a network's names in MoCo's, VirTex's and everybody else's files."""
CLASSIFIERS = ("fc.", "head.", "head_dist.", "classifier.")
"""What classifiers are called: torchvision's, MoCo's projection, timm's."""
COUNTER = "num_batches_tracked"
"""BatchNorm's, which files from before PyTorch 0.4.1 lack."""
KINDS = (
    "a state dict of a torchvision or timm network, a MoCo checkpoint, or a released VirTex "
    "checkpoint"
)
UNSAFE = re.compile(
    r"(?:Unsupported global: GLOBAL|Trying to load unsupported GLOBAL|Trying to call reduce for) "
    r"(\S+)"
)
"""How torch names what a file would have called."""
RUN_KEYS = {"version", "step", "config", "task"}
"""What a checkpoint of this package holds, among others."""
RESNETS: dict[tuple[bool, int, tuple[int, ...]], str] = {
    # bottlenecks, width of the first block, blocks of each stage
    (False, 64, (2, 2, 2, 2)): "resnet18",
    (False, 64, (3, 4, 6, 3)): "resnet34",
    (True, 64, (3, 4, 6, 3)): "resnet50",
    (True, 64, (3, 4, 23, 3)): "resnet101",
    (True, 64, (3, 8, 36, 3)): "resnet152",
    (True, 128, (3, 4, 6, 3)): "wide_resnet50_2",
    (True, 128, (3, 4, 23, 3)): "wide_resnet101_2",
}


def read_torch_file(path: Path) -> dict[str, Any]:
    """What a torch file holds, on the CPU.

    Raises:
        CheckpointError: Not a torch file, damaged, or holding more than weights and plain values.
    """
    _refuse_other_kinds(path)
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        unsafe = UNSAFE.search(str(error))
        if unsafe is None:  # torch's own message advises to read the file unsafely
            raise CheckpointError(
                f"{path} is damaged or no torch file, or holds more than weights: it was not "
                "loaded. Fetch it again, or ask its author for the bare state dict."
            ) from error
        raise CheckpointError(
            f"{path} holds more than weights ({unsafe[1]}) and might run code: it was not loaded. "
            "Ask its author for the bare state dict."
        ) from error
    except Exception as error:  # torch raises many kinds for a file that is not what it seems
        raise CheckpointError(f"{path} is damaged or no torch file: {error}") from error
    if not isinstance(values, dict):
        raise CheckpointError(
            f"{path} holds a {type(values).__name__}, not a dict of weights. Allowed is {KINDS}."
        )
    return values


def read_tensors(path: Path) -> dict[str, Any]:
    """What a torch file or a safetensors file holds, on the CPU.

    Raises:
        CheckpointError: Damaged, something else, or holding more than weights and plain values.
    """
    return read_safetensors(path)[0] if path.suffix == ".safetensors" else read_torch_file(path)


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a safetensors file.

    Raises:
        CheckpointError: Damaged, or something else.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged or no safetensors file: {error}") from error


def unwrap(values: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """The state dict among a file's `values`, without data-parallel training's `module.`.

    Raises:
        CheckpointError: There is none.
    """
    if values.keys() >= RUN_KEYS:
        raise CheckpointError(
            f"{path} is a checkpoint of a virtex run under another name. Name it as it was, "
            "RUN/checkpoints/step_*.pt with eight digits, with the run's tokenizer.model in RUN."
        )
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
        return {name.removeprefix(DATA_PARALLEL): value for name, value in values.items()}
    return dict(values)


def backbone_state(
    state: Mapping[str, Tensor], path: Path, *, names: Iterable[str] = ("conv1.weight",)
) -> dict[str, Tensor]:
    """The backbone's part of a state dict, without prefix and classifier.

    Args:
        names: Those of the network, by which its part is found; a ResNet's if left out.

    Raises:
        CheckpointError: No layout that we know.
    """
    names = set(names)
    found = {prefix: sum(f"{prefix}{name}" in state for name in names) for prefix in PREFIXES}
    prefix = max(found, key=lambda prefix: found[prefix])
    if not found[prefix]:
        raise CheckpointError(
            f"{path} has no backbone that we know: its keys are {listing(list(state))}; expected "
            f"{listing(sorted(names))}. Allowed is {KINDS}."
        )
    bare = {
        name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)
    }
    return {
        name: value
        for name, value in bare.items()
        if name in names or not name.startswith(CLASSIFIERS)
    }


def infer_resnet(state: Mapping[str, Tensor], path: Path) -> BackboneConfig:
    """Which ResNet a state dict with torchvision's names belongs to.

    Raises:
        CheckpointError: None of torchvision's.
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


def _refuse_other_kinds(path: Path) -> None:
    """Tell files apart that are often mistaken for weights, and check a zip's checksums."""
    with path.open("rb") as file:
        head = file.read(512).lstrip().lower()
    if not head:
        raise CheckpointError(f"{path} is empty: fetch it again.")
    if head.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise CheckpointError(
            f"{path} is a web page, not weights: the download was refused or redirected. "
            "Open the address in a browser, or fetch the file's direct link."
        )
    if head.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"{path} is a Git LFS pointer: run `git lfs pull` where it lies.")
    if head.startswith(b"pk"):
        _check_zip(path)


def _check_zip(path: Path) -> None:
    """Check structure and checksums, which torch does not."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, EOFError) as error:
        raise CheckpointError(
            f"{path} is damaged ({error}), perhaps cut short in transfer: fetch it again."
        ) from error
    if damaged is not None:
        raise CheckpointError(f"{path} is damaged (checksum of {damaged}): fetch it again.")
