"""EfficientNet-Lite0 in plain torch: parameters bear EfficientNet-PyTorch's names.

Written from the table of Tan and Le (ICML 2019) and the released definition of Lite: ReLU6, no
squeeze and excitation, TensorFlow's padding and epsilon, images that are normalized by one half.
"""

import torch
from torch import Tensor
from torch.nn.functional import batch_norm, conv2d, linear, pad, relu6

EPSILON = 1e-3
STAGES = [  # kernel, stride of the first block, expansion, width, number of blocks
    (3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (5, 2, 6, 40, 2), (3, 2, 6, 80, 3), (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4), (3, 1, 6, 320, 1),
]  # fmt: skip
NUM_CLASSES = 1000


def logits(state: dict[str, Tensor], images: Tensor) -> Tensor:
    """Logits (B, 1000) of RGB images (B, 3, H, W) with values from 0 to 1."""
    grid = relu6(_normed(state, "_bn0", _conv(state, "_conv_stem", 2 * images - 1, stride=2)))
    number = 0
    for _, first_stride, _, _, num_blocks in STAGES:
        for stride in [first_stride] + [1] * (num_blocks - 1):
            grid = _block(state, f"_blocks.{number}", grid, stride=stride)
            number += 1
    grid = relu6(_normed(state, "_bn1", _conv(state, "_conv_head", grid)))
    return linear(grid.mean((2, 3)), state["_fc.weight"], state["_fc.bias"])


def _block(state: dict[str, Tensor], name: str, images: Tensor, *, stride: int) -> Tensor:
    grid = images
    if f"{name}._expand_conv.weight" in state:
        grid = relu6(_normed(state, f"{name}._bn0", _conv(state, f"{name}._expand_conv", grid)))
    groups = grid.shape[1]
    grid = _conv(state, f"{name}._depthwise_conv", grid, stride=stride, groups=groups)
    grid = relu6(_normed(state, f"{name}._bn1", grid))
    grid = _normed(state, f"{name}._bn2", _conv(state, f"{name}._project_conv", grid))
    return grid + images if grid.shape == images.shape else grid


def _conv(
    state: dict[str, Tensor], name: str, images: Tensor, *, stride: int = 1, groups: int = 1
) -> Tensor:
    """A convolution with TensorFlow's padding SAME: what is odd goes to the right and below."""
    weight = state[f"{name}.weight"]
    sides = []
    for size in (images.shape[3], images.shape[2]):
        needed = max(0, (-(-size // stride) - 1) * stride + weight.shape[2] - size)
        sides += [needed // 2, needed - needed // 2]
    return conv2d(pad(images, sides), weight, stride=stride, groups=groups)


def _normed(state: dict[str, Tensor], name: str, grid: Tensor) -> Tensor:
    mean, var, weight, bias = (
        state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
    )
    return batch_norm(grid, mean, var, weight, bias, eps=EPSILON)


def random_state(seed: int) -> dict[str, Tensor]:
    """Weights of the shapes of Lite0, far from where training starts."""
    generator = torch.Generator().manual_seed(seed)
    state: dict[str, Tensor] = {}

    def add(conv: str, norm: str, shape: tuple[int, ...]) -> None:
        fan_in = shape[1] * shape[2] * shape[3]
        state[f"{conv}.weight"] = torch.randn(shape, generator=generator) * (2 / fan_in) ** 0.5
        for part in ("weight", "bias", "running_mean", "running_var"):
            state[f"{norm}.{part}"] = 0.5 + torch.rand(shape[0], generator=generator)
        state[f"{norm}.num_batches_tracked"] = torch.tensor(1)

    add("_conv_stem", "_bn0", (32, 3, 3, 3))
    inputs, number = 32, 0
    for kernel, _, expansion, width, num_blocks in STAGES:
        for _ in range(num_blocks):
            name, inner = f"_blocks.{number}", expansion * inputs
            if expansion > 1:
                add(f"{name}._expand_conv", f"{name}._bn0", (inner, inputs, 1, 1))
            add(f"{name}._depthwise_conv", f"{name}._bn1", (inner, 1, kernel, kernel))
            add(f"{name}._project_conv", f"{name}._bn2", (width, inner, 1, 1))
            inputs, number = width, number + 1
    add("_conv_head", "_bn1", (1280, inputs, 1, 1))
    state["_fc.weight"] = torch.randn(NUM_CLASSES, 1280, generator=generator) / 1280**0.5
    state["_fc.bias"] = torch.rand(NUM_CLASSES, generator=generator)
    return state
