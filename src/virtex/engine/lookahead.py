"""Lookahead: slow weights that follow the optimizer's fast ones.

Zhang et al., "Lookahead Optimizer: k steps forward, 1 step back", NeurIPS 2019, algorithm 1. The
optimizer's own momenta are left as they are at each synchronisation.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from virtex.errors import CheckpointError


class Lookahead:
    """Every `num_steps` steps, slow += alpha (fast - slow) and fast = slow.

    The weights in the module are the fast ones, and they are what is validated, saved and exported;
    after a multiple of `num_steps` steps (any usual checkpoint) both are the same.
    """

    def __init__(self, parameters: Iterable[Tensor], *, num_steps: int, alpha: float) -> None:
        self.fast = list(parameters)
        self.slow = [parameter.detach().clone() for parameter in self.fast]
        self.num_steps, self.alpha = num_steps, alpha
        self.counter = 0

    @torch.no_grad()
    def step(self) -> None:
        """Count one step of the optimizer; synchronise if it is time."""
        self.counter = (self.counter + 1) % self.num_steps
        if self.counter == 0:
            torch._foreach_lerp_(self.slow, self.fast, self.alpha)
            torch._foreach_copy_(self.fast, self.slow)

    def state_dict(self) -> dict[str, Any]:
        """Slow weights in the optimizer's order, and the steps since the last synchronisation."""
        return {"slow": self.slow, "counter": self.counter}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        shapes = [[tensor.shape for tensor in slow] for slow in (state["slow"], self.slow)]
        if shapes[0] != shapes[1]:
            raise CheckpointError(
                "the checkpoint's Lookahead weights do not fit the model; resume with the config "
                "that the run began with, or start a new run folder."
            )
        torch._foreach_copy_(self.slow, state["slow"])
        self.counter = state["counter"] % self.num_steps
