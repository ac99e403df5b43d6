"""Options of everything that runs a trained model: where, how precisely, and how fast."""

from dataclasses import dataclass
from typing import Literal

import torch

from virtex.engine.run import Precision, choose_device, choose_precision
from virtex.errors import out_of_range


@dataclass(frozen=True, kw_only=True)
class InferenceConfig:
    """How a trained model is run over images."""

    device: str = "auto"
    """auto (the GPU if there is one), cpu, cuda, cuda:1, mps."""
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    """Arithmetic of the model; auto: bf16 where the device computes with it, else fp32."""
    batch_size: int = 64
    """Images at once, over all processes."""
    num_workers: int = 2
    """Processes that decode images, for each process of the command."""

    def inference_problems(self) -> list[str]:
        """Return what is wrong with these options."""
        return out_of_range(self, {"batch_size": (1, 2**20), "num_workers": (0, 1024)})

    def open_device(self) -> torch.device:
        """Return the device that is named.

        Raises:
            ConfigError: This machine does not have it.
        """
        return choose_device(self.device)

    def resolved_precision(self, device: torch.device) -> Precision:
        """Return the precision that is named, or that `auto` stands for on a device."""
        return choose_precision(self.precision, device)
