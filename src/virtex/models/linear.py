"""A linear layer that uses oneDNN for float32 matrices on a CPU.

PyTorch uses MKL there, which has a half to a third of oneDNN's speed on processors other than
Intel's (AMD EPYC, 2 cores: 53 against 143 GFLOP/s, forward and backward of 176 x 1024 by
1024 x 4096). PyTorch offers oneDNN for this only through an operator of its compiler, which takes
no empty matrices; without that operator nn.functional.linear is used.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def linear(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return `inputs @ weight.T + bias`, (..., O) from (..., I), (O, I) and (O,)."""
    on_cpu = inputs.device.type == "cpu" and inputs.dtype == weight.dtype == torch.float32
    is_plain = torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu")
    if HAS_ONEDNN and on_cpu and inputs.numel() and not is_plain:
        return _OneDNNLinear.apply(inputs, weight, bias)
    return nn.functional.linear(inputs, weight, bias)


class Linear(nn.Linear):
    """A linear layer computed by `linear`."""

    def forward(self, inputs: Tensor) -> Tensor:
        return linear(inputs, self.weight, self.bias)


class _OneDNNLinear(Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        return _multiply(inputs, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        inputs, weight = ctx.saved_tensors
        rows = gradient.flatten(0, -2)
        needs_inputs, needs_weight, needs_bias = ctx.needs_input_grad
        return (
            _multiply(gradient, weight.t()) if needs_inputs else None,
            _multiply(rows.t(), inputs.flatten(0, -2).t()) if needs_weight else None,
            rows.sum(0) if needs_bias else None,
        )


def _multiply(left: Tensor, right: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return `left @ right.T + bias`."""
    return torch.ops.mkldnn._linear_pointwise(left, right, bias, "none", [], "")
