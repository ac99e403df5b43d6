"""The state of training, which a checkpoint stores."""

from typing import Any

import torch
from torch.amp import GradScaler

from virtex.engine.checkpoint import REMEDY
from virtex.engine.lookahead import Lookahead
from virtex.engine.meter import LossWindow
from virtex.engine.optim import (
    OptimConfig,
    build_optimizer,
    clip_gradients,
    load_optimizer,
)
from virtex.engine.run import RunConfig
from virtex.engine.weight_average import WeightAverage
from virtex.errors import CheckpointError, DivergedError, listing
from virtex.models.backbone import Backbone
from virtex.models.state_dict import load_strictly
from virtex.tasks.base import Task


class TrainingState:
    """A task with its optimizer, slow and averaged weights, loss scaler and recent losses.

    There is no generator state: all random numbers follow from the random seed and the step.
    """

    def __init__(
        self, task: Task, *, run: RunConfig, optim: OptimConfig, device: torch.device
    ) -> None:
        self.task, self.device, self.step = task, device, 0
        self._optim = optim
        self._compiled_on = device if run.compile == "step" else None
        self.clip = clip_gradients
        self._begin()
        fp16 = run.precision == "fp16"
        self.scaler = GradScaler(device.type, enabled=fp16)
        self.losses = LossWindow(exempt="grad_norm" if fp16 else None)

    def _begin(self) -> None:
        """Set the optimizer, and the slow and averaged weights, of what is trained now."""
        task, optim = self.task, self._optim
        self.optimizer = build_optimizer(task, optim, compiled_on=self._compiled_on)
        self.parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.lookahead = (
            Lookahead(self.parameters, num_steps=optim.lookahead_steps, alpha=optim.lookahead_alpha)
            if optim.lookahead_steps
            else None
        )
        self.average = WeightAverage(task, decay=optim.ema_decay) if optim.ema_decay else None

    def unfreeze(self) -> None:
        """Train the whole backbone from now on; what was trained keeps its momenta and averages."""
        momenta, lookahead, average = self.optimizer.state, self.lookahead, self.average
        for module in self.task.modules():
            if isinstance(module, Backbone):
                module.unfreeze(is_learned=module is self.task.backbone)
        self._begin()
        self.optimizer.state.update(momenta)
        if self.lookahead and lookahead:
            self.lookahead.take_over(lookahead)
        if self.average and average:
            self.average.take_over(average)

    def state_dict(self) -> dict[str, Any]:
        """Return the whole state as plain values and tensors."""
        return {
            "step": self.step,
            "task": self.task.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "lookahead": self.lookahead.state_dict() if self.lookahead else None,
            "scaler": self.scaler.state_dict(),
            "losses": self.losses.state_dict(),
            **({"ema": self.average.values} if self.average else {}),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the result of `state_dict`.

        Raises:
            CheckpointError: The task, the optimizer or the use of Lookahead or EMA differs.
        """
        if self._optim.unfreeze_at is not None and state["step"] > self._optim.unfreeze_at:
            self.unfreeze()
        load_strictly(self.task, state["task"], subject="the checkpoint", remedy=REMEDY)
        load_optimizer(self.optimizer, state["optimizer"])
        if (self.lookahead is None) != (state["lookahead"] is None):
            raise CheckpointError(
                "the checkpoint was written with optim.lookahead_steps "
                f"{'0' if self.lookahead else 'above 0'}. {REMEDY}"
            )
        if self.lookahead:
            self.lookahead.load_state_dict(state["lookahead"])
        if (self.average is None) != ("ema" not in state):
            raise CheckpointError(
                "the checkpoint was written with optim.ema_decay "
                f"{'0' if self.average else 'above 0'}. {REMEDY}"
            )
        if self.average:
            self.average.load_state_dict(state["ema"])
        if state["scaler"]:  # empty unless the precision was fp16
            self.scaler.load_state_dict(state["scaler"])
        self.losses.load_state_dict(state["losses"], self.device)
        self.step = state["step"]

    @torch.no_grad()
    def check_finite(self) -> None:
        """Raise DivergedError if a parameter is not finite or a buffer is NaN."""
        tensors = [value for value in self.task.state_dict().values() if value.is_floating_point()]
        if not torch.stack([tensor.isnan().any() for tensor in tensors]).any():
            norms = torch._foreach_norm(self.parameters, float("inf"))
            if torch.stack(list(norms)).isfinite().all():
                return
        bad = [n for n, p in self.task.state_dict().items() if not p.isfinite().all()]
        raise DivergedError(
            f"training diverged: weights that are not finite after step {self.step} in "
            f"{listing(bad)}. They were not saved. Resuming would diverge again: start a new run "
            "folder with a lower optim.lr and optim.backbone_lr, or a longer warm-up."
        )
