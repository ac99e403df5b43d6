"""Memory and time of gradient checkpointing: `python -m benchmarks.grad_checkpointing`.

For each backbone: the bytes that a forward pass keeps for the backward pass, without parameters,
and the time of a step (forward and backward pass, SGD update), without and with
`backbone.grad_checkpointing`. The steps alternate, and times are medians.
"""

import argparse
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from benchmarks.step import seconds, training_step
from virtex.models.backbone import Backbone, BackboneConfig


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbones", nargs="+", default=["resnet50", "vit_base_patch16_224"])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bf16", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for name in arguments.backbones:
        print(f"{name}: {compare(name, arguments)}", flush=True)


def compare(name: str, arguments: argparse.Namespace) -> str:
    """Return the memory and time of a backbone without and with checkpointing."""
    images = torch.randn(arguments.batch, 3, arguments.size, arguments.size)
    images = images.contiguous(memory_format=torch.channels_last)
    steps, sizes = {}, []
    for grad_checkpointing in (False, True):
        backbone = Backbone(BackboneConfig(name, grad_checkpointing=grad_checkpointing))
        backbone.to(memory_format=torch.channels_last)
        loss = partial(mean_of_grid, backbone, images)
        steps[str(grad_checkpointing)] = training_step(backbone, loss, bf16=arguments.bf16)
        sizes.append(kept_megabytes(backbone, partial(backbone, images), bf16=arguments.bf16))
    before, after = seconds(steps, rounds=arguments.rounds).values()
    return (
        f"{sizes[0]:,.0f} MB, checkpointed {sizes[1]:,.0f} MB (x {sizes[1] / sizes[0]:.2f}) | "
        f"{before:.3f} s, checkpointed {after:.3f} s (x {after / before:.2f})"
    )


def mean_of_grid(backbone: Backbone, images: Tensor) -> Tensor:
    return backbone(images).mean()


def kept_megabytes(module: nn.Module, forward: Callable[[], Tensor], *, bf16: bool) -> float:
    """Return the size of what a forward pass keeps, each storage once and without parameters."""
    parameters = {parameter.data_ptr() for parameter in module.parameters()}
    kept: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with (
        saved_tensors_hooks(count, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=bf16),
    ):
        output = forward()  # held, so that no storage is freed and used again
    del output
    return sum(kept.values()) / 1e6


if __name__ == "__main__":
    main()
