"""The contract of a pretext task: one nn.Module that encodes examples and computes the loss."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from virtex.data.captioned import CaptionedForTraining, CaptionedForValidation
from virtex.data.captions import EncodeCaption
from virtex.data.example import Example
from virtex.data.source_options import Needs
from virtex.data.tokenizer import Tokenizer
from virtex.data.transforms import ImageConfig, TrainTransform, ValidationTransform
from virtex.models.backbone import Backbone
from virtex.models.captioner import Captioner
from virtex.models.textual_head import HeadConfig

Encoded = dict[str, Tensor]
Batch = dict[str, Tensor]
Encode = Callable[[Example, np.random.Generator], Encoded]
"""Picklable function from an example to tensors; all randomness comes from the generator."""
Collate = Callable[[Sequence[Encoded]], Batch]


def stack(encoded: Sequence[Encoded]) -> Batch:
    """Collate examples whose tensors have equal shapes by stacking them under each name."""
    return {name: torch.stack([item[name] for item in encoded]) for name in encoded[0]}


@dataclass
class TaskOutput:
    """The scalar loss of a step, detached scalars to log, and what `after_step` needs."""

    loss: Tensor
    logs: dict[str, Tensor] = field(default_factory=dict)
    kept: dict[str, Tensor] = field(default_factory=dict)
    """Detached tensors that `Task.after_step` gets, such as the keys of a queue."""
    weights: dict[str, Tensor] = field(default_factory=dict)
    """Weight of a log in the mean over the batches of a validation, (): its number of targets,
    where that is neither the first of `Task.counts` nor, without counts, B."""
    terms: dict[str, float] = field(default_factory=dict)
    """Coefficients with which logs add up to the loss; needed where their weights differ."""


FEWEST_TARGETS = 1e-6
"""Smallest divisor of a loss, so that a batch without targets has loss 0."""


def mean_loss(losses: Tensor, num_targets: Tensor) -> Tensor:
    """Return the sum of losses over the last dimension, divided by a number of targets.

    In training that number is a mean over the pieces of a step, see `Task.counts`.
    """
    return losses.sum(-1) / num_targets.clamp(min=FEWEST_TARGETS)


@dataclass(frozen=True)
class TaskData:
    """Properties of the data that a task depends on."""

    image: ImageConfig
    tokenizer: Tokenizer | None = None
    """The tokenizer, for tasks that read captions."""
    categories: tuple[str, ...] = ()
    """Names of the classes, if the data has any: a label is an index into them."""
    num_examples: int = 0
    """Number of training examples, for tasks that have a memory of each."""
    references: Callable[[], Sequence[Sequence[str]]] | None = None
    """Function that reads the captions of each training image, or of a bounded sample of them, the
    same in all processes; None where nothing is trained."""

    @property
    def vocabulary(self) -> Tokenizer:
        """The tokenizer, for a task that needs captions."""
        assert self.tokenizer is not None, "a task that needs captions is given a tokenizer"
        return self.tokenizer

    def encode_captioned(
        self, max_tokens: int, *, original: bool = False, num_captions: int = 1
    ) -> tuple[Encode, Encode]:
        """Return how training encodes an image with captions, and validation with one."""
        caption = EncodeCaption(self.vocabulary, max_tokens=max_tokens, original=original)
        return (
            CaptionedForTraining(TrainTransform(self.image), caption, num_captions),
            CaptionedForValidation(ValidationTransform(self.image), caption),
        )


class Task(nn.Module, ABC):
    """A pretext task: how an example becomes tensors, and how a batch becomes a loss.

    `encode` and `collate` run in the loader's workers; `forward` runs on the device.
    """

    encode: Encode
    """Encoding for training, with augmentation."""
    encode_validation: Encode
    """Encoding for validation, without augmentation; the same tensors under the same names."""
    collate: Collate
    """Collation into a batch, in which everything whose size depends on the data is made; the
    loader adds `index` (B,), each example's index in the source."""
    counts: tuple[str, ...] = ()
    """Names of a batch's numbers of targets, float32 of shape () or (K,), that divide its losses.
    In training each is the mean over all pieces and processes of a step, so that the mean of their
    losses is the sum over all targets of the step divided by their number."""
    dynamic: Mapping[str, int] = MappingProxyType({})
    """Names of a batch's tensors of which one dimension, an index, depends on the data."""

    @property
    def backbone(self) -> Backbone:
        """The backbone that transfer takes, a direct child unless a subclass overrides this."""
        return cast(Backbone, super().__getattr__("backbone"))

    @abstractmethod
    def forward(self, batch: Batch) -> TaskOutput:
        """Return the loss of a batch of B examples, divided by `counts` or by B.

        The mean over pieces and processes is minimized. A forward pass never waits for the device:
        no size depends on a value, and no value is read.
        """

    @torch.no_grad()
    def prepare_step(self, pieces: list[Batch], *, seed: int) -> list[Batch]:
        """Return the pieces of a training step, with what all pieces and processes share.

        It is called in each process before the first forward pass, and may call collectives.

        Args:
            seed: Random seed of the step, the same in all processes.
        """
        del seed
        return pieces

    @property
    def writer(self) -> Captioner | None:
        """The model that writes captions, if the task trains one."""
        return None

    def starting_state(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return what the task takes of the state dict of the run that it starts from: all."""
        return state

    def no_weight_decay(self) -> set[str]:
        """Return the names of the parameters without weight decay."""
        return set()

    @torch.no_grad()
    def after_step(self, step: int, kept: Sequence[Mapping[str, Tensor]]) -> None:
        """Update, after each optimizer step, the state that is not learned by gradient.

        Args:
            step: Number of finished steps.
            kept: `TaskOutput.kept` of each piece of the step.
        """


class PairwiseTask(Task):
    """A pretext task whose loss compares all examples of a step, of all pieces and processes.

    A step in several pieces takes two passes over them: see virtex.engine.two_pass.
    """

    @abstractmethod
    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """Return the embeddings (B, ...) of a batch, by name."""

    @abstractmethod
    def compare(self, embeddings: Mapping[str, Tensor]) -> TaskOutput:
        """Return the mean loss of this process's embeddings (B, ...).

        In training they are compared with those of all processes, which it gathers.
        """

    def forward(self, batch: Batch) -> TaskOutput:
        return self.compare(self.embed(batch))

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile the embedding, of one graph; to compare takes an exchange between processes."""
        self.embed = torch.compile(self.embed, *args, **kwargs)  # type: ignore[method-assign]


class CaptionTask(Task):
    """A pretext task that trains a captioner on images with one or several captions each.

    Args:
        num_added: Number of tokens of the task's own, behind those of the vocabulary.
    """

    def __init__(
        self,
        head: HeadConfig,
        backbone: Backbone,
        data: TaskData,
        *,
        bidirectional: bool = False,
        original: bool = False,
        num_captions: int = 1,
        label_smoothing: float = 0.0,
        num_added: int = 0,
    ) -> None:
        super().__init__()
        vocab_size = data.vocabulary.vocab_size + num_added
        self.captioner = Captioner(backbone, head, vocab_size, bidirectional=bidirectional)
        self.captioner.head.label_smoothing = label_smoothing
        self.encode, self.encode_validation = data.encode_captioned(
            head.max_tokens, original=original, num_captions=num_captions
        )

    @property
    def backbone(self) -> Backbone:
        """The captioner's backbone."""
        return self.captioner.backbone

    @property
    def writer(self) -> Captioner | None:
        """The captioner."""
        return self.captioner

    def no_weight_decay(self) -> set[str]:
        """Return the captioner's parameters without weight decay."""
        return {f"captioner.{name}" for name in self.captioner.no_weight_decay()}


@dataclass(frozen=True)
class TaskConfig(ABC):
    """Options of a pretext task; each task file has one subclass."""

    @property
    def needs(self) -> Needs:
        """Requirements on each image, checked before training."""
        return Needs(captions=True)

    writes_captions: ClassVar[bool] = False
    """Whether the built task has a `writer`."""
    reads_class_names: ClassVar[bool] = False
    """Whether the words of the classes' names are targets, so that the vocabulary has them too."""
    normalizes_in_groups: ClassVar[bool] = False
    """Whether BatchNorm's statistics have to differ between groups of images, so that computing
    them over all processes would undo what the task does."""

    def check_backbone(self, backbone: Backbone) -> None:
        """Raise ConfigError if the task cannot train this network; called before data are read."""
        del backbone

    def batch_problems(self, num_images: int, *, num_pieces: int) -> list[str]:
        """Return why the task cannot train on a process's images of a batch, in so many pieces."""
        del num_images, num_pieces
        return []

    def start_problems(self, varying: Sequence[str]) -> list[str]:
        """Return why a new run of this task would not learn what it is for.

        Args:
            varying: Layers of the backbone that compute otherwise in training than in evaluation.
        """
        del varying
        return []

    @abstractmethod
    def build(self, backbone: Backbone, data: TaskData) -> Task:
        """Return the task around a given backbone."""


@dataclass(frozen=True, kw_only=True)
class WithSmoothingConfig(TaskConfig):
    """Option of tasks whose targets are tokens."""

    label_smoothing: float = 0.0
    """Share of each target token that training spreads evenly over the vocabulary (Szegedy et al.,
    2016), against over-confidence on small sets; validation losses are without."""

    def smoothing_problems(self) -> list[str]:
        """Return the problems of this option."""
        if 0 <= self.label_smoothing < 1:
            return []
        return [f"label_smoothing {self.label_smoothing} must be at least 0 and below 1"]
