"""Copies of the state of training in host memory, which later steps do not change."""

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, UntypedStorage

Key = tuple[torch.device, int, int]


class Snapshot:
    """A copy of the state in host memory; the next one takes the same memory.

    New memory costs several times as much as a copy. What a device copies goes to pinned memory,
    and the host does not wait for it before `wait`.
    """

    def __init__(self) -> None:
        self._memory: dict[Key, Tensor] = {}
        self._copied: torch.cuda.Event | None = None

    def take(self, state: dict[str, Any]) -> dict[str, Any]:
        """Return a copy of nested dicts, lists and tuples of tensors and plain values.

        Tensors that share memory do so in the copy, so that files stay as small.

        Raises:
            MemoryError, RuntimeError: There is not enough host memory.
        """
        tensors = list(_tensors(state))
        storages = {_key(tensor): tensor.untyped_storage() for tensor in tensors}
        self._memory = {
            key: self._memory[key] if key in self._memory else _host_memory(storage)
            for key, storage in storages.items()
        }
        for key, storage in storages.items():
            self._memory[key].copy_(_bytes(storage), non_blocking=True)
        self._mark(storages)
        copies = {id(tensor): _view(self._memory[_key(tensor)], tensor) for tensor in tensors}
        return copy.deepcopy(state, copies)

    def wait(self) -> None:
        """Wait until the device has copied the state."""
        if self._copied is not None:
            self._copied.synchronize()

    def _mark(self, storages: dict[Key, UntypedStorage]) -> None:
        """Record the event after which the copy is whole."""
        device = next((device for device, *_ in storages if device.type == "cuda"), None)
        if device is not None:
            self._copied = torch.cuda.Event()
            self._copied.record(torch.cuda.current_stream(device))


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)


def _key(tensor: Tensor) -> Key:
    storage = tensor.untyped_storage()
    return storage.device, storage.data_ptr(), storage.nbytes()


def _host_memory(storage: UntypedStorage) -> Tensor:
    is_pinned = storage.device.type == "cuda"
    return torch.empty(storage.nbytes(), dtype=torch.uint8, pin_memory=is_pinned)


def _bytes(storage: UntypedStorage) -> Tensor:
    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)


def _view(memory: Tensor, like: Tensor) -> Tensor:
    """Return the tensor in a copy of its storage."""
    empty = torch.empty(0, dtype=like.dtype)
    return empty.set_(memory.untyped_storage(), like.storage_offset(), like.size(), like.stride())
