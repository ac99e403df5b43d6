"""The contract of a pretext task: one nn.Module that owns both ends of it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from virtex.data.example import Example
from virtex.data.source_options import Needs
from virtex.data.tokenizer import Tokenizer
from virtex.data.transforms import ImageConfig
from virtex.models.backbone import Backbone
from virtex.models.captioner import Captioner

Encoded = dict[str, Tensor]
Batch = dict[str, Tensor]
Encode = Callable[[Example, np.random.Generator], Encoded]
"""Example to tensors, in a loader worker; all randomness comes from the generator. Picklable."""
Collate = Callable[[Sequence[Encoded]], Batch]


def stack(encoded: Sequence[Encoded]) -> Batch:
    """Collate examples whose tensors have one shape each: stacked, name by name."""
    return {name: torch.stack([item[name] for item in encoded]) for name in encoded[0]}


@dataclass
class TaskOutput:
    """What a step gives back: the scalar to minimise, and scalars to log (detached)."""

    loss: Tensor
    logs: dict[str, Tensor] = field(default_factory=dict)


class Task(nn.Module, ABC):
    """A pretext task: how an example becomes tensors, and how a batch becomes a loss.

    `encode` and `collate` run in the loader's workers; `forward` runs on the device.
    `backbone` is what transfer takes.
    """

    backbone: Backbone
    encode: Encode
    """For training: with augmentation."""
    encode_validation: Encode
    """For validation: without augmentation; the same tensors under the same names."""
    collate: Collate
    """The loader adds `index` (B,): the places of the examples in the source."""

    @abstractmethod
    def forward(self, batch: Batch) -> TaskOutput:
        """Loss of one batch (B examples); every loss is a mean that all processes share alike."""

    @property
    def writer(self) -> Captioner | None:
        """The model that writes captions, where the task trains one."""
        return None

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that are not decayed."""
        return set()

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Called after each optimizer step, for state that is not learned by gradient."""


@dataclass(frozen=True)
class TaskData:
    """What a task must know of its data to be built."""

    image: ImageConfig
    tokenizer: Tokenizer | None = None
    """Where the task reads captions."""
    categories: tuple[str, ...] = ()
    """Names of the classes, where the data has some: a label is an index into them."""
    num_examples: int = 0
    """Of training, for tasks that remember each one."""

    @property
    def vocabulary(self) -> Tokenizer:
        """The tokenizer, for a task that needs captions."""
        assert self.tokenizer is not None, "a task that needs captions is given a tokenizer"
        return self.tokenizer


@dataclass(frozen=True)
class TaskConfig(ABC):
    """Options of a pretext task; each task file has one subclass."""

    @property
    def needs(self) -> Needs:
        """What each image must come with: checked before training."""
        return Needs(captions=True)

    writes_captions: ClassVar[bool] = False
    """Whether the built task has a `writer`."""

    @abstractmethod
    def build(self, backbone: Backbone, data: TaskData) -> Task:
        """The task around a backbone that is built already."""
