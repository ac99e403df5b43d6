"""Whether shapes of tensors may depend on values."""

import torch
from torch import Tensor


def may_read(values: Tensor) -> bool:
    """Return whether the host may read tensors on this device, and shapes depend on what it reads.

    On a CPU it waits for nothing; then only what is there is computed, instead of padding too. A
    GPU would be waited for, and a compiled graph be cut.
    """
    return values.device.type == "cpu" and not torch.compiler.is_compiling()
