"""Options of running a trained model: device, precision, batch size and workers."""

from dataclasses import dataclass
from typing import Literal

import torch

from virtex.engine.precision import choose_precision
from virtex.engine.run import Precision, choose_device
from virtex.errors import out_of_range
from virtex.processes import Work


@dataclass(frozen=True, kw_only=True)
class InferenceConfig:
    """Options of running a trained model over images."""

    device: str = "auto"
    """auto (the GPU if there is one), cpu, cuda, cuda:1, mps."""
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    """Precision of the model; auto: bf16 if the device is fast at it, else fp32."""
    batch_size: int = 64
    """Images in a batch, over all processes."""
    num_workers: int = 2
    """Worker processes that decode images, per process of the command."""

    def inference_problems(self) -> list[str]:
        """Return the problems with these options, one text each."""
        return out_of_range(self, {"batch_size": (1, 2**20), "num_workers": (0, 1024)})

    def work(self) -> Work:
        """Return what the processes of the command share."""
        return Work(self.device, self.batch_size, batch_option="batch_size", least_share=1)

    def open_device(self) -> torch.device:
        """Return the named device, or raise ConfigError if this machine lacks it."""
        return choose_device(self.device)

    def resolved_precision(self, device: torch.device) -> Precision:
        """Return the named precision, or the one that `auto` selects on a device."""
        return choose_precision(self.precision, device)
