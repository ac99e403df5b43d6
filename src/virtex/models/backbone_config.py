"""Options of the visual backbone."""

from dataclasses import dataclass, field

from virtex.errors import ConfigError, raise_all
from virtex.options.dependents import register_dependents

FROM_INIT = "init"
"""Name that stands for the network of the weights that `--init` names."""
STRIDE_OPTION = "output_stride"
"""Option of a network that makes its grid finer by dilation, with the same weights."""
SIZE_OPTION = "strict_img_size"
"""Option of a Swin or the like that, if false, lets it take images of any size."""
Channels = tuple[float, float, float]
"""A value of each color channel."""


@dataclass(frozen=True)
class BackboneConfig:
    """Architecture and initialization of the backbone."""

    name: str = "resnet50"
    """A timm model with a feature grid, convolutional or ViT: resnet50, resnet101, wide_resnet50_2,
    convnext_tiny, vit_small_patch16_224... `resnet50.tv_in1k` also names published weights;
    `blind` sees nothing, as a control. In pretraining `init` is the network of the weights that
    `--init` names."""
    pretrained: bool = False
    """Start from timm's published weights instead of random ones."""
    frozen: bool = False
    """Train neither the weights nor BatchNorm's running statistics."""
    frozen_norm: bool = False
    """Train neither BatchNorm's weights and biases nor its running statistics, to fine-tune
    published weights with few images in a batch."""
    freeze_stages: int = 0
    """Number of the first groups of layers to freeze, as `frozen` freezes all: the stem is the
    first, each stage of a ResNet or block of a ViT is a further one."""
    drop_path: float = 0.0
    """Largest probability with which training drops a residual branch (stochastic depth), rising
    linearly from 0 in the first block to this in the last."""
    grad_checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them: the same numbers with
    less memory, in about 1.3 times the time."""
    image_mean: Channels | None = None
    """Mean of each color channel, from 0 to 1, by which the network's images are normalized; null
    takes what comes with the weights that it starts from, and else ImageNet's."""
    image_std: Channels | None = None
    """Standard deviation of each color channel, with `image_mean`."""
    options: dict[str, bool | int | float | str | list[int] | None] = field(default_factory=dict)
    """Arguments of timm.create_model, e.g. {layers: [1, 1, 1, 1], channels: [32, 64, 128, 256]}.
    Weights given by `--init` determine all but output_stride, which makes the grid finer.
    A flag or later file that gives another name puts back those of earlier files."""

    def __post_init__(self) -> None:
        problems = []
        if self.freeze_stages < 0:
            problems.append(f"freeze_stages {self.freeze_stages} must be at least 0")
        if not 0 <= self.drop_path < 1:
            problems.append(f"drop_path {self.drop_path} must be at least 0 and below 1")
        if self.drop_path and "drop_path_rate" in self.options:
            problems.append("drop_path and options.drop_path_rate are the same: give one of them")
        if (self.image_mean is None) != (self.image_std is None):
            problems.append("image_mean and image_std belong together: give both or none")
        problems += _normalization_problems(self.image_mean, self.image_std)
        raise_all(ConfigError, "the backbone options cannot work", problems)


def _normalization_problems(mean: Channels | None, std: Channels | None) -> list[str]:
    """Return the problems of a normalization, whose pixels are from 0 to 1."""
    problems = []
    unit = "pixels are from 0 to 1: divide values for pixels from 0 to 255 by 255"
    if mean is not None and not all(0 <= value <= 1 for value in mean):
        problems.append(f"image_mean {mean} must be from 0 to 1; {unit}")
    if std is not None and not all(0 < value <= 1 for value in std):
        problems.append(f"image_std {std} must be above 0 and at most 1; {unit}")
    return problems


register_dependents(BackboneConfig, {"name": lambda name, option: option != "options"})
