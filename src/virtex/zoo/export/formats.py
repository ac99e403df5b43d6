"""The command `virtex export`: a model in the layout of another library."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from virtex import config as config_files
from virtex import files
from virtex.errors import ConfigError, out_of_range, raise_all
from virtex.models.backbone import BackboneConfig
from virtex.zoo.export import onnx_graph
from virtex.zoo.export.layouts import (
    bare_state,
    detectron2_checkpoint,
    released_checkpoint,
    torchvision_state,
)
from virtex.zoo.export.model import Model, open_model
from virtex.zoo.export.model_card import CardConfig
from virtex.zoo.export.model_folder import OWNED, write_model_folder
from virtex.zoo.export.onnx_graph import Output, write_onnx
from virtex.zoo.export.writing import save_run, save_tensors, save_torch
from virtex.zoo.hub_client import Repository
from virtex.zoo.hub_push import check_push, problems_of_name, push

Format = Literal[
    "torchvision", "timm", "detectron2", "onnx", "safetensors", "original", "huggingface"
]
SUFFIXES: dict[str, tuple[str, ...]] = {
    "torchvision": (".pth",),
    "timm": (".safetensors", ".pth"),
    "detectron2": (".pth",),
    "onnx": (".onnx",),
    "safetensors": (".safetensors",),
    "original": (".pth",),
}
"""Allowed suffixes of each format's file; huggingface writes a folder."""

LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]*")
"""Form of the names that the hub has for licences."""


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Options of `virtex export`."""

    init: str
    """Model to export: a run folder, a weights file, imagenet, or a published checkpoint."""
    format: Format
    """torchvision, timm, detectron2: the backbone's weights under that library's names; onnx: the
    backbone as a graph; safetensors: the whole task with its config and vocabulary, which is again
    an INIT; original: the released VirTex layout; huggingface: a folder for the hub with a card."""
    out: Path
    """File to write; for huggingface the folder."""
    overwrite: bool = False
    """Replace the file at `out`, or the files in the folder that the export writes. A folder's
    other files stay, except another model's weights.safetensors."""
    backbone: BackboneConfig | None = None
    """Architecture of weights whose names and shapes are those of none of torchvision's ResNets."""
    onnx_output: Output = "grid"
    """Output of the graph: grid (B, C, h, w), or pooled (B, C), its mean over cells."""
    image_size: int | None = None
    """Side of the graph's images in pixels; by default the run's image size, or 224."""
    push: str | None = None
    """Repository OWNER/NAME of the Hugging Face hub to push the folder to; it is made if there is
    none. `hf auth login` or HF_TOKEN says who pushes."""
    private: bool = False
    """Make the repository private."""
    license: str | None = None
    """Licence of the weights for the head of the card, as the hub writes it: mit, apache-2.0,
    cc-by-4.0... By default none is stated: it depends on the data."""

    def __post_init__(self) -> None:
        problems = [*_problems_of_out(self), *_problems_of_onnx(self), *_problems_of_hub(self)]
        raise_all(ConfigError, "the export options cannot work", problems)


def parse_export(arguments: Sequence[str]) -> ExportConfig:
    """Return the config that a command line describes; INIT needs no flag.

    Raises:
        ConfigError: An unknown option, or a value that is not allowed.
    """
    format_name = config_files.value_of("--format", arguments)
    if format_name is not None and format_name not in WRITERS:
        raise ConfigError(_unknown_format(format_name))
    return config_files.parse(ExportConfig, arguments, prog="virtex export", positionals=["init"])


def export(config: ExportConfig) -> Path:
    """Write a model in the layout of another library, atomically, and return the path written.

    Raises:
        ConfigError: The options cannot work, `out` cannot be written, or the layout cannot hold
            this model.
        CheckpointError: INIT cannot be found or read, the disk is full, or the hub refuses the
            push.
    """
    files.check_out(config.out, is_file=config.format != "huggingface")
    if config.push is not None:
        check_push(Repository(config.push), private=config.private)
    if config.format == "onnx":
        onnx_graph.check_installed()
    WRITERS[config.format](config, open_model(config.init, config=config.backbone))
    return config.out


def _write_timm(config: ExportConfig, model: Model) -> None:
    save = save_tensors if config.out.suffix == ".safetensors" else save_torch
    save(bare_state(model.backbone), config.out)


def _write_onnx(config: ExportConfig, model: Model) -> None:
    size = config.image_size or model.image.size
    write_onnx(model.backbone, config.out, image_size=size, output=config.onnx_output)


def _write_safetensors(config: ExportConfig, model: Model) -> None:
    opened = model.opened
    if opened.kind != "run":
        raise ConfigError(
            f"--format safetensors needs a run of this package, and {config.init} is none. "
            "`--format timm --out X.safetensors` writes its backbone."
        )
    save_run(opened, config.out, config=opened.config)


def _write_huggingface(config: ExportConfig, model: Model) -> None:
    card = CardConfig(config.out.name, repository=config.push, license=config.license)
    names = write_model_folder(model, config.out, card=card)
    if config.push is not None:
        step = "" if model.opened.step is None else f" at step {model.opened.step}"
        push(
            config.out,
            Repository(config.push),
            names=names,
            owned=OWNED,
            private=config.private,
            message=f"Add {model.backbone.config.name}{step}",
        )


WRITERS: dict[str, Callable[[ExportConfig, Model], None]] = {
    "torchvision": lambda config, model: save_torch(torchvision_state(model.backbone), config.out),
    "timm": _write_timm,
    "detectron2": lambda config, model: save_torch(
        detectron2_checkpoint(model.backbone), config.out
    ),
    "onnx": _write_onnx,
    "safetensors": _write_safetensors,
    "original": lambda config, model: save_torch(released_checkpoint(model), config.out),
    "huggingface": _write_huggingface,
}


def _unknown_format(name: str) -> str:
    return f"unknown format {name!r}; it is one of {', '.join(WRITERS)}."


def _problems_of_out(config: ExportConfig) -> list[str]:
    if config.format not in WRITERS:
        return [_unknown_format(config.format)]
    problems = []
    allowed = SUFFIXES.get(config.format)
    if allowed and config.out.suffix not in allowed:
        problems.append(f"out {config.out} must end in {' or '.join(allowed)}.")
    if config.out.exists() and not config.overwrite:
        problems.append(f"out {config.out} exists: give another path, or --overwrite.")
    elif config.out.exists() and config.out.is_dir() != (allowed is None):
        kind = "file" if config.out.is_file() else "folder"
        problems.append(f"out {config.out} is a {kind}, --format {config.format} writes the other.")
    return problems


def _problems_of_onnx(config: ExportConfig) -> list[str]:
    given = {"onnx_output": config.onnx_output != "grid", "image_size": config.image_size}
    ranges = {"image_size": (1, 2**16)}
    return out_of_range(config, ranges) + _without_effect(config, given, of="onnx")


def _problems_of_hub(config: ExportConfig) -> list[str]:
    given = {name: getattr(config, name) for name in ("push", "private", "license")}
    problems = _without_effect(config, given, of="huggingface")
    if config.private and config.push is None:
        problems.append("private has no effect without push: give --push OWNER/NAME.")
    if config.license is not None and not LICENSE.fullmatch(config.license):
        problems.append(
            f"license {config.license!r} is no name of a licence: write it like cc-by-4.0."
        )
    return problems + ([] if config.push is None else problems_of_name(config.push))


def _without_effect(config: ExportConfig, given: Mapping[str, object], *, of: Format) -> list[str]:
    """Return a problem for each option that is given but belongs to another format."""
    return [
        f"{name} has no effect with --format {config.format}: leave it out."
        for name, value in given.items()
        if value and config.format != of
    ]
