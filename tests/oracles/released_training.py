"""The released pretraining loop in plain torch: optimizer, Lookahead, schedule and checkpoint.

Source: kdexd/virtex, scripts/pretrain_virtex.py, virtex/factories.py (OptimizerFactory),
virtex/optim and virtex/utils/checkpointing.py.
"""

import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

NO_DECAY = r".*textual.(embedding|transformer).*(norm.*|bias)"
LR, CNN_LR, WEIGHT_DECAY, CLIP = 1e-3, 0.2, 1e-4, 10.0


class Lookahead:
    """Its state dict is the optimizer's alone, so that slow weights and counter are not saved."""

    def __init__(self, optimizer: Optimizer, k: int = 5, alpha: float = 0.5) -> None:
        self.optimizer, self.k, self.alpha, self.counter = optimizer, k, alpha, 0
        self.cache()

    def parameters(self) -> list[Tensor]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def cache(self) -> None:
        self.slow = [p.detach().clone() for p in self.parameters()]

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state)
        self.cache()

    @torch.no_grad()
    def step(self) -> None:
        self.optimizer.step()
        self.counter += 1
        if self.counter >= self.k:
            self.counter = 0
            for p, slow in zip(self.parameters(), self.slow, strict=True):
                p.mul_(self.alpha).add_(slow, alpha=1.0 - self.alpha)
            self.cache()


class WarmupCosine(LambdaLR):
    """LinearWarmupCosineAnnealingLR."""

    def __init__(self, optimizer: Optimizer, total_steps: int, warmup_steps: int) -> None:
        self.tsteps, self.wsteps = total_steps, warmup_steps
        super().__init__(optimizer, self._lr_multiplier)

    def _lr_multiplier(self, step: int) -> float:
        if step < self.wsteps:
            return step / self.wsteps
        progress = (step - self.wsteps) / (self.tsteps - self.wsteps)
        return max(0, math.cos(progress * (math.pi / 2)) ** 2)


class ReleasedTrainer:
    def __init__(
        self, model: nn.Module, *, num_steps: int, warmup: int, optimizer: str = "sgd"
    ) -> None:
        groups = [
            {
                "params": [parameter],
                "lr": CNN_LR if "cnn" in name else LR,
                "weight_decay": 0.0 if re.match(NO_DECAY, name) else WEIGHT_DECAY,
            }
            for name, parameter in model.named_parameters()
        ]
        self.model, self.iteration = model, 0
        self.optimizer = SGD(groups, momentum=0.9) if optimizer == "sgd" else AdamW(groups)
        self.lookahead = Lookahead(self.optimizer)
        self.scheduler = WarmupCosine(self.optimizer, num_steps, warmup)

    def train(self, batches: Iterable[tuple[Tensor, ...]]) -> list[float]:
        """Loss and gradient norm of each step, in one row."""
        return [number for batch in batches for number in self.step(batch)]

    def step(self, batch: tuple[Tensor, ...]) -> tuple[float, float]:
        self.optimizer.zero_grad()
        loss = torch.stack(list(self.model.loss(*batch).values())).sum()
        loss.backward()
        norm = clip_grad_norm_(self.model.parameters(), CLIP)
        self.lookahead.step()
        self.scheduler.step()
        self.iteration += 1
        return loss.item(), norm.item()

    def values(self, **changes: Any) -> dict[str, Any]:
        """What CheckpointManager saves of a training without mixed precision."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": {},
            "iteration": self.iteration,
            **changes,
        }

    def save(self, path: Path, **changes: Any) -> Path:
        torch.save(self.values(**changes), path)
        return path

    def load(self, path: Path) -> None:
        """`--resume-from`."""
        values = torch.load(path, weights_only=True)
        self.model.load_state_dict(values["model"])
        self.lookahead.load_state_dict(values["optimizer"])
        self.scheduler.load_state_dict(values["scheduler"])
        self.iteration = values["iteration"]
