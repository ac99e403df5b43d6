"""Pretext-invariant representations: an image and its jigsaw puzzle are to look the same.

Misra and van der Maaten, "Self-Supervised Learning of Pretext-Invariant Representations", CVPR
2020. f projects an image I, g its patches I^t in random order; m_I, in the memory bank, is a moving
average of f(I). With cosines s, temperature T and other images' memories m_n,

    h(a, m) = exp(s(a, m) / T) / (exp(s(a, m_I) / T) + sum_n exp(s(a, m_n) / T))
    NCE(a)  = -log h(a, m_I) - sum_n log(1 - h(a, m_n))
    loss    = share * NCE(g(I^t)) + (1 - share) * NCE(f(I))

Departures. As in the paper and unlike its authors' code, the normaliser is the sum over the pairs
at hand, not NPID's constant. The images of a process share one draw of negatives, all different,
each leaving its own memory out: an own draw for each would take B times the memory. The bank is
updated when a step ends.

Validation has no memories of its images. Its loss is NCE(g(I^t)) alone, with f(I) of the moment in
the place of m_I and the training images' memories as negatives: compare it from step to step, not
with the training loss.

Shapes: B images, D projected size, N negatives, P side of a patch.
"""

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
from virtex.models.linear import Linear
from virtex.models.projection import MemoryBank, Projection, similarities
from virtex.tasks.base import Batch, Encoded, Task, TaskConfig, TaskData, TaskOutput, stack

LARGEST_PROB = 1 - 1e-6
"""Of a negative; its logarithm stays finite where one negative outdoes all other pairs."""


@dataclass(frozen=True)
class PirlConfig(TaskConfig):
    """Give an image and its jigsaw puzzle the same features (PIRL); captions are not read."""

    dim: int = 128
    """Size D of the space in which images and puzzles are compared."""
    num_negatives: int = 32_000
    """Memories of other images that each one is compared with; all of them, where there are
    fewer."""
    temperature: float = 0.07
    """Cosines are divided by it."""
    memory_momentum: float = 0.5
    """Share of itself that an image's memory keeps each time the image is seen."""
    jigsaw_share: float = 0.5
    """Weight of the puzzle's loss; the rest is that of the image itself."""

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
                f"PIRL remembers each training image and needs 2 at least, not {data.num_examples}."
                " Build it with TaskData.num_examples."
            )
        try:
            backbone.grid_size(patch_size)
        except ConfigError as error:
            raise ConfigError(
                f"PIRL cuts images of {data.image.size} px into patches of {patch_size}. {error}"
            ) from error
        return Pirl(self, backbone, data)


class JigsawProjection(nn.Module):
    """The features of nine patches, each projected, then all together in their order."""

    def __init__(self, num_channels: int, dim: int) -> None:
        super().__init__()
        self.patch = Linear(num_channels, dim)
        self.puzzle = Linear(NUM_PATCHES * dim, dim)

    def forward(self, features: Tensor) -> Tensor:
        """(B, 9, C) to (B, D) of unit length."""
        return to_unit_length(self.puzzle(self.patch(features).flatten(1)).float(), dim=1)


class Pirl(Task):
    """A backbone, the projections f and g, and the memory of each training image."""

    def __init__(self, config: PirlConfig, backbone: Backbone, data: TaskData) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        self.projection = Projection(backbone.num_channels, config.dim)
        self.jigsaw_projection = JigsawProjection(backbone.num_channels, config.dim)
        self.memory = MemoryBank(data.num_examples, config.dim, momentum=config.memory_momentum)
        self._seen: list[tuple[Tensor, Tensor]] = []  # in the step under way; else empty
        self.encode = EncodeImageAndPuzzle(TrainTransform(data.image), JigsawTransform(data.image))
        self.encode_validation = self.encode
        self.collate = stack

    def forward(self, batch: Batch) -> TaskOutput:
        puzzles = self.project_puzzles(batch["patches"])
        images = self.projection(self.backbone.pooled(normalize(batch["image"])))
        negatives = self.memory.draw(self.config.num_negatives)  # (N,)
        if not self.training:
            loss = self.contrast(puzzles, images, negatives)
            return TaskOutput(loss, {"pirl_jigsaw": loss.detach()})
        index = batch["index"]
        self._seen.append((distributed.gather(index), distributed.gather(images)))
        is_own = index[:, None] == negatives  # (B, N)
        memories = self.memory.entries[index]
        puzzle_loss = self.contrast(puzzles, memories, negatives, is_own=is_own)
        image_loss = self.contrast(images, memories, negatives, is_own=is_own)
        share = self.config.jigsaw_share
        return TaskOutput(
            share * puzzle_loss + (1 - share) * image_loss,
            {"pirl_jigsaw": puzzle_loss.detach(), "pirl_image": image_loss.detach()},
        )

    def project_puzzles(self, patches: Tensor) -> Tensor:
        """g: patches (B, 9, 3, P, P) to (B, D)."""
        features = self.backbone.pooled(normalize(patches.flatten(0, 1)))  # (9B, C)
        return self.jigsaw_projection(features.unflatten(0, (-1, NUM_PATCHES)))

    def contrast(
        self,
        features: Tensor,
        positives: Tensor,
        negatives: Tensor,
        *,
        is_own: Tensor | None = None,
    ) -> Tensor:
        """NCE of features (B, D) with positives (B, D) and the memories at `negatives` (N,).

        Args:
            is_own: (B, N), true where a memory is of the image itself.
        """
        others = similarities(features, self.memory.entries[negatives])  # (B, N)
        if is_own is not None:
            others = others.masked_fill(is_own, -torch.inf)
        own = (features * positives).sum(1, keepdim=True)
        return noise_contrastive_loss(torch.cat([own, others], 1) / self.config.temperature)

    def after_step(self, step: int) -> None:
        del step
        index, features = (torch.cat(parts) for parts in zip(*self._seen, strict=True))
        self.memory.update(index, features)
        self._seen.clear()


@dataclass(frozen=True)
class EncodeImageAndPuzzle:
    """An augmented image and its puzzle; in validation too, with the same generator each time."""

    transform: TrainTransform
    jigsaw: JigsawTransform

    def __call__(self, example: Example, generator: np.random.Generator) -> Encoded:
        image, _ = self.transform(example, "", generator)
        return {"image": image, "patches": self.jigsaw(example, generator)}


def noise_contrastive_loss(logits: Tensor) -> Tensor:
    """Mean NCE of logits (B, 1 + N), the positive's first; -inf stands for no negative."""
    log_shares = logits.log_softmax(1)
    others = log_shares[:, 1:].exp().clamp(max=LARGEST_PROB)
    return -(log_shares[:, 0] + torch.log1p(-others).sum(1)).mean()
