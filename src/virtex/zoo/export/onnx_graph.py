"""The backbone as an ONNX graph, checked against torch before it is written."""

import importlib.util
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from virtex import files
from virtex.errors import CheckpointError, ConfigError
from virtex.models.backbone import Backbone

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
CHECKED_BATCHES = (1, 3)
TOLERANCE = 1e-4
"""Largest allowed difference between onnxruntime and torch; see `_difference`."""
Output = Literal["grid", "pooled"]


def check_installed() -> None:
    """Check that the packages of the extra `onnx` are installed.

    Raises:
        ConfigError: A package is missing; names all of them.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"--format onnx needs {', '.join(missing)}: pip install {' '.join(missing)}"
        )


def write_onnx(backbone: Backbone, path: Path, *, image_size: int, output: Output) -> None:
    """Write a graph with the input `images` (B, 3, image_size, image_size), normalised, for any B.

    Args:
        output: `grid` (B, C, h, w), or `pooled` (B, C).

    Raises:
        ConfigError: ONNX cannot express the network, the network does not accept images of that
            size, or the outputs of onnxruntime and torch differ.
    """
    backbone.grid_size(image_size)
    backbone.fix_size(image_size)  # torch before 2.12 exports the resizing wrongly
    module = backbone if output == "grid" else _Pooled(backbone)
    graph = _graph(module.eval(), image_size=image_size, output=output)
    difference = _difference(graph, module, image_size)
    if not difference <= TOLERANCE:  # so that NaN is refused too
        raise ConfigError(
            f"onnxruntime and torch differ by {difference:.1e} on {backbone.config.name!r}, more "
            f"than {TOLERANCE:.0e}: nothing was written. Use `--format timm` for this backbone."
        )
    files.write(path, graph, error=CheckpointError)


class _Pooled(nn.Module):
    """A backbone that returns the mean of its grid over the cells."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> Tensor:
        return self.backbone.pooled(images)  # (B, C)


def _graph(module: nn.Module, *, image_size: int, output: Output) -> bytes:
    """Return an ONNX file of a module, with its weights."""
    images = torch.zeros(2, 3, image_size, image_size)
    try:
        program = torch.onnx.export(
            module,
            (images,),
            input_names=["images"],
            output_names=[output],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
    except torch.onnx.OnnxExporterError as error:
        raise ConfigError(
            f"torch cannot express this backbone in ONNX: {error}\nUse `--format timm` for it."
        ) from error
    assert program is not None
    return program.model_proto.SerializeToString()


@torch.no_grad()
def _difference(graph: bytes, module: nn.Module, image_size: int) -> float:
    """Return the largest difference on random images, relative to the largest feature beyond 1."""
    import onnxruntime

    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(0)
    differences = []
    for batch_size in CHECKED_BATCHES:
        images = torch.randn(batch_size, 3, image_size, image_size, generator=generator)
        expected = module(images).numpy()
        (found,) = session.run(None, {"images": images.numpy()})
        assert found.shape == expected.shape
        differences.append(np.abs(found - expected).max() / max(1.0, np.abs(expected).max()))
    return float(np.max(differences))
