"""Images in a network's own normalization, from those that are normalized by ImageNet's."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from virtex.imagenet import IMAGENET_MEAN, IMAGENET_STD


class Renormalization(nn.Module):
    """A change of images (B, 3, H, W) from ImageNet's mean and deviation to others."""

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        first, second = (
            torch.tensor(values, dtype=torch.float64).view(3, 2, 1, 1)
            for values in (
                list(zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)),
                list(zip(mean, std, strict=True)),
            )
        )
        scale = first[:, 1] / second[:, 1]
        shift = (first[:, 0] - second[:, 0]) / second[:, 1]
        self.register_buffer("scale", scale.float(), persistent=False)  # (3, 1, 1)
        self.register_buffer("shift", shift.float(), persistent=False)  # (3, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return the images in the other normalization."""
        return torch.addcmul(self.shift, images, self.scale)


def own_normalization(
    mean: Sequence[float] | None, std: Sequence[float] | None
) -> dict[str, tuple[float, ...]]:
    """Return the options of a backbone for images of a mean and deviation; none for ImageNet's."""
    if mean is None or std is None or (tuple(mean), tuple(std)) == (IMAGENET_MEAN, IMAGENET_STD):
        return {}
    return {"image_mean": tuple(mean), "image_std": tuple(std)}
