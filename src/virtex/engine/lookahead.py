"""Lookahead: slow weights that follow the optimizer's fast weights.

Zhang et al., "Lookahead Optimizer: k steps forward, 1 step back", NeurIPS 2019, algorithm 1. A
synchronisation leaves the optimizer's momenta unchanged.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from virtex.engine.checkpoint import REMEDY
from virtex.errors import CheckpointError


class Lookahead:
    """The synchronisation slow += alpha (fast - slow), fast = slow, every `num_steps` steps.

    The module holds the fast weights; these are validated, saved and exported. After a multiple of
    `num_steps` steps the fast and slow weights are equal.
    """

    def __init__(self, parameters: Iterable[Tensor], *, num_steps: int, alpha: float) -> None:
        self.fast = list(parameters)
        self.slow = [parameter.detach().clone() for parameter in self.fast]
        self.num_steps, self.alpha = num_steps, alpha
        self.counter: int | Tensor = 0

    @torch.no_grad()
    def step(self, is_taken: Tensor | None = None) -> None:
        """Count one optimizer step; synchronise after every `num_steps` of them.

        Args:
            is_taken: False, a scalar on the device, where the loss scaler skipped the step, which
                then does not count. The host does not wait for it. None: the step was taken.
        """
        if is_taken is not None:
            self._step_unseen(is_taken)
            return
        self.counter = (int(self.counter) + 1) % self.num_steps
        if self.counter == 0:
            torch._foreach_lerp_(self.slow, self.fast, self.alpha)
            torch._foreach_copy_(self.fast, self.slow)

    def _step_unseen(self, is_taken: Tensor) -> None:
        """Take the step of a device that alone knows whether it counts: weights 0 change nothing.

        This reads and writes all weights at each step, not at every `num_steps`-th.
        """
        self.counter = (self.counter + is_taken) % self.num_steps
        is_due = ((self.counter == 0) & is_taken).float()
        torch._foreach_lerp_(self.slow, self.fast, [self.alpha * is_due] * len(self.slow))
        torch._foreach_lerp_(self.fast, self.slow, [is_due] * len(self.slow))

    @torch.no_grad()
    def take_over(self, other: "Lookahead") -> None:
        """Continue another Lookahead of a part of the same weights; the rest start as they are."""
        slow = dict(zip(other.fast, other.slow, strict=True))
        self.slow = [slow.get(fast, own) for fast, own in zip(self.fast, self.slow, strict=True)]
        self.counter = other.counter

    def state_dict(self) -> dict[str, Any]:
        """Return the slow weights and the number of steps since the last synchronisation."""
        return {"slow": self.slow, "counter": int(self.counter)}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the result of `state_dict`."""
        if [tensor.shape for tensor in state["slow"]] != [tensor.shape for tensor in self.slow]:
            raise CheckpointError(f"the checkpoint's Lookahead does not fit the model. {REMEDY}")
        torch._foreach_copy_(self.slow, state["slow"])
        self.counter = state["counter"] % self.num_steps
