"""BatchNorm over all processes or in groups, and the estimation of its statistics after training.

Peng et al., "MegDet" (CVPR 2018): with a few images on each device, batch statistics are those of
all devices. Wu and Johnson, "Rethinking 'Batch' in BatchNorm" (2021), section 3: after training,
population statistics are the mean over many batches under the final weights, not a moving average
that lags behind them.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
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
    """Return the BatchNorm layers of a module, including timm's with a built-in activation."""
    return [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]


def update_once(layer: _BatchNorm) -> None:
    """Prevent a second update of the running statistics when gradient checkpointing runs it again.

    That pass has a momentum of 0 and counts its batch on a stand-in, by hooks. torch.compile traces
    both passes as one and updates once by itself.
    """
    if not _updates_once(layer):
        layer.register_forward_pre_hook(_halt_statistics)
        layer.register_forward_hook(_resume_statistics, always_call=True)


def _updates_once(layer: _BatchNorm) -> bool:
    return _halt_statistics in layer._forward_pre_hooks.values()


def _halt_statistics(layer: nn.Module, _: object) -> None:
    """Set a momentum of 0 in a pass that is part of a backward pass."""
    assert isinstance(layer, _BatchNorm)
    if torch.compiler.is_compiling() or torch._C._current_graph_task_id() < 0:
        return
    if layer.training and layer.num_batches_tracked is not None:
        vars(layer)["halted"] = layer.momentum, layer.num_batches_tracked
        layer.momentum = 0.0
        layer.num_batches_tracked = torch.empty_like(layer.num_batches_tracked)


def _resume_statistics(layer: nn.Module, *_: object) -> None:
    """Undo `_halt_statistics`, also where the second pass stops early, by an exception."""
    if not torch.compiler.is_compiling() and "halted" in vars(layer):
        layer.momentum, layer.num_batches_tracked = vars(layer).pop("halted")


class HostSyncBatchNorm(_BatchNorm):
    """Synchronized BatchNorm for devices without torch's SyncBatchNorm."""

    def _check_input_dim(self, input: Tensor) -> None:
        """Allow any shape."""

    def forward(self, values: Tensor) -> Tensor:
        """Normalize this process's values (B, C, ...) by the statistics of all processes."""
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
        """Update the running statistics by a batch's."""
        if not self.track_running_stats:
            return
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        weight = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, weight)
        self.running_var.lerp_(variance, weight)


SYNCHRONIZED = (nn.SyncBatchNorm, HostSyncBatchNorm)


def synchronize(module: nn.Module, device: torch.device, *, with_frozen: bool = False) -> None:
    """Replace each BatchNorm layer that trains by a synchronized one; nothing for one process.

    Layers are replaced in place and keep their parameters and names.

    Args:
        with_frozen: Replace layers in evaluation mode too, as they will train later; until then
            they compute what they did.

    Raises:
        ConfigError: A layer is of a class other than torch's BatchNorm.
    """
    if distributed.world_size() == 1:
        return
    kind: type[_BatchNorm] = nn.SyncBatchNorm if device.type == "cuda" else HostSyncBatchNorm
    _check_replaceable(module, with_frozen=with_frozen)
    for part in list(module.modules()):
        for name, layer in list(part.named_children()):
            if isinstance(layer, PLAIN) and (layer.training or with_frozen):
                setattr(part, name, _replacement(layer, kind))


def _check_replaceable(module: nn.Module, *, with_frozen: bool) -> None:
    others = {
        name: type(layer).__name__
        for name, layer in module.named_modules()
        if isinstance(layer, _BatchNorm)
        and type(layer) not in PLAIN
        and not isinstance(layer, SYNCHRONIZED)
        and (layer.training or with_frozen)
    }
    if others:
        kinds = ", ".join(sorted(set(others.values())))
        raise ConfigError(
            f"run.sync_batch_norm takes torch's BatchNorm alone; {listing(others)} are {kinds}. "
            "Choose a backbone of plain BatchNorm, such as a resnet, or set run.sync_batch_norm to "
            "false."
        )


def _replacement(layer: _BatchNorm, kind: type[_BatchNorm]) -> _BatchNorm:
    new = kind(
        layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats
    )
    new.weight, new.bias = layer.weight, layer.bias
    new.running_mean, new.running_var = layer.running_mean, layer.running_var
    new.num_batches_tracked = layer.num_batches_tracked
    if _updates_once(layer):
        update_once(new)
    return new.train(layer.training)


class GroupStatistics:
    """Running statistics that move once a step, to the mean of those of many groups of images.

    So they do not depend on the number of groups, nor on that of pieces and processes that groups
    are divided among. The layers' momentum becomes 1: a forward pass in training leaves the
    statistics of its own group there, from `begin` to `update`.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.momenta = {
            layer: layer.momentum
            for layer in batch_norms(module)
            if layer.track_running_stats and layer.momentum is not None
        }
        self._before: list[list[Tensor]] = [[], []]
        for layer in self.momenta:
            layer.momentum = 1.0

    def begin(self) -> None:
        """Remember the running statistics."""
        layers = self._layers()
        kinds = _statistics(layers), _numbers(layers)
        self._before = [[value.clone() for value in values] for values in kinds]

    def encode(
        self, encode: Callable[[Tensor], Tensor], groups: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Return the encodings of all groups, and the mean of the groups' statistics (S,)."""
        running = _statistics(self._layers())
        encoded, sums = [], next(self.module.parameters()).new_zeros(sum(map(len, running)))
        for group in groups:
            encoded.append(encode(group))
            sums = sums + torch.cat([sums[:0], *running])
        return torch.cat(encoded), sums / len(groups)

    @torch.no_grad()
    def update(self, means: Tensor) -> None:
        """Move the remembered statistics towards means (S,), each by its layer's own momentum."""
        layers = self._layers()
        if not layers:
            return
        running, numbers = _statistics(layers), _numbers(layers)
        torch._foreach_copy_(running, self._before[0])
        torch._foreach_copy_(numbers, self._before[1])
        torch._foreach_add_(numbers, 1)
        momenta = [self.momenta[layer] for layer in layers for _ in range(2)]
        parts = means.split([*map(len, running)])
        for momentum in sorted(set(momenta)):
            chosen = [i for i, other in enumerate(momenta) if other == momentum]
            torch._foreach_lerp_([running[i] for i in chosen], [parts[i] for i in chosen], momentum)

    def _layers(self) -> list[_BatchNorm]:
        """Return the layers that are not frozen."""
        return [layer for layer in self.momenta if layer.training]


def _numbers(layers: list[_BatchNorm]) -> list[Tensor]:
    """Return the buffers with each layer's number of batches, ()."""
    values = [layer.num_batches_tracked for layer in layers]
    return [value for value in values if value is not None]


@torch.no_grad()
def estimate_statistics(
    module: nn.Module,
    batches: Iterable[Batch],
    forward: Callable[[Batch], object],
    *,
    num_batches: int = 200,
    seed: int = 0,
) -> int:
    """Set running statistics to the means of many batches' statistics, over all processes.

    Nothing else changes, nor do frozen layers; no batch is read if no layer tracks statistics. If a
    layer runs several times in a forward pass, the last time counts.

    Args:
        batches: This process's batches, equally many on each process.
        forward: Function that runs the module on a batch, in training mode.
        num_batches: Maximum number of batches.
        seed: Random seed of dropout and of sampled regions.

    Returns:
        The number of batches used, over all processes.

    Raises:
        DataError: There is no batch.
    """
    with _restored(module):
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
    """Return the sums of the batches' statistics over batches and processes, and their number."""
    present = _statistics(layers)
    sums, number = [torch.zeros_like(value) for value in present], 0
    torch.manual_seed(seed)
    for layer in layers:
        layer.momentum = 1.0  # running statistics are then the last batch's own
    for batch in batches:
        forward(batch)
        torch._foreach_add_(sums, present)
        number += 1
    flat = distributed.total(torch.cat([*sums, sums[0].new_tensor([number])]))
    *totals, last = flat.split([*map(len, sums), 1])
    return list(totals), round(last.item())


def _statistics(layers: list[_BatchNorm]) -> list[Tensor]:
    """Return the buffers with the running mean and variance of each layer, (C,)."""
    values = [value for layer in layers for value in (layer.running_mean, layer.running_var)]
    return [value for value in values if value is not None]


@contextmanager
def _restored(module: nn.Module) -> Iterator[None]:
    """Restore all buffers, training modes and momenta afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    momenta = [(layer, layer.momentum) for layer in batch_norms(module)]
    buffers = [(buffer, buffer.clone()) for buffer in module.buffers()]
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode
        for layer, momentum in momenta:
            layer.momentum = momentum
        for buffer, value in buffers:
            buffer.copy_(value)
