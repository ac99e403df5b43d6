"""Backbones that others published as torch files: torchvision's, MoCo's, the released VirTex's.

A file is read with weights_only=True: one that holds more than weights is refused, not run.
"""

import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from virtex.errors import CheckpointError, listing
from virtex.models.backbone import BackboneConfig

PREFIXES = ("module.encoder_q.", "visual.cnn.", "module.", "")
"""What stands before `conv1.weight` in MoCo's, VirTex's, data-parallel and torchvision's files."""
CLASSIFIER = "fc."
KINDS = "a torchvision ResNet's state dict, a MoCo checkpoint, or a released VirTex checkpoint"
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
        unsafe = re.search(
            r"(?:Unsupported global: GLOBAL|Trying to call reduce for) (\S+)", str(error)
        )
        if unsafe is None:
            raise CheckpointError(f"{path} is damaged or no torch file.") from error
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


def backbone_state(values: dict[str, Any], path: Path) -> dict[str, Tensor]:
    """The backbone's state dict, with torchvision's names and no classifier, in a file's `values`.

    Raises:
        CheckpointError: No layout that we know.
    """
    state = values
    for wrapper in ("state_dict", "model"):
        if isinstance(values.get(wrapper), dict):
            state = values[wrapper]
    for prefix in PREFIXES:
        if f"{prefix}conv1.weight" in state:
            break
    else:
        raise CheckpointError(
            f"{path} has no backbone that we know: its keys are {listing(list(state))}. "
            f"Allowed is {KINDS}."
        )
    bare = {
        name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)
    }
    return {name: value for name, value in bare.items() if not name.startswith(CLASSIFIER)}


def infer_resnet(state: dict[str, Tensor], path: Path) -> BackboneConfig:
    """Which ResNet a state dict with torchvision's names belongs to.

    Raises:
        CheckpointError: None of torchvision's.
    """
    blocks = tuple(
        len({name.split(".")[1] for name in state if name.startswith(f"layer{stage}.")})
        for stage in (1, 2, 3, 4)
    )
    first = state.get("layer1.0.conv1.weight")
    width = 0 if first is None else first.shape[0]
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
