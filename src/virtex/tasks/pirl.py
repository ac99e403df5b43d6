"""Pretext-invariant representations (PIRL): equal features for an image and its jigsaw puzzle.

Misra and van der Maaten, "Self-Supervised Learning of Pretext-Invariant Representations", CVPR
2020. f projects an image I, g its patches I^t in random order; the memory bank holds m_I, a moving
average of f(I). With cosine similarity s, temperature T and other images' memories m_n,

    h(a, m) = exp(s(a, m) / T) / (exp(s(a, m_I) / T) + sum_n exp(s(a, m_n) / T))
    NCE(a)  = -log h(a, m_I) - sum_n log(1 - h(a, m_n))
    loss    = weight * NCE(g(I^t)) + (1 - weight) * NCE(f(I))

Departures. The normalizer is the sum over the sampled pairs, as in the paper; the authors' code has
NPID's constant. All images of a step share one sample of negatives without repetition, each
leaving its own memory out: a sample for each image would take B times the memory. The bank is
updated after the step.

Validation images have no memories. Their loss is NCE(g(I^t)) alone, with f(I) for m_I and the
training images' memories as negatives: compare it between steps, not with the training loss.

Shapes: B images, D projected size, N negatives, P side of a patch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize as to_unit_length

from virtex import distributed
from virtex.data.example import Example
from virtex.data.jigsaw import NUM_PATCHES, JigsawTransform
from virtex.data.source_options import Needs
from virtex.data.transforms import TrainTransform, normalize
from virtex.errors import ConfigError, out_of_range, raise_all
from virtex.models.backbone import Backbone
from virtex.models.feature_grid import reason
from virtex.models.linear import Linear
from virtex.models.projection import MemoryBank, Projection, similarities
from virtex.tasks.base import Batch, Encoded, Task, TaskConfig, TaskData, TaskOutput, stack

LARGEST_PROB = 1 - 1e-6
"""Largest probability h of a negative, so that log(1 - h) is finite."""


@dataclass(frozen=True)
class PirlConfig(TaskConfig):
    """Give an image and its jigsaw puzzle the same features (PIRL), without captions."""

    dim: int = 128
    """Size D of the embedding space in which images and puzzles are compared."""
    num_negatives: int = 32_000
    """Number of negatives, memories of other images; all of them if there are fewer."""
    temperature: float = 0.07
    """Divisor of the cosine similarities."""
    memory_momentum: float = 0.5
    """Momentum of a memory: the fraction that it keeps each time its image is seen."""
    jigsaw_share: float = 0.5
    """Weight of the puzzle's loss, from 0 to 1; the image's loss has the rest."""

    def __post_init__(self) -> None:
        problems = out_of_range(self, {"dim": (1, 2**14), "num_negatives": (1, 2**24)})
        for name in ("memory_momentum", "jigsaw_share"):
            if not 0 <= vars(self)[name] <= 1:
                problems.append(f"{name} {vars(self)[name]} must be from 0 to 1")
        if self.temperature <= 0:
            problems.append(f"temperature {self.temperature} must be above 0")
        raise_all(ConfigError, "the options of PIRL cannot work", problems)

    @property
    def needs(self) -> Needs:
        return Needs()

    def build(self, backbone: Backbone, data: TaskData) -> "Pirl":
        patch_size = JigsawTransform(data.image).patch_size
        if data.num_examples < 2:
            raise ConfigError(
                f"PIRL needs at least 2 training images for its memory bank, not "
                f"{data.num_examples}. Build it with TaskData.num_examples."
            )
        try:
            backbone.grid_size(patch_size)
        except ConfigError as error:
            cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
            raise ConfigError(
                f"PIRL cuts images of {data.image.size} px into {NUM_PATCHES} patches of "
                f"{patch_size} px, of which backbone {backbone.config.name!r} cannot make features "
                f"({reason(cause)}). Raise image.size, or choose a network that takes small "
                "images, such as a resnet."
            ) from error
        return Pirl(self, backbone, data)


class JigsawProjection(nn.Module):
    """Projection of nine patches, first of each by itself, then of all in their order."""

    def __init__(self, num_channels: int, dim: int) -> None:
        super().__init__()
        self.patch = Linear(num_channels, dim)
        self.puzzle = Linear(NUM_PATCHES * dim, dim)

    def forward(self, features: Tensor) -> Tensor:
        """Project features (B, 9, C) to unit vectors (B, D)."""
        return to_unit_length(self.puzzle(self.patch(features).flatten(1)).float(), dim=1)


class Pirl(Task):
    """A backbone, the projections f and g, and the memory bank of the training images."""

    def __init__(self, config: PirlConfig, backbone: Backbone, data: TaskData) -> None:
        super().__init__()
        self.config = config
        self.add_module("backbone", backbone)
        self.projection = Projection(backbone.num_channels, config.dim)
        self.jigsaw_projection = JigsawProjection(backbone.num_channels, config.dim)
        self.memory = MemoryBank(data.num_examples, config.dim, momentum=config.memory_momentum)
        self.encode = EncodeImageAndPuzzle(TrainTransform(data.image), JigsawTransform(data.image))
        self.encode_validation = self.encode
        self.collate = stack

    def prepare_step(self, pieces: list[Batch], *, seed: int) -> list[Batch]:
        """Draw the negatives of a step, the same in all pieces and processes."""
        device = self.memory.entries.device
        generator = torch.Generator(device).manual_seed(seed)
        negatives = self.memory.draw(self.config.num_negatives, generator)
        return [{**piece, "negatives": negatives} for piece in pieces]

    def forward(self, batch: Batch) -> TaskOutput:
        puzzles = self.project_puzzles(batch["patches"])
        images = self.projection(self.backbone.pooled(normalize(batch["image"])))
        if not self.training:
            loss = self.contrast(puzzles, images, self.memory.draw(self.config.num_negatives))
            return TaskOutput(loss, {"pirl_jigsaw": loss.detach()})
        index, negatives = batch["index"], batch["negatives"]  # (B,) and (N,)
        own = index[:, None] == negatives  # (B, N)
        memories = self.memory.entries[index]
        puzzle_loss = self.contrast(puzzles, memories, negatives, own=own)
        image_loss = self.contrast(images, memories, negatives, own=own)
        weight = self.config.jigsaw_share
        return TaskOutput(
            weight * puzzle_loss + (1 - weight) * image_loss,
            {"pirl_jigsaw": puzzle_loss.detach(), "pirl_image": image_loss.detach()},
            {"index": index, "features": images.detach()},
        )

    def project_puzzles(self, patches: Tensor) -> Tensor:
        """Return g of patches (B, 9, 3, P, P), unit vectors (B, D)."""
        features = self.backbone.pooled(normalize(patches.flatten(0, 1)))  # (9B, C)
        return self.jigsaw_projection(features.unflatten(0, (-1, NUM_PATCHES)))

    def contrast(
        self, features: Tensor, positives: Tensor, negatives: Tensor, *, own: Tensor | None = None
    ) -> Tensor:
        """Return the NCE of features (B, D), positives (B, D) and the memories `negatives` (N,).

        Args:
            own: (B, N) bool, whether a memory is that of the image itself.
        """
        others = similarities(features, self.memory.entries[negatives])  # (B, N)
        if own is not None:
            others = others.masked_fill(own, -torch.inf)
        positive = (features * positives).sum(1, keepdim=True)
        return noise_contrastive_loss(torch.cat([positive, others], 1) / self.config.temperature)

    def no_weight_decay(self) -> set[str]:
        """Return biases and BatchNorm's parameters, as in the authors' code."""
        return {name for name, parameter in self.named_parameters() if parameter.dim() == 1}

    def after_step(self, step: int, kept: Sequence[Mapping[str, Tensor]]) -> None:
        """Update the memories of the images of this step."""
        del step
        index, features = (
            distributed.gather(torch.cat([piece[name] for piece in kept]))
            for name in ("index", "features")
        )
        self.memory.update(index, features)


@dataclass(frozen=True)
class EncodeImageAndPuzzle:
    """An augmented image and its jigsaw puzzle."""

    transform: TrainTransform
    jigsaw: JigsawTransform

    def __call__(self, example: Example, generator: np.random.Generator) -> Encoded:
        image, _ = self.transform(example, "", generator)
        return {"image": image, "patches": self.jigsaw(example, generator)}


def noise_contrastive_loss(logits: Tensor) -> Tensor:
    """Return the mean NCE of logits (B, 1 + N), the positive's first; -inf is no negative."""
    log_probs = logits.log_softmax(1)
    others = log_probs[:, 1:].exp().clamp(max=LARGEST_PROB)
    return -(log_probs[:, 0] + torch.log1p(-others).sum(1)).mean()
