"""BatchNorm over all processes, and its statistics estimated anew.

Peng et al., "MegDet" (CVPR 2018): with a few images on each device, statistics are taken over all
devices. Wu and Johnson, "Rethinking 'Batch' in BatchNorm" (2021), section 3: after training,
statistics are estimated by the final weights, as the mean over many batches, in place of a moving
average that lags behind the weights.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from virtex import distributed
from virtex.errors import ConfigError, DataError, listing

Batch = TypeVar("Batch")
PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def batch_norms(module: nn.Module) -> list[_BatchNorm]:
    """The BatchNorm layers of a module, timm's with a built-in activation among them."""
    return [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]


class HostSyncBatchNorm(_BatchNorm):
    """What torch's SyncBatchNorm is on a GPU, for devices on which torch has none."""

    def _check_input_dim(self, input: Tensor) -> None:
        """Values of any shape are taken."""

    def forward(self, values: Tensor) -> Tensor:
        """Values (B, C, ...) of this process, normalised by the statistics of all processes'."""
        if not self.training or distributed.world_size() == 1:
            return super().forward(values)
        exact = values.to(torch.promote_types(values.dtype, torch.float32))
        axes = [0, *range(2, values.dim())]
        row = (1, -1) + (1,) * (values.dim() - 2)
        number = exact.new_tensor([values.numel() // values.shape[1]])
        sums = distributed.total_with_gradient(torch.cat([exact.sum(axes), number]))  # (C + 1,)
        mean, number = sums[:-1] / sums[-1], sums[-1].detach()
        centered = exact - mean.view(row)
        variance = distributed.total_with_gradient(centered.square().sum(axes)) / number  # (C,)
        self._follow(mean, variance * number / (number - 1))
        normalized = centered * (variance + self.eps).rsqrt().view(row)
        if self.affine:
            normalized = normalized * self.weight.view(row) + self.bias.view(row)
        return normalized.to(values.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics towards a batch's."""
        if not self.track_running_stats:
            return
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)


SYNCHRONIZED = (nn.SyncBatchNorm, HostSyncBatchNorm)


def synchronize(module: nn.Module, device: torch.device) -> None:
    """Let each BatchNorm layer that trains take its statistics over all processes.

    Layers are exchanged in place, their parameters and names stay. One process is left as it is.

    Raises:
        ConfigError: Some layers are neither torch's BatchNorm nor fit to be exchanged for it.
    """
    if distributed.world_size() == 1:
        return
    kind: type[_BatchNorm] = nn.SyncBatchNorm if device.type == "cuda" else HostSyncBatchNorm
    _check_exchangeable(module)
    for part in list(module.modules()):
        for name, layer in list(part.named_children()):
            if isinstance(layer, PLAIN) and layer.training:
                setattr(part, name, _exchanged(layer, kind))


def _check_exchangeable(module: nn.Module) -> None:
    strange = {
        name: type(layer).__name__
        for name, layer in module.named_modules()
        if isinstance(layer, _BatchNorm)
        and type(layer) not in PLAIN
        and not isinstance(layer, SYNCHRONIZED)
        and layer.training
    }
    if strange:
        kinds = ", ".join(sorted(set(strange.values())))
        raise ConfigError(
            f"run.sync_batch_norm takes torch's BatchNorm alone; {listing(strange)} are {kinds}. "
            "Choose a backbone of plain BatchNorm, such as a resnet, or set run.sync_batch_norm to "
            "false."
        )


def _exchanged(layer: _BatchNorm, kind: type[_BatchNorm]) -> _BatchNorm:
    new = kind(
        layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats
    )
    new.weight, new.bias = layer.weight, layer.bias
    new.running_mean, new.running_var = layer.running_mean, layer.running_var
    new.num_batches_tracked = layer.num_batches_tracked
    return new.train(layer.training)


@torch.no_grad()
def estimate_statistics(
    module: nn.Module,
    batches: Iterable[Batch],
    forward: Callable[[Batch], object],
    *,
    num_batches: int = 200,
    seed: int = 0,
) -> int:
    """Set running means and variances to the means of those of many batches, over all processes.

    All else, frozen layers too, stays as it is; where no layer tracks statistics, nothing is read.
    Of a layer that runs several times in a forward pass, the last time counts.

    Args:
        batches: This process's; each process gives as many.
        forward: Runs the module on a batch, in training mode; what it returns is thrown away.
        num_batches: The most that are read.
        seed: Of torch's generators, from which dropout and sampled regions draw.

    Returns:
        How many batches were used, over all processes.

    Raises:
        DataError: There is no batch.
    """
    with _unchanged(module):
        module.train()
        layers = [x for x in batch_norms(module) if x.training and x.track_running_stats]
        if not layers:
            return 0
        totals, number = _sum_statistics(layers, islice(batches, num_batches), forward, seed)
    if not number:
        raise DataError(
            "no batch to estimate BatchNorm's statistics from: give more images than fill a batch"
        )
    for old, total in zip(_statistics(layers), totals, strict=True):
        old.copy_(total / number)
    return number


def _sum_statistics(
    layers: list[_BatchNorm],
    batches: Iterable[Batch],
    forward: Callable[[Batch], object],
    seed: int,
) -> tuple[list[Tensor], int]:
    """The batches' own statistics, summed over batches and processes, and how many those were."""
    present = _statistics(layers)
    sums, number = [torch.zeros_like(value) for value in present], 0
    torch.manual_seed(seed)
    with _momentum(layers, 1.0):  # a running statistic is then the batch's own
        for batch in batches:
            forward(batch)
            torch._foreach_add_(sums, present)
            number += 1
    flat = distributed.total(torch.cat([*sums, sums[0].new_tensor([number])]))
    *totals, last = flat.split([*map(len, sums), 1])
    return list(totals), round(last.item())


def _statistics(layers: list[_BatchNorm]) -> list[Tensor]:
    """The running mean and variance of each layer, (C,), themselves."""
    values = [value for layer in layers for value in (layer.running_mean, layer.running_var)]
    return [value for value in values if value is not None]


@contextmanager
def _momentum(layers: list[_BatchNorm], momentum: float) -> Iterator[None]:
    before = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = momentum
    try:
        yield
    finally:
        for layer, own in zip(layers, before, strict=True):
            layer.momentum = own


@contextmanager
def _unchanged(module: nn.Module) -> Iterator[None]:
    """Afterwards all buffers, and which parts train, are what they were."""
    modes = [(part, part.training) for part in module.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in module.buffers()]
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode
        for buffer, value in buffers:
            buffer.copy_(value)
