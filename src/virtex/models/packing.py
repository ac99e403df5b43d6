"""Captions of different lengths, packed: where each token lies, and what each reading predicts.

Layers that treat tokens independently run on the P packed tokens of a batch, (P, D); only attention
has the padded shape (B, T, D). Of 256 COCO captions padded to 30 tokens, 45 % of the tokens are
real. Sizes are rounded up, so that few shapes occur: T to a multiple of 8, P to one of up to 256.

Each batch has padding in (B, T) and at least one dead token at the end of (P,). Padding is read
from the dead token, dead tokens from padding; nothing that counts depends on either, so that both
ways are plain gathers, forward and backward.

Layouts are made on the CPU, in the loader's workers: their sizes depend on the captions.

Shapes: B captions, T tokens, P packed tokens, R readings.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, Self

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from virtex.tokens import PAD_ID

Direction = Literal["forward", "backward"]
DIRECTIONS: tuple[Direction, ...] = ("forward", "backward")
LENGTH_MULTIPLE, MOST_LENGTHS = 8, 4
"""Captions are padded to a multiple of this many tokens, or to one of at most so many lengths."""
LARGEST_MULTIPLE, LEAST_NUM_MULTIPLES = 256, 8
"""Packed tokens are padded to a multiple of a power of two: up to 256, or an eighth of them."""


@dataclass(frozen=True)
class Packing:
    """Layout of P packed tokens among B rows of T tokens."""

    rows: Tensor
    """(P,) index of each packed token into the flattened (B * T); that of padding if it is dead."""
    places: Tensor
    """(B, T) index of each token into (P,); the last one, which is dead, for padding."""
    visible: Tensor | None = None
    """(B, 1, T, T) bool, which token (row) may attend to which (column); None is causal."""

    @classmethod
    def of(cls, lengths: Tensor, *, device: torch.device | None = None) -> Self:
        """Return the layout of B captions of `lengths` (B,) tokens, moved to a device.

        The host needs the lengths, since T and P are shapes: it waits for lengths on a GPU.
        """
        rows, places = layout(lengths.cpu())
        return cls(rows, places) if device is None else cls(rows, places).to(device)

    def to(self, device: torch.device) -> Self:
        """Return the layout on a device."""
        return replace(self, rows=_moved(self.rows, device), places=_moved(self.places, device))

    def seeing_all(self, noncausal: Tensor | None = None) -> Self:
        """Return a layout whose tokens attend to all of their caption.

        Args:
            noncausal: (B,) bool, the captions for which this holds; None for all.
        """
        steps = torch.arange(self.places.shape[1], device=self.places.device)
        # An empty caption attends to its first padding, since attention to nothing is NaN.
        visible = (self.is_real | (steps == 0))[:, None, None]  # (B, 1, 1, T)
        if noncausal is not None:
            causal = steps <= steps[:, None]  # (T, T)
            visible = torch.where(noncausal[:, None, None, None], visible, causal)
        return replace(self, visible=visible)

    def pack(self, padded: Tensor) -> Tensor:
        """Return the packed tokens (P, ...) of padded ones (B, T, ...)."""
        return gather(padded.flatten(0, 1), self.rows, self.places.flatten())

    def pad(self, packed: Tensor) -> Tensor:
        """Return packed tokens (P, ...) as (B, T, ...), in which padding has the dead token's."""
        return gather(packed, self.places.flatten(), self.rows).unflatten(0, self.places.shape)

    @property
    def is_real(self) -> Tensor:
        """(B, T) bool, false for padding."""
        return self.places != len(self.rows) - 1

    @property
    def captions(self) -> Tensor:
        """(P,) index of each packed token's row."""
        return self.rows // self.places.shape[1]

    @property
    def positions(self) -> Tensor:
        """(P,) position of each packed token in its caption, below T."""
        return self.rows % self.places.shape[1]


class Readings(NamedTuple):
    """Packed captions in R orders of reading, each token with the one that follows it."""

    rows: Tensor
    """(P,), of the layout."""
    places: Tensor
    """(B, T), of the layout."""
    inputs: Tensor
    """(R, P) tokens that are read."""
    targets: Tensor
    """(R, P) tokens that follow; PAD_ID where there is none, which is never a target."""
    num_targets: Tensor
    """(R,) float32 numbers of targets."""

    @property
    def packing(self) -> Packing:
        """The layout."""
        return Packing(self.rows, self.places)

    def to(self, device: torch.device) -> "Readings":
        """Return the readings on a device."""
        return Readings(*(_moved(tensor, device) for tensor in self))


def pack_readings(
    tokens: Tensor,
    lengths: Tensor,
    directions: Sequence[Direction],
    *,
    multiple: int = LENGTH_MULTIPLE,
) -> Readings:
    """Pack captions (B, T) with `lengths` (B,), both on the CPU, for prediction of the next token.

    A caption's last token is not read, since nothing follows it.

    Args:
        multiple: See `length_multiple`.
    """
    rows, places = layout(lengths - 1, multiple)
    orders = [read(tokens, lengths, direction) for direction in directions]
    inputs, targets = (
        torch.stack([pack_tokens(order[:, part], lengths - 1, len(rows)) for order in orders])
        for part in (slice(None, -1), slice(1, None))
    )
    return Readings(rows, places, inputs, targets, (targets != PAD_ID).sum(1).float())


def read(tokens: Tensor, lengths: Tensor, direction: Direction) -> Tensor:
    """Return captions (B, T) in the order of a reading direction, padded right."""
    if direction == "forward":
        return tokens
    steps = torch.arange(tokens.shape[1], device=tokens.device)
    source = lengths.to(tokens.device)[:, None] - 1 - steps  # (B, T)
    return tokens.gather(1, source.clamp(min=0)).masked_fill(source < 0, PAD_ID)


def length_multiple(max_tokens: int) -> int:
    """Return the multiple to which captions of at most `max_tokens` are padded.

    It grows with them, so that batches have few lengths, each of which is compiled by itself.
    """
    return rounded_up(-(-max_tokens // MOST_LENGTHS), LENGTH_MULTIPLE)


def layout(lengths: Tensor, multiple: int = LENGTH_MULTIPLE) -> tuple[Tensor, Tensor]:
    """Return `rows` (P,) and `places` (B, T) of a Packing, given lengths (B,) on the CPU."""
    longest = int(lengths.max())
    num_tokens = rounded_up(longest, multiple)
    if num_tokens * len(lengths) == int(lengths.sum()):  # there must be padding
        num_tokens += multiple
    is_real = (torch.arange(num_tokens) < lengths[:, None]).flatten()  # (B * T,)
    real = is_real.nonzero().squeeze(1)
    size = num_packed(len(real))
    rows = torch.full((size,), int((~is_real).nonzero()[0]))
    rows[: len(real)] = real
    places = torch.full_like(is_real, size - 1, dtype=torch.int64)
    places[real] = torch.arange(len(real))
    return rows, places.view(len(lengths), num_tokens)


def num_packed(num_tokens: int) -> int:
    """Return the size P for a number of real tokens, which leaves at least one dead one."""
    multiple = 1
    while multiple < LARGEST_MULTIPLE and 2 * multiple * LEAST_NUM_MULTIPLES <= num_tokens:
        multiple *= 2
    return rounded_up(num_tokens + 1, multiple)


def rounded_up(number: int, multiple: int) -> int:
    """Return the least multiple, above 0, that is not below a number."""
    return max(1, -(-number // multiple)) * multiple


def pack_tokens(tokens: Tensor, lengths: Tensor, size: int) -> Tensor:
    """Return the first `lengths` (B,) of tokens (B, T) in one row (size,), filled with PAD_ID."""
    real = tokens[torch.arange(tokens.shape[1]) < lengths[:, None]]
    packed = tokens.new_full((size,), PAD_ID)
    packed[: len(real)] = real
    return packed


def gather(values: Tensor, index: Tensor, inverse: Tensor) -> Tensor:
    """Return `values[index]`; the gradient is gathered by `inverse`, the way back."""
    if not values.requires_grad:
        return values.index_select(0, index)
    return _Gather.apply(values, index, inverse)


class _Gather(Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, index: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(inverse)
        return values.index_select(0, index)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (inverse,) = ctx.saved_tensors
        return gradient.index_select(0, inverse), None, None


def _moved(tensor: Tensor, device: torch.device) -> Tensor:
    return tensor.to(device, non_blocking=True)
