"""The command `virtex export`: a model in the layout of another library."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from virtex import config as config_files
from virtex.errors import ConfigError, out_of_range, raise_all
from virtex.models.backbone import BackboneConfig
from virtex.zoo.export import onnx_graph
from virtex.zoo.export.layouts import (
    detectron2_checkpoint,
    released_checkpoint,
    timm_state,
    torchvision_state,
)
from virtex.zoo.export.model import Model, open_model
from virtex.zoo.export.model_folder import write_model_folder
from virtex.zoo.export.onnx_graph import Output, write_onnx
from virtex.zoo.export.writing import save_run, save_tensors, save_torch

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

    def __post_init__(self) -> None:
        problems = [*_problems_of_out(self), *_problems_of_onnx(self)]
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
        ConfigError: The options cannot work, or the layout cannot hold this model.
        CheckpointError: INIT cannot be found or read, or `out` cannot be written.
    """
    if config.format == "onnx":
        onnx_graph.check_installed()
    WRITERS[config.format](config, open_model(config.init, config=config.backbone))
    return config.out


def _write_timm(config: ExportConfig, model: Model) -> None:
    save = save_tensors if config.out.suffix == ".safetensors" else save_torch
    save(timm_state(model.backbone), config.out)


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


WRITERS: dict[str, Callable[[ExportConfig, Model], None]] = {
    "torchvision": lambda config, model: save_torch(torchvision_state(model.backbone), config.out),
    "timm": _write_timm,
    "detectron2": lambda config, model: save_torch(
        detectron2_checkpoint(model.backbone), config.out
    ),
    "onnx": _write_onnx,
    "safetensors": _write_safetensors,
    "original": lambda config, model: save_torch(released_checkpoint(model), config.out),
    "huggingface": lambda config, model: write_model_folder(model, config.out),
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
    return out_of_range(config, {"image_size": (1, 2**16)}) + [
        f"{name} has no effect with --format {config.format}: leave it out."
        for name, is_given in given.items()
        if is_given and config.format != "onnx"
    ]
