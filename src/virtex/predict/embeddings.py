"""Pooled embeddings: the mean of a backbone's feature grid, one vector for each image."""

from pathlib import Path

import torch
from torch import Tensor

from virtex.data.transforms import ImageConfig, ValidationTransform, normalize
from virtex.engine.run import Precision, autocast, choose_device
from virtex.models.backbone import Backbone
from virtex.predict.image_inputs import ImageInputs, as_example, as_list, in_batches
from virtex.predict.results import check_finite
from virtex.zoo.backbones import build_backbone
from virtex.zoo.init import open_init


def preprocess(images: ImageInputs, *, size: int = 224) -> Tensor:
    """Return images as a backbone takes them: (B, 3, size, size) float32, normalised.

    The short side is resized to size * 256 / 224, with antialiasing, and the center is cropped, as
    in validation by default. A run may state another resize (image.validation_resize, or
    image.original), which `embed` follows if it is given the run.

    Args:
        images: Paths, encoded files (bytes or opened), PIL images or uint8 pixels; one or several.

    Raises:
        ConfigError: A size that cannot work.
        DataError: An image cannot be read, or has a type or shape that is not allowed.
    """
    return _as_in_validation(images, ImageConfig(size=size))


def embed(
    init: str | Path | Backbone,
    images: ImageInputs,
    *,
    image_size: int | None = None,
    device: torch.device | str = "auto",
    batch_size: int = 32,
) -> Tensor:
    """Return the pooled embedding of each image, (B, C) float32 on the CPU.

    Args:
        init: An INIT, or a backbone, which several calls can share; it is moved to the device and
            put into evaluation mode. Images are resized as in validation of an INIT's run, and for
            a backbone, which states no resize, as by `preprocess`.
        images: See `preprocess`.
        image_size: Side of the network's input; by default that of the run, or 224.
        device: auto (the GPU if there is one), cpu, cuda, cuda:1, mps.

    Raises:
        CheckpointError: INIT cannot be opened or holds no backbone, or an embedding holds NaN or
            infinity.
        ConfigError: The backbone takes no images of that size, or the device is missing.
        DataError: An image cannot be read, or has a type or shape that is not allowed.
    """
    chosen, image = choose_device(str(device)), ImageConfig()
    if not isinstance(init, Backbone):
        opened = open_init(init)
        init, image = build_backbone(opened), opened.image
    if image_size is not None:
        image = image.with_size(image_size)
    init.grid_size(image.size)
    backbone = init.eval().to(chosen)
    vectors = [torch.zeros(0, backbone.num_channels)]
    for batch in in_batches(as_list(images), batch_size):
        vectors.append(pooled(backbone, _as_in_validation(batch, image).to(chosen)))
    return torch.cat(vectors)


def pooled(backbone: Backbone, images: Tensor, *, precision: Precision = "fp32") -> Tensor:
    """Return the embeddings (B, C) float32, on the CPU, of normalised images (B, 3, H, W).

    Raises:
        CheckpointError: One holds NaN or infinity.
    """
    with torch.inference_mode(), autocast(precision, images.device):
        vectors = backbone.pooled(images).float().cpu()
    check_finite(vectors)
    return vectors


def _as_in_validation(images: ImageInputs, config: ImageConfig) -> Tensor:
    """Return images as network inputs (B, 3, size, size) float32, normalised."""
    transform = ValidationTransform(config)
    pixels = [transform(as_example(image)) for image in as_list(images)]
    return normalize(torch.stack(pixels)) if pixels else torch.zeros(0, 3, config.size, config.size)
